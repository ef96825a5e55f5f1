//! Guarantees 5, 6 and 8: whatever the peer sends, there is a typed error, nothing leaks, and the next
//! good message arrives.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use wormhole::{Error, Receiver, Sender, channel};

use crate::support::{
    DescriptorLimit, in_own_process, open_fds, packet, packet_of_length, pipe, raw_send,
    two_way_pair,
};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u32,
    name: String,
}

const GOOD: &str = r#"{"id":7,"name":"seven"}"#;

fn memfd(contents: &[u8]) -> OwnedFd {
    let fd = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
    let mut file = File::from(fd);
    file.write_all(contents).unwrap();
    file.into()
}

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

#[test]
fn out_of_descriptors_while_sending_is_an_error_and_sends_nothing() {
    in_own_process(|| {
        #[derive(Serialize, Deserialize)]
        struct Fd(#[serde(with = "wormhole::fd")] OwnedFd, String);
        let (tx, rx) = channel::<Fd>().unwrap();
        let mut message = Fd(memfd(b""), String::new());
        let before = open_fds();
        let limit = DescriptorLimit::new();
        let error = tx.by_ref().send(&message).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot duplicate a descriptor of the message"
        );
        assert!(matches!(channel::<u8>(), Err(Error::Io { .. })));
        // One more descriptor: enough for the field, not for the memfd of a long text as well.
        limit.leave_room_for(1);
        message.1 = "x".repeat(1_000_000);
        let error = tx.by_ref().send(&message).unwrap_err();
        assert!(error.to_string().contains("memfd"), "{error}");
        message.1.clear();
        tx.by_ref().send(&message).unwrap();
        drop(limit);
        assert_eq!(open_fds(), before);
        assert_eq!(rx.recv().unwrap().1, "");
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));
    });
}

#[test]
fn what_a_foreign_holder_asks_the_kernel_for_costs_no_descriptor() {
    use nix::libc;
    in_own_process(|| {
        #[derive(Debug, Serialize, Deserialize)]
        struct Fd(#[serde(with = "wormhole::fd")] OwnedFd);
        const SO_PASSPIDFD: libc::c_int = 76;
        let wishes: &[&[libc::c_int]] = &[
            &[SO_PASSPIDFD],
            &[libc::SO_PASSCRED],
            &[libc::SO_PASSSEC],
            &[libc::SO_PASSCRED, libc::SO_PASSSEC, SO_PASSPIDFD],
            &[libc::SO_TIMESTAMP],
            &[
                libc::SO_PASSCRED,
                libc::SO_PASSSEC,
                SO_PASSPIDFD,
                libc::SO_TIMESTAMPNS,
                libc::SO_TIMESTAMPING,
            ],
        ];
        let before = open_fds();
        for wish in wishes {
            let (tx, rx) = channel::<Vec<Fd>>().unwrap();
            for &option in *wish {
                // For SO_TIMESTAMPING: when it was received, by the system's clock.
                let yes: libc::c_int = 0x18;
                // SAFETY: the pointer is to an integer of the length given.
                #[allow(unsafe_code, reason = "nix does not know all of these options")]
                let set = unsafe {
                    libc::setsockopt(
                        std::os::fd::AsRawFd::as_raw_fd(&rx.as_fd()),
                        libc::SOL_SOCKET,
                        option,
                        (&raw const yes).cast(),
                        4,
                    )
                };
                if set != 0 {
                    eprintln!("skipped: this kernel does not know socket option {option}");
                }
            }
            for count in [0, 1, 2, 253] {
                tx.send((0..count).map(|_| Fd(memfd(b""))).collect::<Vec<_>>())
                    .unwrap();
                raw_send(&tx, b"garbage", &[]);
                let open = open_fds().len();
                assert_eq!(rx.recv().unwrap().len(), count);
                rx.recv().unwrap_err();
                assert_eq!(open_fds().len(), open);
            }
            drop(tx);
            assert!(matches!(rx.recv(), Err(Error::Disconnected)));
            drop(rx);
            assert_eq!(open_fds(), before);
        }
    });
}

#[test]
fn a_receiver_that_writes_backwards_costs_nothing() {
    in_own_process(|| {
        use nix::sys::socket::{MsgFlags, send};
        use std::os::fd::AsRawFd;
        let (tx, rx) = channel::<u32>().unwrap();
        for number in 0..100 {
            tx.send(number).unwrap();
        }
        let backwards = send(rx.as_fd().as_raw_fd(), b"garbage", MsgFlags::MSG_NOSIGNAL);
        assert_eq!(backwards, Err(nix::Error::EPIPE)); // one-way in the kernel
        tx.send(100).unwrap();
        drop(tx);
        assert!(rx.iter().map(Result::unwrap).eq(0..=100));

        // The same through a foreign pair, which is not one-way.
        let (a, b) = two_way_pair();
        let tx = Sender::<u32>::try_from(a).unwrap();
        let rx = Receiver::<u32>::try_from(b).unwrap();
        for number in 0..100 {
            tx.send(number).unwrap();
        }
        raw_send(&rx, b"garbage", &[]);
        tx.send(100).unwrap();
        drop(tx);
        assert!(rx.iter().map(Result::unwrap).eq(0..=100));
    });
}

#[test]
fn a_sender_whose_receiver_died_with_messages_is_disconnected() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        tx.send(1).unwrap();
        drop(rx);
        for _ in 0..3 {
            assert!(matches!(tx.send(2), Err(Error::Disconnected)));
            assert!(matches!(tx.try_send(2), Err(Error::Disconnected)));
            let late = tx.send_timeout(2, Duration::from_secs(1));
            assert!(matches!(late, Err(Error::Disconnected)));
            let long = tx.send_with_fds(3, &[tx.as_fd()]);
            assert!(matches!(long, Err(Error::Disconnected)));
        }
    });
}

