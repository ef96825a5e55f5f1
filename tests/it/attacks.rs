//! What a hostile peer tries beyond bad packets: SECURITY.md says what each of these shows.

use std::ffi::c_void;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::PollFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};
use serde::{Deserialize, Serialize};
use wormhole::{Error, Sender, channel};

use crate::support::{
    Forked, becomes_ready, ends_within, forked, in_own_process, open_fds, packet_of_length,
    raw_send, until_asleep, until_in_state,
};

#[derive(Debug, Serialize, Deserialize)]
struct Fd(#[serde(with = "wormhole::fd")] OwnedFd);

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_reply_end_that_nobody_reads_stops_only_who_waits_for_it() {
    in_own_process(|| {
        #[derive(Serialize, Deserialize)]
        struct Request {
            reply: Sender<String>,
        }
        let (tx, requests) = channel::<Request>().unwrap();
        let (reply, answers) = channel().unwrap();
        while reply.try_send(String::new()).is_ok() {}
        tx.send(Request { reply }).unwrap();

        let request = requests.recv().unwrap();
        for answer in ["short", &"long".repeat(100_000)] {
            let sent = request.reply.try_send(answer.to_owned());
            assert!(matches!(sent, Err(Error::Full)));
            let sent = request
                .reply
                .send_timeout(answer.to_owned(), Duration::from_millis(5));
            assert!(matches!(sent, Err(Error::TimedOut { .. })));
        }
        drop(answers);
        let sent = request.reply.send("late".to_owned());
        assert!(matches!(sent, Err(Error::Disconnected)));
    });
}

#[test]
fn a_peer_that_shuts_its_end_down_disconnects_at_worst() {
    in_own_process(|| {
        for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
            // A sender.
            let (tx, rx) = channel::<u32>().unwrap();
            tx.send(1).unwrap();
            shutdown(tx.as_fd().as_raw_fd(), how).unwrap();
            let may_send = how == Shutdown::Read;
            assert_eq!(tx.send(2).is_ok(), may_send);
            assert_eq!(rx.recv().unwrap(), 1);
            if may_send {
                assert_eq!(rx.recv().unwrap(), 2);
                assert!(matches!(rx.try_recv(), Err(Error::Empty)));
                drop(tx);
            }
            assert!(matches!(rx.recv_timeout(LONG), Err(Error::Disconnected)));

            // A receiver.
            let (tx, rx) = channel::<u32>().unwrap();
            tx.send(1).unwrap();
            shutdown(rx.as_fd().as_raw_fd(), how).unwrap();
            if how == Shutdown::Write {
                while tx.try_send(2).is_ok() {}
                drop(rx);
            }
            assert!(matches!(tx.send_timeout(3, LONG), Err(Error::Disconnected)));
            assert!(matches!(tx.send(3), Err(Error::Disconnected)));
        }
    });
}

/// Makes the kernel cut all packets that a socket receives to `len` bytes, or to nothing: they vanish.
fn cut_packets(socket: &impl AsRawFd, len: u32) {
    // BPF_RET | BPF_K
    let mut program = [libc::sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: len,
    }];
    let filter = libc::sock_fprog {
        len: 1,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the pointer is to a filter of one instruction, which the kernel copies.
    #[allow(unsafe_code, reason = "nix has no socket filters")]
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            libc::socklen_t::try_from(size_of_val(&filter)).unwrap(),
        )
    };
    assert_eq!(set, 0);
}

