//! Everything that waits, while a signal comes each millisecond.
//!
//! Its handler is installed without `SA_RESTART`, so whatever waits is interrupted. Nobody may notice: no call fails
//! for it, and none waits longer than it should, let alone for ever (`in_own_process` has a deadline).

use std::fs::File;
use std::hint::spin_loop;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use serde::{Deserialize, Serialize};
use wormhole::{
    Blob, ChildEnd, Error, Listener, Options, Receiver, ReceiverSet, Select, Sender, channel,
    select, spawn, spawn_command,
};

use crate::support::{Forked, forked, full_listener, in_own_process, pipe};

/// How many signals this process has handled.
static SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

fn signals() -> usize {
    SIGNALS.load(Ordering::Relaxed)
}

/// From now on this process gets a signal each millisecond. Forked children do not inherit that.
fn disturbed() {
    let handler = SigHandler::Handler(count);
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: all that the handler does is to count.
    #[allow(unsafe_code, reason = "no safe way to install a handler")]
    unsafe { sigaction(Signal::SIGALRM, &action) }.unwrap();
    let millisecond = libc::timeval {
        tv_sec: 0,
        tv_usec: 1000,
    };
    let timer = libc::itimerval {
        it_interval: millisecond,
        it_value: millisecond,
    };
    // SAFETY: the pointer is to a timer, the other one may be null.
    #[allow(unsafe_code, reason = "no safe way to set a timer")]
    let status =
        unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
    assert_eq!(status, 0);
}

/// Forks a child that gets signals as well.
fn disturbed_child(body: impl FnOnce()) -> Forked {
    forked(|| {
        disturbed();
        body();
    })
}

/// Repeats `body` in a process of its own until it has been disturbed a lot.
fn whatever_comes(mut body: impl FnMut()) {
    disturbed();
    // That signals interrupt what waits is not taken for granted.
    let (reader, _writer) = pipe();
    let mut byte = [0];
    let interrupted = nix::unistd::read(&reader, &mut byte);
    assert_eq!(interrupted, Err(Errno::EINTR));
    let before = signals();
    while signals() < before + 300 {
        body();
    }
}

/// Works for a while.
fn dawdle() {
    let before = signals();
    while signals() == before {
        spin_loop();
    }
}

#[test]
fn messages_arrive_in_order() {
    in_own_process(|| {
        let (ask, asked) = channel::<u32>().unwrap();
        let (answer, answers) = Options::new()
            .spin(Duration::ZERO)
            .channel::<u32>()
            .unwrap();
        let mut ours = Some((ask, answers));
        let child = disturbed_child(|| {
            ours = None;
            asked
                .iter()
                .for_each(|number| answer.send(number.unwrap()).unwrap());
        });
        drop((asked, answer));
        let (ask, answers) = ours.unwrap();
        let mut numbers = 0..;
        whatever_comes(|| {
            let number = numbers.next().unwrap();
            ask.send(number).unwrap();
            assert_eq!(answers.recv().unwrap(), number);
        });
        drop(ask);
        assert!(matches!(answers.recv(), Err(Error::Disconnected)));
        child.join();
    });
}

#[test]
fn a_sender_waits_for_a_slow_receiver() {
    in_own_process(|| {
        let (tx, rx) = Options::new()
            .buffer(10_000)
            .channel::<(u32, String)>()
            .unwrap();
        let mut ours = Some(tx);
        let child = disturbed_child(|| {
            ours = None;
            for (expected, message) in rx.iter().enumerate() {
                let (number, text) = message.unwrap();
                assert_eq!((number as usize, text.len()), (expected, 5000));
                dawdle();
            }
        });
        drop(rx);
        let tx = ours.unwrap();
        let text = "x".repeat(5000);
        let mut numbers = 0..;
        whatever_comes(|| tx.send((numbers.next().unwrap(), text.clone())).unwrap());
        drop(tx);
        child.join();
    });
}

#[test]
fn a_receiver_waits_for_a_slow_sender() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let mut ours = Some(rx);
        let child = disturbed_child(|| {
            ours = None;
            let mut numbers = 0..;
            while tx.send(numbers.next().unwrap()).is_ok() {
                (0..5).for_each(|_| dawdle());
            }
        });
        drop(tx);
        let rx = ours.unwrap();
        let mut numbers = 0..;
        whatever_comes(|| assert_eq!(rx.recv().unwrap(), numbers.next().unwrap()));
        drop(rx);
        child.join();
    });
}

#[test]
fn every_deadline_is_kept() {
    in_own_process(|| every_wait_ends(|| {}));
}