#[test]
fn empty_packets_do_not_look_like_the_end() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let is_malformed = |message| matches!(message, Err(Error::Malformed { .. }));
        raw_send(&tx, b"", &[]);
        assert!(is_malformed(rx.recv()));
        raw_send(&tx, b"", &[]);
        raw_send(&tx, b"", &[]);
        tx.send(1).unwrap();
        assert!(is_malformed(rx.recv()));
        assert!(is_malformed(rx.recv()));
        assert_eq!(rx.recv().unwrap(), 1);
        raw_send(&tx, b"", &[]);
        tx.send(2).unwrap();
        raw_send(&tx, b"", &[memfd(b"").as_fd()]);
        tx.send(3).unwrap();
        raw_send(&tx, b"", &[]);
        drop(tx);
        // Without a sender, empty packets are passed over: nothing tells them from a look at the queue that
        // came too early. One with a descriptor is never the end.
        assert_eq!(rx.recv().unwrap(), 2);
        assert!(is_malformed(rx.recv()));
        assert_eq!(rx.recv().unwrap(), 3);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    });
}

#[test]
fn a_last_message_just_before_the_end_is_received() {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::unistd::Pid;
    in_own_process(|| {
        // Sender and receiver on a processor each, if there are two.
        let this = Pid::from_raw(0);
        let allowed = sched_getaffinity(this).unwrap();
        let cpus: Vec<_> = (0..CpuSet::count())
            .filter(|&cpu| allowed.is_set(cpu).unwrap())
            .collect();
        let stay_on = move |cpu| {
            let mut set = CpuSet::new();
            set.set(cpu).unwrap();
            sched_setaffinity(this, &set).unwrap();
        };
        let (hand, handed) = std::sync::mpsc::sync_channel::<Sender<u32>>(1);
        let there = *cpus.last().unwrap();
        let sender = std::thread::spawn(move || {
            stay_on(there);
            let mut random = crate::support::Random::new(1);
            for tx in handed {
                for _ in 0..random.below(1000) {
                    std::hint::spin_loop();
                }
                tx.send(1).unwrap();
            }
        });
        stay_on(cpus[0]);
        // As many as there is time for: where other processes want both processors, a round takes milliseconds.
        let start = std::time::Instant::now();
        let rounds = (0..20_000).take_while(|_| start.elapsed().as_secs() < 30);
        for _ in rounds {
            let (tx, rx) = channel::<u32>().unwrap();
            hand.send(tx).unwrap();
            // No wait: looks at the queue and at the end of the sender as often as possible.
            let looks = || std::iter::from_fn(|| Some(rx.try_recv()));
            let received = looks().find(|look| !matches!(look, Err(Error::Empty)));
            assert_eq!(received.unwrap().unwrap(), 1);
            let end = looks().find(|look| !matches!(look, Err(Error::Empty)));
            assert!(matches!(end, Some(Err(Error::Disconnected))));
        }
        drop(hand);
        sender.join().unwrap();
    });
}