#[test]
fn a_filter_on_the_socket_makes_packets_malformed_and_nothing_worse() {
    in_own_process(|| {
        let before = open_fds();
        for (len, expected) in [(4, "4 bytes are too few"), (20, "are missing")] {
            let (tx, rx) = channel::<Vec<u64>>().unwrap();
            cut_packets(&rx.as_fd(), len);
            tx.send(vec![7; 100]).unwrap();
            tx.send_with_fds(vec![8; 100], &[tx.as_fd()]).unwrap();
            tx.send(vec![]).unwrap();
            assert!(rx.recv().unwrap_err().to_string().contains(expected));
            assert!(matches!(rx.recv_with_fds(), Err(Error::Malformed { .. })));
            match rx.recv() {
                Ok(list) => assert_eq!((list.len(), len), (0, 20)),
                Err(error) => assert!(matches!(error, Error::Malformed { .. })),
            }
        }
        // One that drops everything is a receiver that throws away what it receives.
        let (tx, rx) = channel::<u32>().unwrap();
        cut_packets(&rx.as_fd(), 0);
        (0..10_000).for_each(|number| tx.send(number).unwrap());
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));
        drop((tx, rx));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_receiver_that_refuses_descriptors_makes_sending_them_an_error() {
    in_own_process(|| {
        const SO_PASSRIGHTS: libc::c_int = 83; // Linux 6.16
        let (tx, rx) = channel::<String>().unwrap();
        let no: libc::c_int = 0;
        // SAFETY: the pointer is to an integer of the length given.
        #[allow(unsafe_code, reason = "nix does not know this option")]
        let set = unsafe {
            libc::setsockopt(
                rx.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                SO_PASSRIGHTS,
                (&raw const no).cast(),
                4,
            )
        };
        if set != 0 {
            eprintln!("skipped: this kernel does not know SO_PASSRIGHTS");
            return;
        }
        let before = open_fds();
        let long = "x".repeat(1_000_000); // whose memfd is a descriptor, too
        for sent in [
            tx.by_ref().send(&long),
            tx.try_send(long),
            tx.send_with_fds(String::new(), &[tx.as_fd()]),
        ] {
            assert!(matches!(sent, Err(Error::Io { source, .. })
                if source.kind() == ErrorKind::PermissionDenied));
        }
        assert_eq!(open_fds(), before);
        tx.send("short".to_owned()).unwrap();
        assert_eq!(rx.recv().unwrap(), "short");
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));
    });
}

/// How much memory this process has had at most, and has now, in kB.
fn memory() -> [u64; 2] {
    ["VmHWM:", "VmRSS:"].map(|key| {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    })
}

/// What it takes to receive a list of such items, at most, in tenths of the length of their text.
fn growth<T: serde::de::DeserializeOwned>(item: &str) -> u64 {
    const LEN: usize = 4 << 20;
    let (tx, rx) = channel::<T>().unwrap();
    // Not made here: what this process has had once it may have again without taking up more.
    let sender = forked(|| {
        let items = format!(",{item}").repeat(LEN / (item.len() + 1));
        let text = format!("[{}]", &items[1..]);
        let mut memfd = File::from(memfd_create(c"text", MFdFlags::MFD_CLOEXEC).unwrap());
        memfd.write_all(text.as_bytes()).unwrap();
        let packet = packet_of_length(text.len() as u64, b"");
        raw_send(&tx, &packet, &[memfd.as_fd()]);
    });
    sender.join();
    let (told, tell) = channel::<u64>().unwrap();
    let receiver = forked(|| {
        let [_, before] = memory();
        drop(rx.recv().unwrap());
        let [most, _] = memory();
        told.send((most - before) * 1024 * 10 / LEN as u64).unwrap();
    });
    receiver.join();
    tell.recv().unwrap()
}

#[test]
fn a_decoded_value_takes_up_a_multiple_of_its_text_that_its_type_decides() {
    in_own_process(|| {
        // The text; 24 bytes of list for each `[]` and its comma; room for as many as there have been.
        let lists = growth::<Vec<Vec<u8>>>("[]");
        // The same, and an allocation for the 8 bytes that a list has room for at first.
        let filled = growth::<Vec<Vec<u8>>>("[0]");
        // A node of a tree has room for 11 members.
        let objects = growth::<serde_json::Value>("{\"\":0}");
        let bytes = growth::<Vec<u8>>("0");
        // One in another, which takes fewer bytes of text for each.
        let nested = |open: &str, inside: &str, close: &str| {
            let item = [open.repeat(120), inside.to_owned(), close.repeat(120)];
            growth::<serde_json::Value>(&item.concat())
        };
        let nested_lists = nested("[", "0", "]");
        let nested_objects = nested("{\"\":", "0", "}");
        let growths = [lists, filled, objects, bytes, nested_lists, nested_objects];
        println!("in tenths of the text: {growths:?}");
        for (growth, most) in growths.iter().zip([250, 250, 1500, 40, 1500, 2500]) {
            assert!((10..most).contains(growth), "{growths:?}");
        }
    });
}