#[test]
fn every_deadline_is_kept_whatever_interrupts() {
    in_own_process(|| {
        every_wait_ends(disturbed);
        assert!(signals() > 0);
    });
}

/// All that takes a timeout says so, in far less than a minute.
fn every_wait_ends(disturb: impl FnOnce()) {
    let timeout = Duration::from_millis(50);
    let name = format!("\0wormhole signals {}", std::process::id());
    let listener = Listener::<u8>::bind(&name).unwrap();
    let (tx, rx) = channel::<u8>().unwrap();
    while tx.try_send(0).is_ok() {}
    let (_alive, empty) = channel::<u8>().unwrap();
    let mut set = ReceiverSet::new().unwrap();
    set.add(empty.clone()).unwrap();
    let mut child = spawn(empty.clone(), |wait: Receiver<u8>| drop(wait.recv())).unwrap();
    let full = format!("\0wormhole signals, full {}", std::process::id());
    let _full = full_listener(&full);

    let waits: &mut [&mut dyn FnMut() -> Result<(), Error>] = &mut [
        &mut || empty.recv_timeout(timeout).map(drop),
        &mut || tx.send_timeout(1, timeout),
        &mut || set.recv_timeout(timeout).map(drop),
        &mut || listener.accept_timeout(timeout).map(drop),
        &mut || child.join_timeout(timeout),
        &mut || Sender::<u8>::connect_timeout(&full, timeout).map(drop),
        &mut || {
            let mut select = Select::new();
            select.recv(&empty);
            select.send(&tx, 1);
            select.select_timeout(timeout).map(drop)
        },
    ];
    disturb();
    for wait in waits {
        let start = Instant::now();
        assert!(matches!(wait(), Err(Error::TimedOut { .. })));
        assert!(start.elapsed() >= timeout);
        assert!(start.elapsed() < Duration::from_secs(60));
    }
    select! {
        recv(empty) -> _ => unreachable!(),
        default(timeout) => {}
    }
    child.kill().unwrap();
    let end = child.join().unwrap_err();
    assert!(matches!(
        end,
        Error::Child {
            end: ChildEnd::Killed { signal: 9, .. },
            ..
        }
    ));
    assert_eq!(rx.recv().unwrap(), 0);
}

#[test]
fn a_client_waits_for_a_place_in_the_queue() {
    in_own_process(|| {
        let name = format!("\0wormhole signals {}", std::process::id());
        let (full, first) = full_listener(&name);
        first.send(0).unwrap();
        drop(first);
        let clients = disturbed_child(|| {
            for number in 1..=100 {
                Sender::connect(&name).unwrap().send(number).unwrap();
            }
        });
        disturbed();
        for number in 0..=100 {
            dawdle();
            let flags = nix::sys::socket::SockFlag::SOCK_CLOEXEC;
            let accepted = loop {
                match nix::sys::socket::accept4(full.as_raw_fd(), flags) {
                    Err(Errno::EINTR) => {}
                    accepted => break accepted.unwrap(),
                }
            };
            // SAFETY: it has just been opened, and nobody else knows it.
            #[allow(unsafe_code, reason = "nix gives a number")]
            let accepted = unsafe { std::os::fd::FromRawFd::from_raw_fd(accepted) };
            let accepted: std::os::fd::OwnedFd = accepted;
            let rx = Receiver::<u8>::try_from(accepted).unwrap();
            assert_eq!(rx.recv().unwrap(), number);
            assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        }
        clients.join();
    });
}

