//! Guarantees 5, 6 and 8: whatever the peer sends, there is a typed error, nothing leaks, and the next
//! good message arrives.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use wormhole::{Error, Sender, channel};

use crate::support::{
    DescriptorLimit, in_own_process, memfd, open_fds, packet, packet_of_length, pipe, raw_send,
    two_way_pair,
};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u32,
    name: String,
}

const GOOD: &str = r#"{"id":7,"name":"seven"}"#;

fn sparse_memfd(len: u64) -> OwnedFd {
    let file = File::from(memfd(b""));
    file.set_len(len).unwrap();
    file.into()
}

/// One kind of garbage, and what the receiver must say about it.
struct Garbage {
    name: &'static str,
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    expected: &'static str,
}

fn garbage() -> Vec<Garbage> {
    let mut list = Vec::new();
    let mut add = |name, bytes: Vec<u8>, fds, expected| {
        list.push(Garbage {
            name,
            bytes,
            fds,
            expected,
        });
    };
    let text = |text: &str| packet(text.as_bytes());

    add(
        "nothing at all",
        vec![],
        vec![],
        "malformed packet: 0 bytes are too few",
    );
    add(
        "nothing but a descriptor",
        vec![],
        vec![memfd(b"")],
        "malformed packet: 0 bytes are too few",
    );
    add(
        "short packet",
        vec![1, 0, 0],
        vec![],
        "malformed packet: 3 bytes are too few",
    );
    add(
        "header cut by a byte",
        vec![0; 7],
        vec![],
        "malformed packet: 7 bytes are too few",
    );
    add(
        "empty text",
        packet(b""),
        vec![],
        "EOF while parsing a value",
    );
    add(
        "length too small",
        packet_of_length(22, GOOD.as_bytes()),
        vec![],
        "23 bytes of text came with a declared length of 22",
    );
    add(
        "length zero before text",
        packet_of_length(0, GOOD.as_bytes()),
        vec![],
        "23 bytes of text came with a declared length of 0",
    );
    add(
        "length too large",
        packet_of_length(24, GOOD.as_bytes()),
        vec![],
        "1 bytes of text are missing and no descriptor came",
    );
    add(
        "length u64::MAX",
        packet_of_length(u64::MAX, GOOD.as_bytes()),
        vec![],
        "message of 18446744073709551615 bytes is longer than the limit of 67108864 bytes",
    );
    add(
        "length u64::MAX and a memfd",
        packet_of_length(u64::MAX, b""),
        vec![memfd(b"")],
        "message of 18446744073709551615 bytes is longer",
    );
    add(
        "not JSON",
        text("hello"),
        vec![],
        "expected value at line 1 column 1",
    );
    add(
        "JSON cut short",
        text(r#"{"id":7,"#),
        vec![],
        "EOF while parsing",
    );
    add(
        "wrong type",
        text("[1,2,3]"),
        vec![],
        "invalid type: integer `2`, expected a string",
    );
    add(
        "missing field",
        text(r#"{"id":7}"#),
        vec![],
        "missing field `name`",
    );
    add(
        "number out of range",
        text(r#"{"id":-1,"name":""}"#),
        vec![],
        "invalid value: integer `-1`, expected u32",
    );
    add(
        "trailing text",
        text(&format!("{GOOD} x")),
        vec![],
        "trailing characters",
    );
    add(
        "two messages in one",
        text(&format!("{GOOD}{GOOD}")),
        vec![],
        "trailing characters",
    );
    add(
        "trailing NUL",
        text(&format!("{GOOD}\0")),
        vec![],
        "trailing characters",
    );
    add(
        "not UTF-8",
        packet(b"{\"id\":7,\"name\":\"\xff\xfe\"}"),
        vec![],
        "invalid utf-8 sequence of 1 bytes from index 16",
    );
    add(
        "not UTF-8 where it is ignored",
        packet(b"{\"id\":7,\"name\":\"\",\"x\":\"\xff\"}"),
        vec![],
        "invalid utf-8 sequence",
    );
    add(
        "lone surrogate",
        text(r#"{"id":7,"name":"\ud800"}"#),
        vec![],
        "unexpected end of hex escape",
    );
    add(
        "too deep",
        text(&format!(r#"{{"id":{}"#, "[".repeat(100_000))),
        vec![],
        "invalid type: sequence",
    );
    add(
        "too deep where it is ignored",
        text(&format!(r#"{{"x":{}"#, "[".repeat(100_000))),
        vec![],
        "EOF while parsing",
    );
    add(
        "packet longer than the protocol's",
        packet(&vec![b' '; 256 * 1024]),
        vec![],
        "a packet of 262152 bytes is longer than the limit of 262144",
    );
    add(
        "253 descriptors that nobody asked for",
        text(GOOD),
        (0..253).map(|_| memfd(b"")).collect(),
        "with 253 descriptors that nothing claims",
    );
    add(
        "a descriptor beside garbage",
        text("hello"),
        vec![memfd(b"")],
        "expected value at line 1 column 1",
    );
    add(
        "a pipe in place of the memfd",
        packet_of_length(100, b"{"),
        vec![pipe().0.into()],
        "the descriptor for the 99 bytes that the packet lacks is not a memfd",
    );
    add(
        "a socket in place of the memfd",
        packet_of_length(100, b"{"),
        vec![two_way_pair().0],
        "is not a memfd",
    );
    add(
        "a file in place of the memfd",
        packet_of_length(100, b"{"),
        vec![File::open("/proc/self/status").unwrap().into()],
        "is not a memfd",
    );
    add(
        "a terminal in place of the memfd",
        packet_of_length(100, b"{"),
        vec![File::open("/dev/ptmx").unwrap().into()],
        "is not a memfd",
    );
    add(
        "a directory in place of the memfd",
        packet_of_length(100, b"{"),
        vec![File::open("/").unwrap().into()],
        "is not a memfd",
    );
    add(
        "a memfd that is too short",
        packet_of_length(23, &GOOD.as_bytes()[..3]),
        vec![memfd(&GOOD.as_bytes()[4..])],
        "the packet lacks 20 bytes and the memfd that came with it has 19",
    );
    add(
        "a memfd that is too long",
        packet_of_length(23, &GOOD.as_bytes()[..3]),
        vec![memfd(GOOD.as_bytes())],
        "the packet lacks 20 bytes and the memfd that came with it has 23",
    );
    add(
        "a sparse and huge memfd",
        packet_of_length(1 << 60, b"{"),
        vec![sparse_memfd(1 << 60)],
        "message of 1152921504606846976 bytes is longer than the limit",
    );
    add(
        "a huge memfd for a short text",
        packet_of_length(100, b"{"),
        vec![sparse_memfd(1 << 60)],
        "the packet lacks 99 bytes and the memfd that came with it has 1152921504606846976",
    );
    add(
        "a sparse memfd within the limit",
        packet_of_length(60 << 20, b"{"),
        vec![sparse_memfd((60 << 20) - 1)],
        "key must be a string",
    );
    add(
        "an extra descriptor after the memfd",
        packet_of_length(23, &GOOD.as_bytes()[..3]),
        vec![memfd(&GOOD.as_bytes()[3..]), memfd(b"")],
        "with 1 descriptors that nothing claims",
    );
    add(
        "a memfd that only its sender may read",
        packet_of_length(23, &GOOD.as_bytes()[..3]),
        vec![write_only(memfd(&GOOD.as_bytes()[3..]))],
        "the memfd of a long message is not open for reading",
    );
    list
}

/// The same memory, opened for writing only.
fn write_only(memfd: OwnedFd) -> OwnedFd {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", memfd.as_raw_fd());
    File::options().write(true).open(path).unwrap().into()
}

#[test]
fn g5_g8_garbage_is_a_typed_error_and_the_next_message_arrives() {
    in_own_process(|| {
        let (tx, rx) = channel::<Order>().unwrap();
        // A packet can only be longer than the protocol's through a buffer that is larger: twice this.
        let buffer = nix::sys::socket::sockopt::SndBuf;
        nix::sys::socket::setsockopt(&tx, buffer, &212_992).unwrap();
        let before = open_fds();
        for garbage in garbage() {
            let Garbage {
                name,
                bytes,
                fds,
                expected,
            } = garbage;
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            raw_send(&tx, &bytes, &borrowed);
            drop(fds);
            raw_send(&tx, &packet(GOOD.as_bytes()), &[]);

            let error = rx.recv().expect_err(name);
            let text = error.to_string();
            assert!(text.contains(expected), "{name}: {text}");
            assert!(!matches!(error, Error::Disconnected), "{name}");
            let good = rx
                .recv()
                .unwrap_or_else(|error| panic!("after {name}: {error}"));
            assert_eq!((good.id, good.name.as_str()), (7, "seven"));
        }
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn g6_received_descriptors_are_closed_on_every_error_of_recv_with_fds() {
    in_own_process(|| {
        let (tx, rx) = channel::<Order>().unwrap();
        let before = open_fds();
        for bytes in [
            packet(b"nonsense"),
            vec![1],
            packet_of_length(u64::MAX, b""),
        ] {
            let fds: Vec<_> = (0..253).map(|_| memfd(b"")).collect();
            let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            raw_send(&tx, &bytes, &borrowed);
            drop(fds);
            rx.recv_with_fds().unwrap_err();
            assert_eq!(open_fds(), before);
        }
    });
}

#[test]
fn g6_received_descriptors_are_close_on_exec() {
    in_own_process(|| {
        use nix::fcntl::{FcntlArg, FdFlag, fcntl};
        #[derive(Serialize, Deserialize)]
        struct Fd(#[serde(with = "wormhole::fd")] OwnedFd);
        let is_cloexec = |fd: &OwnedFd| {
            let flags = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).unwrap());
            flags.contains(FdFlag::FD_CLOEXEC)
        };
        let (tx, rx) = channel::<(Fd, Sender<u8>)>().unwrap();
        let plain = memfd_create(c"test", MFdFlags::empty()).unwrap();
        assert!(!is_cloexec(&plain));
        let (sender, receiver) = channel::<u8>().unwrap();
        tx.send_with_fds((Fd(plain), sender), &[receiver.as_fd()])
            .unwrap();
        let ((Fd(field), sender), beside) = rx.recv_with_fds().unwrap();
        assert!(is_cloexec(&field));
        assert!(is_cloexec(&beside[0]));
        for end in [
            OwnedFd::try_from(sender).unwrap(),
            OwnedFd::try_from(receiver).unwrap(),
            OwnedFd::try_from(tx).unwrap(),
            OwnedFd::try_from(rx).unwrap(),
        ] {
            assert!(is_cloexec(&end));
        }
    });
}

#[test]
fn g6_received_descriptors_may_have_any_number() {
    in_own_process(|| {
        let (tx, rx) = channel::<u8>().unwrap();
        let (reader, mut writer) = pipe();
        tx.send_with_fds(1, &[reader.as_fd(), reader.as_fd()])
            .unwrap();
        drop(reader);
        nix::unistd::close(0).unwrap();
        let (_, fds) = rx.recv_with_fds().unwrap();
        assert_eq!((fds.len(), fds[0].as_raw_fd()), (2, 0));
        writer.write_all(b"text").unwrap();
        drop(writer);
        let mut text = String::new();
        let first = fds.into_iter().next().unwrap();
        File::from(first).read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
    });
}

#[test]
fn g6_lost_descriptors_are_an_error() {
    in_own_process(|| {
        #[derive(Serialize, Deserialize)]
        struct Fd(#[serde(with = "wormhole::fd")] OwnedFd);
        let (tx, rx) = channel::<Vec<Fd>>().unwrap();
        let ten = || (0..10).map(|_| Fd(memfd(b""))).collect::<Vec<_>>();
        let fds = || -> Vec<OwnedFd> { (0..10).map(|_| memfd(b"")).collect() };
        let before = open_fds();
        for room in [0, 1, 9] {
            tx.send(ten()).unwrap();
            let beside = fds();
            let borrowed: Vec<_> = beside.iter().map(AsFd::as_fd).collect();
            tx.send_with_fds(vec![], &borrowed).unwrap();
            drop(beside);
            tx.send(vec![]).unwrap();

            let limit = DescriptorLimit::new();
            limit.leave_room_for(room);
            assert!(matches!(rx.recv(), Err(Error::FdsLost)));
            assert!(matches!(rx.recv_with_fds(), Err(Error::FdsLost)));
            assert_eq!(rx.recv().unwrap().len(), 0);
            drop(limit);
            assert_eq!(open_fds(), before);
        }
    });
}
