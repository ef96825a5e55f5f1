//! The price of a small message: wormhole beside the same written by hand, and beside `ipc-channel`.
//!
//! `cargo bench --bench pair` takes less than a minute. All ways take turns, round by round, so that a machine that
//! slows down slows all of them; what it prints are medians, and ratios of medians.

#![allow(
    unsafe_code,
    reason = "the way by hand is system calls, and the other process is a fork"
)]
#![allow(missing_docs, reason = "a program")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};
use std::{env, mem, process};

use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe};
use wormhole::{Receiver, Sender};

type Message = (u32, String, Vec<i32>);

const ROUNDS: usize = 600;
const MESSAGES: usize = 500;

/// The floor: serde_json, `send`, and `recvmsg` with room for descriptors, or else `recv`, which has none.
struct ByHand {
    tx: OwnedFd,
    rx: OwnedFd,
    with_room: bool,
    packet: Vec<u8>,
    room: Vec<u8>,
}

impl ByHand {
    fn new(with_room: bool) -> Self {
        let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
        let (tx, rx) = socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let (packet, room) = (Vec::new(), vec![0; 256 * 1024]);
        ByHand {
            tx,
            rx,
            with_room,
            packet,
            room,
        }
    }

    fn send(&mut self, message: &Message) {
        self.packet.clear();
        self.packet.extend_from_slice(&[0; 8]);
        serde_json::to_writer(&mut self.packet, message).unwrap();
        let len = (self.packet.len() - 8) as u64;
        self.packet[..8].copy_from_slice(&len.to_le_bytes());
        let (bytes, len) = (self.packet.as_ptr().cast(), self.packet.len());
        // SAFETY: `len` bytes lie at `bytes`.
        let sent = unsafe { libc::send(self.tx.as_raw_fd(), bytes, len, libc::MSG_NOSIGNAL) };
        assert_eq!(sent, isize::try_from(len).unwrap());
    }

    fn recv(&mut self) -> Message {
        let (bytes, len) = (self.room.as_mut_ptr().cast(), self.room.len());
        let received = if self.with_room {
            let mut control = mem::MaybeUninit::<[u64; 132]>::uninit();
            let mut part = libc::iovec {
                iov_base: bytes,
                iov_len: len,
            };
            // SAFETY: zeros are a valid header, and describe nothing.
            let mut header: libc::msghdr = unsafe { mem::zeroed() };
            header.msg_iov = &raw mut part;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&control) as _;
            let flags = libc::MSG_CMSG_CLOEXEC;
            // SAFETY: the header describes `room` and `control`.
            let received = unsafe { libc::recvmsg(self.rx.as_raw_fd(), &raw mut header, flags) };
            assert_eq!(header.msg_controllen, 0);
            received
        } else {
            // SAFETY: there is room for `len` bytes.
            unsafe { libc::recv(self.rx.as_raw_fd(), bytes, len, 0) }
        };
        let packet = &self.room[..usize::try_from(received).unwrap()];
        let (len, text) = packet.split_first_chunk().unwrap();
        assert_eq!(u64::from_le_bytes(*len), text.len() as u64);
        serde_json::from_slice(text).unwrap()
    }
}

/// One way of sending and receiving, with both ends.
enum Way {
    Wormhole(Sender<Message>, Receiver<Message>),
    ByHand(ByHand),
    IpcChannel(IpcSender<Message>, IpcReceiver<Message>),
}

impl Way {
    fn all() -> Vec<(&'static str, Way)> {
        let (tx, rx) = wormhole::channel().unwrap();
        let (ipc_tx, ipc_rx) = ipc::channel().unwrap();
        vec![
            ("wormhole", Way::Wormhole(tx, rx)),
            ("by hand, recvmsg", Way::ByHand(ByHand::new(true))),
            ("by hand, recv", Way::ByHand(ByHand::new(false))),
            ("ipc-channel", Way::IpcChannel(ipc_tx, ipc_rx)),
        ]
    }

    fn send(&mut self, message: &Message) {
        match self {
            Way::Wormhole(tx, _) => tx.by_ref().send(message).unwrap(),
            Way::ByHand(way) => way.send(message),
            // It sends what it is given, so this is a copy more: of 26 bytes, in two allocations.
            Way::IpcChannel(tx, _) => tx.send(message.clone()).unwrap(),
        }
    }

    fn recv(&mut self) -> Message {
        match self {
            Way::Wormhole(_, rx) => rx.recv().unwrap(),
            Way::ByHand(way) => way.recv(),
            Way::IpcChannel(_, rx) => rx.recv().unwrap(),
        }
    }
}

/// Runs `round` for each way in turn, and gives the median time of a message in ns.
fn medians(ways: usize, mut round: impl FnMut(usize)) -> Vec<f64> {
    let mut times = vec![Vec::with_capacity(ROUNDS); ways];
    for number in 0..ROUNDS {
        for turn in 0..ways {
            let way = (number + turn) % ways; // none always comes after the same one
            let start = Instant::now();
            round(way);
            times[way].push(start.elapsed());
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e9 / MESSAGES as f64
    };
    times.iter_mut().map(median).collect()
}

fn report(title: &str, names: &[&str], medians: &[f64]) {
    println!("\n{title}");
    for (name, median) in names.iter().zip(medians) {
        let ratio = medians[0] / median;
        println!("  {name:18} {median:6.0} ns a message, wormhole takes {ratio:.3} of that");
    }
}

/// Pins the calling process to one of the processors that it may use.
fn pin(place: usize) {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let processors: Vec<usize> = (0..CpuSet::count())
        .filter(|&cpu| allowed.is_set(cpu).unwrap())
        .collect();
    let mut one = CpuSet::new();
    one.set(processors[place % processors.len()]).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
}

fn main() {
    // `cargo bench` passes `--bench`; `cargo test --benches` does not.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }
    let message: Message = (1776, "hello world!".to_owned(), vec![5, 4, 3, 2, 1]);
    let mut ways = Way::all();
    let names: Vec<&str> = ways.iter().map(|(name, _)| *name).collect();

    // The children first: each receives one way's messages, and tells when it has had a round of them.
    let two_processes = Way::all();
    let mut children = Vec::new();
    for (_, mut way) in two_processes {
        let (told, tell) = pipe().unwrap();
        let (mut told, mut tell) = (File::from(told), File::from(tell));
        // SAFETY: this process has one thread.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                pin(1);
                loop {
                    for _ in 0..MESSAGES {
                        let message = way.recv();
                        if message.0 == 0 {
                            process::exit(0);
                        }
                    }
                    tell.write_all(&[1]).unwrap();
                }
            }
            ForkResult::Parent { child } => children.push((child, way, {
                drop(tell);
                move || told.read_exact(&mut [0]).unwrap()
            })),
        }
    }
    pin(0);

    let there_and_back = medians(ways.len(), |way| {
        for _ in 0..MESSAGES {
            ways[way].1.send(&message);
            assert_eq!(ways[way].1.recv().0, message.0);
        }
    });
    report("There and back, in one thread", &names, &there_and_back);

    let one_way = medians(children.len(), |way| {
        let (_, way, wait) = &mut children[way];
        for _ in 0..MESSAGES {
            way.send(&message);
        }
        wait();
    });
    report(
        "One way, between two processes on two processors",
        &names,
        &one_way,
    );

    for (child, way, _) in &mut children {
        way.send(&(0, String::new(), Vec::new()));
        waitpid(*child, None).unwrap();
    }
}