#[test]
fn to_close_a_connection_may_take_as_long_as_its_sender_has_arranged() {
    in_own_process(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        // More than the other side has room for, and an hour to wait for it.
        connection.set_nonblocking(true).unwrap();
        let full = std::iter::repeat(()).find_map(|()| connection.write(&[0; 65536]).err());
        assert_eq!(full.unwrap().kind(), ErrorKind::WouldBlock);
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 3600,
        };
        connection.set_nonblocking(false).unwrap();
        setsockopt(&connection, sockopt::Linger, &linger).unwrap();

        let (tx, rx) = channel::<u32>().unwrap();
        tx.send_with_fds(1, &[connection.as_fd()]).unwrap();
        drop(connection);
        let (done, is_done) = channel::<()>().unwrap();
        let receiver = forked(|| {
            assert!(matches!(
                rx.try_recv(),
                Err(Error::UnexpectedFds { count: 1 })
            ));
            done.send(()).unwrap();
        });
        until_asleep(receiver.pid);
        assert!(matches!(is_done.try_recv(), Err(Error::Empty)));
        // Once the other side has read it all, there is nothing to wait for.
        std::io::copy(&mut other, &mut std::io::sink()).unwrap();
        is_done.recv().unwrap();
        receiver.join();
    });
}

/// A file of a file system that the test itself is: FUSE, without a library.
struct HostileFile {
    fuse: File,
    path: std::path::PathBuf,
}

