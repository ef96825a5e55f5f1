//! The ten guarantees, by number. Here those that speak of processes, each across real ones.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigHandler, Signal, kill};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::getpid;
use serde::{Deserialize, Serialize};
use wormhole::{Error, Receiver, Sender, channel};

use crate::support::{Random, forked, in_own_process, interruptible, open_fds, until_asleep};

mod garbage;
mod values;

/// What the crate was made for, word for word.
#[test]
#[allow(
    unsafe_code,
    unused_mut,
    clippy::undocumented_unsafe_blocks,
    reason = "the program compiles and runs as its user wrote it"
)]
fn the_first_program_works_as_it_stands() {
    in_own_process(|| {
        use nix::sys::wait;

        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct TestMessage {
            a: u32,
            b: String,
            c: Vec<u8>,
        }

        let (mut sender, mut receiver) =
            channel::<TestMessage>().expect("failed to create channel");
        let test_message = TestMessage {
            a: 1776,
            b: String::from("hello world!"),
            c: vec![5, 4, 3, 2, 1],
        };
        match unsafe { nix::unistd::fork().expect("failed fork") } {
            nix::unistd::ForkResult::Parent { child } => {
                let res = receiver
                    .recv()
                    .expect("failed to receive from child process");
                wait::waitpid(child, None).expect("failed wait for pid");
                assert_eq!(
                    test_message, res,
                    "received message doesn't match the send message"
                );
            }
            nix::unistd::ForkResult::Child => {
                sender
                    .send(test_message)
                    .expect("failed to send from the child process");
                std::process::exit(0);
            }
        };
    });
}

/// Text of which every message is a piece, so that a receiver can tell what it should have got.
fn quarry() -> String {
    let mut random = Random::new(1);
    let letters = b"abcdefghijklmnopqrstuvwxyz0123456789\"\\\n ";
    (0..2_000_000)
        .map(|_| char::from(letters[random.below(letters.len())]))
        .collect()
}

/// The payload of a message: none, short, long, or longer than a packet.
fn payload(quarry: &str, producer: u64, number: u64) -> &str {
    let mut random = Random::new(producer << 32 | number);
    let len = match random.below(2000) {
        0 => random.below(1_000_000),
        1..20 => random.below(30_000),
        20..500 => 0,
        _ => random.below(300),
    };
    let start = random.below(1_000_000);
    &quarry[start..start + len]
}

#[derive(Serialize, Deserialize)]
struct Numbered {
    producer: u64,
    number: u64,
    payload: String,
}

#[test]
fn g1_g2_each_message_reaches_exactly_one_receiver_whole_and_in_order() {
    const PRODUCERS: u64 = 8;
    const CONSUMERS: usize = 4;
    const MESSAGES: u64 = 80_000 / PRODUCERS;
    in_own_process(|| {
        let quarry = quarry();
        let (tx, rx) = channel::<Numbered>().unwrap();
        let (report, reports) = channel::<Vec<(u64, u64)>>().unwrap();
        let mut children = Vec::new();
        for producer in 0..PRODUCERS {
            children.push(forked(|| {
                for number in 0..MESSAGES {
                    let payload = payload(&quarry, producer, number).to_owned();
                    tx.send(Numbered {
                        producer,
                        number,
                        payload,
                    })
                    .unwrap();
                }
            }));
        }
        drop(tx);
        for _ in 0..CONSUMERS {
            children.push(forked(|| {
                let mut got = Vec::new();
                let mut last = HashMap::new();
                for message in &rx {
                    let Numbered {
                        producer,
                        number,
                        payload: text,
                    } = message.unwrap();
                    assert!(text == payload(&quarry, producer, number), "torn");
                    let before = last.insert(producer, number);
                    assert!(before.is_none_or(|before| before < number), "out of order");
                    got.push((producer, number));
                }
                report.send(got).unwrap();
            }));
        }
        drop((rx, report));
        let mut all: Vec<_> = reports.iter().flat_map(Result::unwrap).collect();
        children.into_iter().for_each(|child| child.join());
        all.sort_unstable();
        let expected = (0..PRODUCERS).flat_map(|p| (0..MESSAGES).map(move |n| (p, n)));
        assert!(all.into_iter().eq(expected), "lost or delivered twice");
    });
}

#[test]
fn g2_messages_of_several_senders_arrive_in_the_order_of_the_kernel() {
    in_own_process(|| {
        let (tx, rx) = channel::<(u32, String)>().unwrap();
        let (pass_a, turn_a) = channel::<u32>().unwrap();
        let (pass_b, turn_b) = channel::<u32>().unwrap();
        // Two senders take turns; each sends only after the other's send has returned.
        let player = |turn: &Receiver<u32>, pass: &Sender<u32>| {
            for number in turn.iter().map(Result::unwrap) {
                let len = if number % 10 == 0 { 300_000 } else { 10 };
                tx.send((number, "x".repeat(len))).unwrap();
                if number < 200 {
                    pass.send(number + 1).unwrap();
                } else {
                    std::process::exit(0);
                }
            }
        };
        let a = forked(|| player(&turn_a, &pass_b));
        let b = forked(|| player(&turn_b, &pass_a));
        pass_a.send(0).unwrap();
        for expected in 0..=200 {
            assert_eq!(rx.recv().unwrap().0, expected);
        }
        drop((turn_a, turn_b, pass_a, pass_b));
        // The one that sent message 200 has ended; the other still waits for its turn.
        a.join();
        b.kill();
    });
}