#[test]
fn a_buffer_that_changes_all_the_time_tears_nothing() {
    use nix::sys::socket::{setsockopt, sockopt};
    #[derive(Debug, Serialize, Deserialize)]
    struct WithFile(#[serde(with = "wormhole::fd")] File, String);
    in_own_process(|| {
        let (tx, rx) = channel::<WithFile>().unwrap();
        let same = tx.as_fd().try_clone_to_owned().unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    setsockopt(&same, sockopt::SndBuf, &2304).unwrap();
                    setsockopt(&same, sockopt::SndBuf, &106_496).unwrap();
                }
            });
            let message = WithFile(File::open("/dev/null").unwrap(), "x".repeat(100_000));
            for _ in 0..1000 {
                tx.by_ref().send(&message).unwrap();
                let WithFile(file, text) = rx.recv().unwrap();
                assert!(!file.metadata().unwrap().is_file()); // a device, no memfd
                assert_eq!(text.len(), 100_000);
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
}

#[test]
fn a_memfd_that_changes_while_it_is_read_is_an_error_at_worst() {
    in_own_process(|| {
        let (tx, rx) = channel::<String>().unwrap();
        let text = format!("\"{}\"", "x".repeat(1_000_000));
        let memfd = File::from(memfd(text.as_bytes()));
        let before = open_fds();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    for len in [0, 500_000, 2_000_000, text.len() as u64] {
                        memfd.set_len(len).unwrap();
                    }
                }
            });
            let packet = packet_of_length(text.len() as u64, b"");
            for _ in 0..1000 {
                raw_send(&tx, &packet, &[memfd.as_fd()]);
                match rx.recv() {
                    Ok(_) | Err(Error::Malformed { .. } | Error::Decode { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(open_fds(), before);
        tx.send("good".to_owned()).unwrap();
        assert_eq!(rx.recv().unwrap(), "good");
    });
}

#[test]
fn every_form_of_recv_refuses_descriptors_that_nothing_claims() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let forms: [&dyn Fn() -> Result<u32, Error>; 4] = [
            &|| rx.recv(),
            &|| rx.try_recv(),
            &|| rx.recv_timeout(Duration::from_secs(60)),
            &|| wormhole::select! { recv(rx) -> message => message },
        ];
        let before = open_fds();
        for form in forms {
            tx.send_with_fds(1, &[tx.as_fd()]).unwrap();
            assert!(matches!(form(), Err(Error::UnexpectedFds { count: 1 })));
            assert_eq!(open_fds(), before);
        }
    });
}

#[test]
fn an_error_does_not_repeat_all_that_the_peer_has_sent() {
    in_own_process(|| {
        #[derive(Debug, Deserialize)]
        enum Color {
            Red,
        }
        let (tx, rx) = channel::<Color>().unwrap();
        let hostile = format!("\"\\n\\u001b[31m{}\"", "x".repeat(1_000_000));
        for text in [hostile.as_str(), "\"\\n\\u001b[31m\""] {
            let memfd = memfd(text.as_bytes());
            raw_send(
                &tx,
                &packet_of_length(text.len() as u64, b""),
                &[memfd.as_fd()],
            );
            let error = rx.recv().unwrap_err().to_string();
            assert!(
                error.len() < 1200 && error.contains("unknown variant"),
                "{error}"
            );
            assert!(!error.contains(char::is_control), "{error:?}");
        }
        raw_send(&tx, &packet(b"\"Red\""), &[]);
        assert!(matches!(rx.recv(), Ok(Color::Red)));
    });
}

#[test]
fn end_of_input_from_a_shut_down_sender_is_disconnection() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        tx.send(1).unwrap();
        let shutdown = nix::sys::socket::Shutdown::Write;
        nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&tx.as_fd()), shutdown).unwrap();
        assert!(matches!(tx.send(2), Err(Error::Disconnected)));
        assert_eq!(rx.recv().unwrap(), 1);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    });
}