impl HostileFile {
    /// Mounts it. `None` if that is not permitted here.
    fn mount(path: std::path::PathBuf) -> Option<Self> {
        let fuse = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .ok()?;
        File::create(&path).unwrap();
        // The root of this file system is a file.
        let options = format!(
            "fd={},rootmode=100000,user_id=0,group_id=0",
            fuse.as_raw_fd()
        );
        mount(
            Some("hostile"),
            &path,
            Some("fuse"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .ok()?;
        Some(HostileFile { fuse, path })
    }

    /// Reads the kernel's next request, and gives its operation and its number.
    fn request(&mut self) -> (u32, u64) {
        let mut request = [0; 1 << 16];
        let len = self.fuse.read(&mut request).unwrap();
        assert!(len >= 40);
        let operation = u32::from_ne_bytes(request[4..8].try_into().unwrap());
        (
            operation,
            u64::from_ne_bytes(request[8..16].try_into().unwrap()),
        )
    }

    /// Answers a request, with an error or with these words.
    fn answer(&mut self, number: u64, error: i32, words: &[u32]) {
        let len = 16 + 4 * words.len();
        let mut answer = u32::try_from(len).unwrap().to_ne_bytes().to_vec();
        answer.extend(error.to_ne_bytes());
        answer.extend(number.to_ne_bytes());
        words
            .iter()
            .for_each(|word| answer.extend(word.to_ne_bytes()));
        assert_eq!(self.fuse.write(&answer).unwrap(), len);
    }

    /// Answers everything up to a request to do `operation`, of which it gives the number.
    fn answer_until(&mut self, operation: u32) -> u64 {
        const INIT: u32 = 26;
        const OPEN: u32 = 14;
        loop {
            match self.request() {
                (found, number) if found == operation => return number,
                // Version 7.31, and sizes that will do.
                (INIT, number) => {
                    let mut words = [0; 16];
                    (words[0], words[1], words[5]) = (7, 31, 4096);
                    self.answer(number, 0, &words);
                }
                (OPEN, number) => self.answer(number, 0, &[1, 0, 0, 0]),
                (_, number) => self.answer(number, -libc::ENOSYS, &[]),
            }
        }
    }
}

impl Drop for HostileFile {
    fn drop(&mut self) {
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

#[test]
fn to_close_a_file_may_take_as_long_as_its_file_system_likes() {
    in_own_process(|| {
        const FLUSH: u32 = 25;
        let directory = tempfile::tempdir().unwrap();
        let Some(mut hostile) = HostileFile::mount(directory.path().join("file")) else {
            eprintln!("skipped: FUSE cannot be mounted here");
            return;
        };
        let (tx, rx) = channel::<u32>().unwrap();
        let path = hostile.path.clone();
        let receiver = forked(|| {
            tx.send_with_fds(1, &[File::open(path).unwrap().as_fd()])
                .unwrap();
            assert!(matches!(rx.recv(), Err(Error::UnexpectedFds { count: 1 })));
        });
        // Two closes: the sender's own, and the receiver's.
        for _ in 0..2 {
            let number = hostile.answer_until(FLUSH);
            assert!(!ends_within(Duration::from_millis(50), receiver.pid));
            hostile.answer(number, 0, &[]);
        }
        receiver.join();
    });
}

/// Receives into memory that nobody provides, in a process of its own: the kernel waits for it, and holds the
/// socket's lock. `None`: this may not be done here.
fn stuck_in_a_receive(socket: &(impl AsFd + AsRawFd)) -> Option<Forked> {
    const PAGE: usize = 4096;
    let (tell, told) = channel::<Option<Fd>>().unwrap();
    let stuck = forked(|| {
        // SAFETY: makes a descriptor.
        #[allow(unsafe_code, reason = "nix has no userfaultfd")]
        let number = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        let Ok(number @ 0..) = i32::try_from(number) else {
            return tell.send(None).unwrap();
        };
        // SAFETY: the kernel has just made it for this process.
        #[allow(unsafe_code, reason = "as above")]
        let faults = unsafe { OwnedFd::from_raw_fd(number) };
        // UFFDIO_API with version 0xaa, and UFFDIO_REGISTER of a page for what is missing in it.
        let mut api = [0xaa_u64, 0, 0];
        // SAFETY: fresh memory, wherever the kernel likes.
        #[allow(unsafe_code, reason = "memory that is not there takes a mapping")]
        let page = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                PAGE,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::PRIVATE,
            )
        }
        .unwrap();
        let mut register = [page as u64, PAGE as u64, 1, 0];
        let requests: [(u64, *mut c_void); 2] = [
            (0xc018_aa3f, api.as_mut_ptr().cast()),
            (0xc020_aa00, register.as_mut_ptr().cast()),
        ];
        for (request, argument) in requests {
            // SAFETY: the arrays are as large as the structures that the requests take.
            #[allow(unsafe_code, reason = "as above")]
            let done = unsafe { libc::ioctl(faults.as_raw_fd(), request as _, argument) };
            assert_eq!(done, 0);
        }
        tell.send(Some(Fd(faults))).unwrap();
        // SAFETY: the page is this process's.
        #[allow(unsafe_code, reason = "as above")]
        unsafe {
            libc::recv(socket.as_raw_fd(), page, PAGE, 0);
        }
    });
    match told.recv().unwrap() {
        None => {
            stuck.join();
            None
        }
        Some(Fd(faults)) => {
            assert!(becomes_ready(&faults, PollFlags::POLLIN, LONG)); // it is in the kernel's hands
            std::mem::forget(faults); // once it is closed, memory comes by itself
            Some(stuck)
        }
    }
}

#[test]
fn a_receiver_that_holds_its_sockets_lock_stops_those_who_share_it_and_no_sender() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        tx.send(1).unwrap();
        let Some(stuck) = stuck_in_a_receive(&rx.as_fd()) else {
            eprintln!("skipped: userfaultfd is not permitted here");
            return;
        };
        // A hostile receiver cannot make a sender wait, other than by not receiving.
        let mut sent = 0;
        while tx.try_send(2).is_ok() {
            sent += 1;
        }
        assert!(sent > 200);
        assert!(matches!(
            tx.send_timeout(2, Duration::from_millis(1)),
            Err(Error::TimedOut { .. })
        ));
        // Who shares the receiving end with it waits in the kernel, even to try.
        let shares = forked(|| assert_eq!(rx.try_recv().unwrap(), 2));
        until_in_state("D", shares.pid);
        stuck.kill();
        shares.join();
        assert_eq!(rx.recv().unwrap(), 2);
    });
}