#[test]
fn g3_a_sent_message_outlives_its_sender() {
    in_own_process(|| {
        let (tx, rx) = channel::<String>().unwrap();
        let lens = [0, 10, 100_000, 1_000_000];
        for len in lens {
            let sender = forked(|| tx.send("x".repeat(len)).unwrap());
            sender.join();
            assert!(rx.recv().unwrap() == "x".repeat(len));
        }
        // Killed instead, in the moment in which `send` has returned.
        let (sent, wait_for_sent) = channel::<()>().unwrap();
        for len in lens {
            let sender = forked(|| {
                tx.send("y".repeat(len)).unwrap();
                sent.send(()).unwrap();
                loop {
                    nix::unistd::pause();
                }
            });
            wait_for_sent.recv().unwrap();
            sender.kill();
            assert!(rx.recv().unwrap() == "y".repeat(len));
        }
        drop(tx);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    });
}

#[test]
fn g4_recv_never_waits_in_the_middle_of_a_message_even_if_its_sender_is_killed() {
    in_own_process(|| {
        let before = open_fds();
        let (tx, rx) = channel::<(u64, String)>().unwrap();
        let text = "x".repeat(1_000_000);
        let mut random = Random::new(4);
        for _ in 0..40 {
            let sender = forked(|| {
                for number in 0.. {
                    tx.send((number, text.clone())).unwrap();
                }
            });
            let received = random.below(5) as u64;
            for expected in 0..received {
                assert_eq!(rx.recv().unwrap().0, expected);
            }
            sender.kill(); // most likely while it makes or sends the next message
            let rest: Vec<_> = rx.try_iter().map(Result::unwrap).collect();
            for (message, expected) in rest.iter().zip(received..) {
                assert_eq!(message.0, expected);
                assert!(message.1 == text);
            }
            tx.send((99, String::new())).unwrap();
            assert_eq!(rx.recv().unwrap().0, 99);
        }
        drop((tx, rx));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn g7_recv_says_disconnected_when_every_copy_in_every_process_is_gone() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        // Each holds a copy of `tx` until it is told to leave, and never sends.
        let holders: Vec<_> = (0..3)
            .map(|_| {
                let (leave, wait_to_leave) = channel::<()>().unwrap();
                (leave, forked(|| wait_to_leave.recv().unwrap()))
            })
            .collect();
        tx.send(1).unwrap();
        let clone = tx.clone();
        drop(tx);
        assert_eq!(rx.recv().unwrap(), 1);
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));
        drop(clone);
        for (leave, holder) in holders {
            assert!(matches!(rx.try_recv(), Err(Error::Empty)));
            leave.send(()).unwrap();
            holder.join();
        }
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        assert!(matches!(rx.try_recv(), Err(Error::Disconnected)));
        let late = rx.recv_timeout(Duration::from_secs(1));
        assert!(matches!(late, Err(Error::Disconnected)));
    });
}

#[test]
fn g7_send_says_disconnected_when_every_copy_in_every_process_is_gone() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let (leave, wait_to_leave) = channel::<()>().unwrap();
        let holder = forked(|| wait_to_leave.recv().unwrap());
        drop(rx);
        tx.send(1).unwrap();
        leave.send(()).unwrap();
        holder.join();
        assert!(matches!(tx.send(2), Err(Error::Disconnected)));
        assert!(matches!(tx.try_send(2), Err(Error::Disconnected)));
    });
}

#[test]
fn g7_a_waiting_receiver_is_woken_when_the_last_sender_is_killed() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let idle = || loop {
            nix::unistd::pause();
        };
        let children = [forked(idle), forked(idle)];
        drop(tx);
        let waiting = forked(|| {
            assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        });
        let waiting_with_deadline = forked(|| {
            let late = rx.recv_timeout(Duration::from_secs(3600));
            assert!(matches!(late, Err(Error::Disconnected)));
        });
        until_asleep(waiting.pid);
        until_asleep(waiting_with_deadline.pid);
        children.into_iter().for_each(|child| child.kill());
        waiting.join();
        waiting_with_deadline.join();
    });
}