#[derive(Serialize, Deserialize)]
struct Field(#[serde(with = "wormhole::fd")] File);

#[test]
fn long_messages_and_descriptors_come_whole() {
    in_own_process(|| {
        let (ask, asked) = channel::<(String, Field)>().unwrap();
        let (answer, answers) = channel::<(String, Field)>().unwrap();
        let mut ours = Some((ask, answers));
        let child = disturbed_child(|| {
            ours = None;
            asked
                .iter()
                .for_each(|message| answer.send(message.unwrap()).unwrap());
        });
        drop((asked, answer));
        let (ask, answers) = ours.unwrap();
        let mut lengths = [10, 230_000, 300_000, 5_000_000, 60_000_000]
            .into_iter()
            .cycle();
        whatever_comes(|| {
            let text = "x".repeat(lengths.next().unwrap());
            let null = Field(File::open("/dev/null").unwrap());
            ask.send((text.clone(), null)).unwrap();
            let (received, Field(mut file)) = answers.recv().unwrap();
            assert!(received == text);
            assert_eq!(file.read(&mut [0]).unwrap(), 0);
        });
        drop(ask);
        child.join();
    });
}

#[test]
fn select_and_sets_wait() {
    in_own_process(|| {
        let (tx1, rx1) = channel::<u32>().unwrap();
        let (tx2, rx2) = channel::<u32>().unwrap();
        let (tx3, rx3) = channel::<u32>().unwrap();
        let mut ours = Some((rx1, rx2, rx3));
        let child = disturbed_child(|| {
            ours = None;
            let mut senders = [tx1.clone(), tx2.clone(), tx3.clone()].into_iter().cycle();
            let mut numbers = 0..;
            while senders
                .next()
                .unwrap()
                .send(numbers.next().unwrap())
                .is_ok()
            {
                dawdle();
            }
        });
        drop((tx1, tx2, tx3));
        let (rx1, rx2, rx3) = ours.unwrap();
        let mut set = ReceiverSet::new().unwrap();
        let key = set.add(rx3.clone()).unwrap();
        let (full, _rx) = channel::<u32>().unwrap();
        while full.try_send(0).is_ok() {}
        let (mut next1, mut next2, mut next3) = (0, 1, 2);
        let is_next = |next: &mut u32, message: Result<u32, Error>| {
            assert_eq!(message.unwrap(), *next);
            *next += 3;
        };
        whatever_comes(|| {
            select! {
                recv(rx1) -> message => is_next(&mut next1, message),
                recv(rx2) -> message => is_next(&mut next2, message),
                send(full, 1) -> _ => unreachable!(),
            }
            let (from, message) = set.recv().unwrap();
            assert_eq!(from, key);
            is_next(&mut next3, message);
        });
        drop((set, rx1, rx2, rx3));
        child.join();
    });
}

#[test]
fn children_are_spawned_and_joined() {
    in_own_process(|| {
        whatever_comes(|| {
            let (tx, rx) = channel::<u32>().unwrap();
            let _stray = tx.clone();
            let child = spawn(tx, |tx: Sender<u32>| {
                disturbed();
                tx.send(5).unwrap();
                dawdle();
                "x".repeat(300_000)
            })
            .unwrap();
            assert_eq!(rx.recv().unwrap(), 5);
            assert_eq!(child.join().unwrap().len(), 300_000);
            let child = spawn((), |()| std::process::exit(3)).unwrap();
            let joined: Result<u8, Error> = child.join();
            let end = joined.unwrap_err();
            assert!(matches!(
                end,
                Error::Child {
                    end: ChildEnd::Exited { code: 3 },
                    ..
                }
            ));
        });
    });
}

#[test]
fn programs_are_started() {
    in_own_process(|| {
        whatever_comes(|| {
            let (tx, rx) = channel::<u32>().unwrap();
            let mut program =
                spawn_command(Command::new("true"), ("x".repeat(300_000), tx)).unwrap();
            assert!(matches!(rx.recv(), Err(Error::Disconnected)));
            assert!(program.wait().unwrap().success());
        });
    });
}

#[test]
fn clients_connect_and_are_accepted() {
    in_own_process(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        drop(UnixDatagram::bind(&path).unwrap()); // stale
        disturbed();
        let listener = Listener::<u32>::bind(&path).unwrap();
        let clients: Vec<_> = (0..4)
            .map(|_| {
                disturbed_child(|| {
                    for number in 0..100 {
                        let tx = Sender::connect(&path).unwrap();
                        dawdle();
                        tx.send(number).unwrap();
                    }
                })
            })
            .collect();
        let mut sum = 0;
        for client in listener.incoming().take(400) {
            let (rx, _) = client.unwrap();
            sum += rx.recv().unwrap();
            assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        }
        assert_eq!(sum, 4 * 4950);
        assert!(signals() > 0);
        clients.into_iter().for_each(Forked::join);
        drop(listener);
        assert!(!path.exists());
    });
}

#[test]
fn blobs_are_made_and_mapped() {
    in_own_process(|| {
        let (ask, asked) = channel::<Blob>().unwrap();
        let (answer, answers) = channel::<Blob>().unwrap();
        let mut ours = Some((ask, answers));
        let child = disturbed_child(|| {
            ours = None;
            asked
                .iter()
                .for_each(|blob| answer.send(blob.unwrap()).unwrap());
        });
        drop((asked, answer));
        let (ask, answers) = ours.unwrap();
        let bytes = vec![7; 50_000_000];
        whatever_comes(|| {
            ask.send(Blob::from_bytes(&bytes).unwrap()).unwrap();
            ask.send(Blob::build(bytes.len(), |empty| empty.copy_from_slice(&bytes)).unwrap())
                .unwrap();
            for _ in 0..2 {
                assert!(*answers.recv().unwrap() == bytes);
            }
        });
        drop(ask);
        child.join();
    });
}