#[test]
fn g7_a_waiting_sender_is_woken_when_the_last_receiver_is_killed() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        while tx.try_send(1).is_ok() {}
        let idle = || loop {
            nix::unistd::pause();
        };
        let receiver = forked(idle);
        drop(rx);
        let waiting = forked(|| {
            assert!(matches!(tx.send(2), Err(Error::Disconnected)));
        });
        let waiting_with_deadline = forked(|| {
            let late = tx.send_timeout(2, Duration::from_secs(3600));
            assert!(matches!(late, Err(Error::Disconnected)));
        });
        until_asleep(waiting.pid);
        until_asleep(waiting_with_deadline.pid);
        receiver.kill();
        waiting.join();
        waiting_with_deadline.join();
    });
}

#[test]
fn g9_signals_are_not_noticed() {
    in_own_process(|| {
        interruptible();
        let (tx, rx) = channel::<u32>().unwrap();
        let receiver = forked(|| assert_eq!(rx.recv().unwrap(), 5));
        for _ in 0..1000 {
            until_asleep(receiver.pid);
            kill(receiver.pid, Signal::SIGUSR1).unwrap();
        }
        tx.send(5).unwrap();
        receiver.join();

        while tx.try_send(0).is_ok() {}
        let sender = forked(|| tx.send(6).unwrap());
        for _ in 0..1000 {
            until_asleep(sender.pid);
            kill(sender.pid, Signal::SIGUSR1).unwrap();
        }
        let last = rx.iter().map(Result::unwrap).find(|&number| number != 0);
        assert_eq!(last, Some(6));
        sender.join();
    });
}

#[test]
fn g4_a_timeout_is_a_deadline_whatever_interrupts() {
    in_own_process(|| {
        interruptible();
        let timeout = Duration::from_millis(100);
        let (tx, rx) = channel::<u32>().unwrap();
        let waits = || {
            let start = Instant::now();
            assert!(matches!(
                rx.recv_timeout(timeout),
                Err(Error::TimedOut { .. })
            ));
            assert!(start.elapsed() >= timeout);
            while tx.try_send(0).is_ok() {}
            let start = Instant::now();
            assert!(matches!(
                tx.send_timeout(1, timeout),
                Err(Error::TimedOut { .. })
            ));
            assert!(start.elapsed() >= timeout);
        };
        // Interrupted all the time, so a timeout that starts anew with each signal would never end.
        let parent = getpid();
        let pest = forked(move || while kill(parent, Signal::SIGUSR1).is_ok() {});
        waits();
        pest.kill();
    });
}

#[test]
fn g4_a_timeout_is_a_deadline_whoever_takes_the_messages() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let thief = forked(|| while rx.recv().is_ok() {});
        let source = forked(|| while tx.send(1).is_ok() {});
        // Woken by nearly every message, and nearly always too late for it.
        for _ in 0..20 {
            match rx.recv_timeout(Duration::from_millis(20)) {
                Ok(1) | Err(Error::TimedOut { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        source.kill();
        thief.kill();
    });
}

#[test]
fn g9_no_sigpipe() {
    in_own_process(|| {
        // SAFETY: the default action is no handler.
        #[allow(unsafe_code, reason = "no safe way to change the action of a signal")]
        unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigDfl) }.unwrap();
        let (tx, rx) = channel::<String>().unwrap();
        drop(rx);
        for len in [1, 1_000_000] {
            assert!(matches!(tx.send("x".repeat(len)), Err(Error::Disconnected)));
            let beside = tx.send_with_fds("x".repeat(len), &[tx.as_fd()]);
            assert!(matches!(beside, Err(Error::Disconnected)));
        }
    });
}

#[test]
fn g9_no_flag_is_ever_set_on_a_shared_socket() {
    in_own_process(|| {
        let (tx, rx) = channel::<String>().unwrap();
        let flags = || {
            [tx.as_fd(), rx.as_fd()].map(|fd| {
                (
                    fcntl(fd, FcntlArg::F_GETFL).unwrap(),
                    getsockopt(&fd, sockopt::ReceiveTimeout).unwrap(),
                    getsockopt(&fd, sockopt::SendTimeout).unwrap(),
                )
            })
        };
        let before = flags();
        // In the middle of every kind of wait, and after every verb.
        let timeout = Duration::from_secs(3600);
        let receives: [&dyn Fn(); 2] = [&|| drop(rx.recv()), &|| drop(rx.recv_timeout(timeout))];
        for wait in receives {
            let waiting = forked(wait);
            until_asleep(waiting.pid);
            assert_eq!(flags(), before);
            waiting.kill();
        }
        rx.try_recv().unwrap_err();
        while tx.try_send(String::new()).is_ok() {}
        let sends: [&dyn Fn(); 2] = [&|| drop(tx.send(String::new())), &|| {
            drop(tx.send_timeout(String::new(), timeout))
        }];
        for wait in sends {
            let waiting = forked(wait);
            until_asleep(waiting.pid);
            assert_eq!(flags(), before);
            waiting.kill();
        }
        rx.try_iter().for_each(drop);
        tx.send("x".repeat(1_000_000)).unwrap();
        rx.recv().unwrap();
        assert_eq!(flags(), before);
        assert_eq!(before[0].0 & OFlag::O_NONBLOCK.bits(), 0);
    });
}
