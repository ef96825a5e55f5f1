//! Waiting for the first of several: `select!`, `Select` and `ReceiverSet`.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wormhole::{
    Child, Error, Listener, Options, Receiver, ReceiverSet, Select, Sender, channel, select, spawn,
};

use crate::support::{Random, forked, in_own_process, open_fds, pipe, until_asleep};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn the_arm_of_what_happens_runs() {
    in_own_process(|| {
        let (tx1, rx1) = channel::<u32>().unwrap();
        let (tx2, rx2) = channel::<String>().unwrap();
        tx1.send(1).unwrap();
        let got = select! {
            recv(rx1) -> number => number.unwrap().to_string(),
            recv(rx2) -> text => text.unwrap(),
        };
        assert_eq!(got, "1");
        tx2.send("two".to_owned()).unwrap();
        let got = select! {
            recv(rx1) -> number => number.unwrap().to_string(),
            recv(rx2) -> text => text.unwrap(),
        };
        assert_eq!(got, "two");
        let sent = select! {
            recv(rx1) -> _ => unreachable!(),
            send(tx2, "three".to_owned()) -> sent => sent,
        };
        sent.unwrap();
        assert_eq!(rx2.recv().unwrap(), "three");
        let (reader, mut writer) = pipe();
        writer.write_all(b"x").unwrap();
        select! {
            recv(rx1) -> _ => unreachable!(),
            ready(reader) => {}
        }
    });
}

#[test]
fn arms_are_written_in_many_ways() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let by_reference = &rx;
        let in_a_struct = (tx.clone(), rx.clone());
        // Blocks with and without commas, expressions, trailing commas in heads, patterns.
        for _ in 0..50 {
            select! {
                recv(by_reference) -> message => { message.unwrap(); }
                recv(in_a_struct.1,) -> _message => {},
                send(&in_a_struct.0, 1,) -> Ok(()) | Err(_) => (),
                send(tx, 2) -> result => if result.is_err() { unreachable!() },
                default() => {}
            }
        }
        select! { default => {} }
        select! { default(Duration::ZERO) => {}, }
        let value = select! { default => 5 };
        let from_blocks = select! {
            recv({ tx.send(3).unwrap(); &rx }) -> message => message.is_ok(),
        };
        assert!(from_blocks);
        assert_eq!(value, 5);
        let orphan = || {
            let (_, rx) = channel::<u8>().unwrap();
            rx
        };
        let value = select! { recv(orphan()) -> message => message.is_err() };
        assert!(value); // nobody could send
    });
}

#[test]
fn break_continue_return_and_question_mark_work_in_arms() {
    in_own_process(|| {
        fn work(rx: &Receiver<u32>, tx: &Sender<u32>) -> Result<u32, Error> {
            let mut seen = 0;
            let last = 'outer: loop {
                loop {
                    select! {
                        recv(rx) -> number => match number? {
                            1 => { seen += 1; continue }
                            2 => continue 'outer,
                            3 => break,
                            4 => break 'outer 40,
                            5 => return Ok(50),
                            other => { tx.send(other)?; }
                        },
                        default => return Ok(seen),
                    }
                }
                seen += 100;
            };
            Ok(last + seen)
        }
        let (tx, rx) = channel::<u32>().unwrap();
        let (out, outs) = channel::<u32>().unwrap();
        let run = |numbers: &[u32]| {
            numbers
                .iter()
                .for_each(|number| tx.by_ref().send(number).unwrap());
            work(&rx, &out)
        };
        assert_eq!(run(&[1, 1]).unwrap(), 2);
        assert_eq!(run(&[1, 2, 1, 3, 1]).unwrap(), 103);
        assert_eq!(run(&[1, 4]).unwrap(), 41);
        assert_eq!(run(&[5]).unwrap(), 50);
        assert_eq!(run(&[9]).unwrap(), 0);
        assert_eq!(outs.recv().unwrap(), 9);
        drop(outs);
        assert!(matches!(run(&[9]), Err(Error::Disconnected)));
        drop(tx);
        assert!(matches!(work(&rx, &out), Err(Error::Disconnected)));
    });
}

#[test]
fn arms_may_move_and_drop_the_ends_they_waited_for() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        tx.send(1).unwrap();
        let owned = select! {
            recv(rx) -> message => (message.unwrap(), rx),
            default => unreachable!(),
        };
        assert_eq!(owned.0, 1);
        select! {
            send(tx, 2) -> result => { result.unwrap(); drop(tx) }
        }
        assert_eq!(owned.1.recv().unwrap(), 2);
        assert!(matches!(owned.1.recv(), Err(Error::Disconnected)));
    });
}

#[test]
fn default_runs_only_if_nothing_else_can() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let poll = || {
            select! {
                recv(rx) -> message => Some(message),
                default => None,
            }
        };
        assert!(poll().is_none());
        tx.send(1).unwrap();
        assert_eq!(poll().unwrap().unwrap(), 1);
        drop(tx);
        for _ in 0..3 {
            assert!(matches!(poll(), Some(Err(Error::Disconnected))));
        }
    });
}

#[test]
fn a_full_channel_is_not_sent_to_and_a_closed_one_is_an_error() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        while tx.try_send(0).is_ok() {}
        let attempt = || {
            select! {
                send(tx, 1) -> result => Some(result),
                default(Duration::from_millis(5)) => None,
            }
        };
        assert!(attempt().is_none());
        rx.recv().unwrap();
        rx.recv().unwrap();
        // Room, but far from polling as writable.
        assert!(matches!(attempt(), Some(Ok(()))));
        drop(rx);
        assert!(matches!(attempt(), Some(Err(Error::Disconnected))));
    });
}

#[test]
fn a_message_that_is_borrowed_stays_and_one_that_is_given_away_is_gone() {
    in_own_process(|| {
        let (tx, rx) = channel::<Sender<u32>>().unwrap();
        let (ready, is_ready) = channel::<()>().unwrap();
        let (inner, inner_rx) = channel::<u32>().unwrap();
        let before = open_fds();
        while tx.by_ref().try_send(&inner).is_ok() {}
        ready.send(()).unwrap();
        select! {
            send(tx.by_ref(), &inner) -> _ => unreachable!("full"),
            recv(is_ready) -> message => message.unwrap(),
        }
        inner.send(1).unwrap();
        assert_eq!(inner_rx.recv().unwrap(), 1);
        ready.send(()).unwrap();
        select! {
            send(tx, inner) -> _ => unreachable!("full"),
            recv(is_ready) -> message => message.unwrap(),
        }
        drop(rx); // and with it the copies in the queue
        assert!(matches!(inner_rx.recv(), Err(Error::Disconnected)));
        assert_eq!(open_fds().len(), before.len() - 2);
    });
}

#[test]
fn a_message_that_cannot_be_encoded_is_the_result_of_its_arm() {
    in_own_process(|| {
        let (tx, rx) = channel::<HashMap<(u8, u8), u8>>().unwrap();
        let result = select! {
            send(tx, HashMap::from([((1, 2), 3)])) -> result => result,
        };
        assert!(matches!(result, Err(Error::Encode { .. })));
        let (small, _rx) = Options::new()
            .max_message_len(3)
            .channel::<String>()
            .unwrap();
        let result = select! {
            recv(rx) -> _ => unreachable!(),
            send(small, "long".to_owned()) -> result => result,
        };
        assert!(matches!(result, Err(Error::TooLarge { size: 6, limit: 3 })));
    });
}

#[test]
fn long_messages_are_sent_and_received() {
    in_own_process(|| {
        let (tx, rx) = channel::<String>().unwrap();
        let text = "x".repeat(1_000_000);
        for _ in 0..3 {
            let sent = select! { send(tx.by_ref(), &text) -> sent => sent };
            sent.unwrap();
            // Full by now: this attempt keeps its memfd for the next one.
            let sent = select! {
                send(tx.by_ref(), &text) -> sent => Some(sent),
                default(Duration::from_millis(5)) => None,
            };
            assert!(sent.is_none());
            let received = select! { recv(rx) -> received => received };
            assert!(received.unwrap() == text);
        }
    });
}

#[test]
fn none_that_is_ready_starves() {
    in_own_process(|| {
        const ROUNDS: u32 = 4000;
        let (tx1, rx1) = channel::<()>().unwrap();
        let (tx2, rx2) = channel::<()>().unwrap();
        let (tx3, rx3) = channel::<()>().unwrap();
        let (closed, closed_rx) = channel::<()>().unwrap();
        drop(closed);
        let (reader, mut writer) = pipe();
        writer.write_all(b"x").unwrap();
        let mut counts = [0; 5];
        for _ in 0..ROUNDS {
            let _ = (tx1.try_send(()), tx2.try_send(()));
            let chosen = select! {
                recv(rx1) -> _ => 0,
                recv(rx2) -> _ => 1,
                send(tx3, ()) -> _ => 2,
                recv(closed_rx) -> _ => 3,
                ready(reader) => 4,
            };
            counts[chosen] += 1;
            let _ = rx3.try_recv();
        }
        // Each is chosen 800 times on average, with a deviation of 25.
        assert!(
            counts.iter().all(|count| (600..1000).contains(count)),
            "{counts:?}"
        );
    });
}

#[test]
fn a_set_of_cases_known_at_run_time() {
    in_own_process(|| {
        let numbers: Vec<_> = (0..5).map(|_| channel::<u32>().unwrap()).collect();
        let (text, texts) = channel::<String>().unwrap();
        let (out, outs) = channel::<u8>().unwrap();
        while out.try_send(0).is_ok() {}
        let mut select = Select::new();
        for (index, (_, rx)) in numbers.iter().enumerate() {
            assert_eq!(select.recv(rx), index);
        }
        let text_case = select.recv(&texts);
        let send_case = select.send(&out, 1);
        assert_eq!((text_case, send_case), (5, 6));
        assert!(select.try_select().unwrap().is_none());
        let late = select.select_timeout(Duration::from_millis(5));
        assert!(matches!(late, Err(Error::TimedOut { .. })));
        let late = select.select_timeout(Duration::ZERO);
        assert!(matches!(late, Err(Error::TimedOut { .. })));

        for (index, number) in [(3, 13), (0, 10), (4, 14), (3, 23)] {
            numbers[index].0.send(number).unwrap();
            let selected = select.select_timeout(Duration::ZERO).unwrap();
            assert_eq!(selected.index(), index);
            assert_eq!(selected.recv(&numbers[index].1).unwrap(), number);
        }
        let file = pipe().0;
        text.send_with_fds("with a file".to_owned(), &[file.as_fd()])
            .unwrap();
        let selected = select.select().unwrap();
        let (message, fds) = selected.recv_with_fds(&texts).unwrap();
        assert_eq!((message.as_str(), fds.len()), ("with a file", 1));

        while outs.try_recv().is_ok() {}
        let selected = select.select().unwrap();
        assert_eq!(selected.index(), send_case);
        selected.sent().unwrap();
        assert_eq!(outs.recv().unwrap(), 1);
        assert!(select.try_select().unwrap().is_none()); // sent once, and over

        text.send("left".to_owned()).unwrap();
        select.remove(text_case);
        select.remove(99);
        assert!(select.try_select().unwrap().is_none());
        assert_eq!(texts.recv().unwrap(), "left");
    });
}

#[test]
fn the_shortest_timeout_takes_what_is_there() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let mut select = Select::new();
        select.recv(&rx);
        for nanoseconds in 0..50_000 {
            tx.send(1).unwrap();
            let selected = select.select_timeout(Duration::from_nanos(nanoseconds % 500));
            assert_eq!(selected.unwrap().recv(&rx).unwrap(), 1);
        }
    });
}

#[test]
fn waiting_for_nothing_is_an_error() {
    in_own_process(|| {
        let kind = |error| match error {
            Error::Io { source, .. } => source.kind(),
            error => panic!("{error:?}"),
        };
        let invalid = std::io::ErrorKind::InvalidInput;
        let mut select = Select::new();
        assert_eq!(kind(select.select().unwrap_err()), invalid);
        assert!(select.try_select().unwrap().is_none());
        let (_tx, rx) = channel::<u8>().unwrap();
        let case = select.recv(&rx);
        select.remove(case);
        assert_eq!(kind(select.select().unwrap_err()), invalid);
        let late = select.select_timeout(Duration::from_millis(1));
        assert!(matches!(late, Err(Error::TimedOut { .. })));
    });
}

#[test]
fn the_result_of_another_case_is_refused() {
    in_own_process(|| {
        let (tx, rx) = channel::<u8>().unwrap();
        let (_tx, other) = channel::<u8>().unwrap();
        let selected = || {
            tx.send(1).unwrap();
            let mut select = Select::new();
            select.recv(&rx);
            select.select().unwrap()
        };
        assert!(matches!(selected().recv(&other), Err(Error::Io { .. })));
        assert!(matches!(selected().sent(), Err(Error::Io { .. })));
        assert_eq!(selected().recv(&rx).unwrap(), 1);
    });
}

#[test]
fn too_many_cases_for_the_process_are_an_error() {
    in_own_process(|| {
        let (_tx, rx) = channel::<u8>().unwrap();
        let limit = crate::support::DescriptorLimit::new();
        let more = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
        let mut select = Select::new();
        for _ in 0..more.unwrap().0 {
            select.recv(&rx);
        }
        assert!(select.try_select().unwrap().is_none());
        select.recv(&rx);
        assert!(matches!(select.try_select(), Err(Error::Io { .. })));
        drop(limit);
    });
}

#[test]
fn a_receiver_that_another_process_empties_is_waited_for_again() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let (stop, stopped) = channel::<()>().unwrap();
        // Both wait for the same messages, and only one of them gets each.
        let (count, counts) = channel::<u32>().unwrap();
        let waiters = [0, 1].map(|_| {
            forked(|| {
                let mut got = 0;
                loop {
                    select! {
                        recv(rx) -> message => { message.unwrap(); got += 1; }
                        recv(stopped) -> _ => break,
                    }
                }
                count.send(got).unwrap();
            })
        });
        for number in 0..20_000 {
            tx.send(number).unwrap();
        }
        while crate::support::becomes_ready(&rx, nix::poll::PollFlags::POLLIN, Duration::ZERO) {
            std::thread::yield_now();
        }
        stop.send(()).unwrap();
        stop.send(()).unwrap();
        assert_eq!(counts.recv().unwrap() + counts.recv().unwrap(), 20_000);
        waiters.into_iter().for_each(|waiter| waiter.join());
    });
}

#[test]
fn a_wait_ends_when_a_message_comes_when_there_is_room_and_when_all_are_gone() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let (_quiet, quiet_rx) = channel::<u32>().unwrap();
        let waits: [&dyn Fn() -> bool; 2] = [
            &|| {
                select! {
                    recv(quiet_rx) -> _ => unreachable!(),
                    recv(rx) -> message => message.is_ok(),
                }
            },
            &|| {
                select! {
                    recv(quiet_rx) -> _ => unreachable!(),
                    recv(rx) -> message => message.is_ok(),
                    default(LONG) => unreachable!(),
                }
            },
        ];
        for wait in waits {
            let waiter = forked(|| assert!(wait()));
            until_asleep(waiter.pid);
            tx.send(1).unwrap();
            waiter.join();
        }
        while tx.try_send(0).is_ok() {}
        let waiter = forked(|| {
            select! {
                recv(quiet_rx) -> _ => unreachable!(),
                send(tx, 1) -> sent => sent.unwrap(),
            }
        });
        until_asleep(waiter.pid);
        // Far from polling as writable.
        assert_eq!(rx.recv().unwrap() + rx.recv().unwrap(), 0);
        waiter.join();

        let mut tx = Some(tx);
        let mut waiters = Vec::new();
        while rx.try_recv().is_ok() {}
        for wait in waits {
            waiters.push(forked(|| {
                tx = None;
                assert!(!wait());
            }));
        }
        waiters.iter().for_each(|waiter| until_asleep(waiter.pid));
        drop(tx);
        waiters.into_iter().for_each(|waiter| waiter.join());
    });
}

#[test]
fn no_wake_up_is_lost_in_tens_of_thousands_of_rounds() {
    const ROUNDS: u32 = 20_000;
    in_own_process(|| {
        // Three processes pass tokens around through several channels, with pauses of random length.
        let channels: Vec<_> = (0..6).map(|_| channel::<u32>().unwrap()).collect();
        let (report, reports) = channel::<u32>().unwrap();
        let player = |seed: u64, own: usize| {
            let mut random = Random::new(seed);
            let mut seen = 0;
            let (_, rx_a) = &channels[own];
            let (_, rx_b) = &channels[own + 3];
            loop {
                let token = if random.below(2) == 0 {
                    select! {
                        recv(rx_a) -> token => token.unwrap(),
                        recv(rx_b) -> token => token.unwrap(),
                    }
                } else {
                    select! {
                        recv(rx_b) -> token => token.unwrap(),
                        recv(rx_a) -> token => token.unwrap(),
                        default(LONG) => panic!("a token got lost"),
                    }
                };
                seen += 1;
                for _ in 0..random.below(200) {
                    std::hint::spin_loop();
                }
                let next = (own + 1) % 3 + 3 * random.below(2);
                if token == 0 {
                    report.send(seen).unwrap();
                    return;
                }
                select! {
                    send(channels[next].0, token - 1) -> sent => sent.unwrap(),
                    default(LONG) => panic!("no room for one token"),
                }
            }
        };
        let players: Vec<_> = (0..3)
            .map(|own| forked(move || player(own as u64, own)))
            .collect();
        channels[0].0.send(ROUNDS).unwrap();
        reports.recv().unwrap();
        players.into_iter().for_each(|player| {
            let _ = nix::sys::signal::kill(player.pid, nix::sys::signal::Signal::SIGKILL);
            nix::sys::wait::waitpid(player.pid, None).unwrap();
        });
    });
}

#[test]
fn a_set_gives_each_message_with_its_key() {
    in_own_process(|| {
        let mut set = ReceiverSet::new().unwrap();
        let mut senders = BTreeMap::new();
        for _ in 0..20 {
            let (tx, rx) = channel::<u64>().unwrap();
            senders.insert(set.add(rx).unwrap(), tx);
        }
        assert!(matches!(set.try_recv(), Err(Error::Empty)));
        let late = set.recv_timeout(Duration::from_millis(5));
        assert!(matches!(late, Err(Error::TimedOut { .. })));
        for round in 0..10 {
            for tx in senders.values() {
                tx.send(round).unwrap();
            }
        }
        let mut last = HashMap::new();
        for _ in 0..200 {
            let (key, message) = set.recv().unwrap();
            let message = message.unwrap();
            let before = last.insert(key, message);
            assert_eq!(before.map_or(0, |before| before + 1), message);
        }
        assert!(matches!(set.try_recv(), Err(Error::Empty)));
        assert_eq!(last.len(), 20);
    });
}

#[test]
fn a_set_reports_a_closed_receiver_once_after_its_messages() {
    in_own_process(|| {
        let mut set = ReceiverSet::new().unwrap();
        let (tx, rx) = channel::<u32>().unwrap();
        let (other, other_rx) = channel::<u32>().unwrap();
        let key = set.add(rx).unwrap();
        let other_key = set.add(other_rx).unwrap();
        tx.send(1).unwrap();
        tx.send(2).unwrap();
        drop(tx);
        let mut got = Vec::new();
        while let Ok((from, message)) = set.try_recv() {
            assert_eq!(from, key);
            got.push(message.ok());
        }
        assert_eq!(got, [Some(1), Some(2), None]);
        assert_eq!(set.len(), 1);
        assert!(set.get(key).is_none());
        assert!(set.remove(key).is_none());
        other.send(3).unwrap();
        assert_eq!(set.recv().unwrap().1.unwrap(), 3);
        let other_rx = set.remove(other_key).unwrap();
        other.send(4).unwrap();
        assert!(matches!(set.recv(), Err(Error::Disconnected))); // no receiver is left
        assert!(set.is_empty());
        assert_eq!(other_rx.recv().unwrap(), 4);
    });
}

#[test]
fn a_set_passes_errors_on_and_goes_on() {
    in_own_process(|| {
        let mut set = ReceiverSet::new().unwrap();
        let (tx, rx) = channel::<u32>().unwrap();
        set.add(rx).unwrap();
        let text = Sender::<String>::try_from(tx.as_fd().try_clone_to_owned().unwrap()).unwrap();
        text.send("no number".to_owned()).unwrap();
        tx.send_with_fds(1, &[tx.as_fd()]).unwrap();
        tx.send(2).unwrap();
        let mut next = || set.try_recv().unwrap().1;
        assert!(matches!(next(), Err(Error::Decode { .. })));
        assert!(matches!(next(), Err(Error::UnexpectedFds { count: 1 })));
        assert_eq!(next().unwrap(), 2);
    });
}

#[test]
fn a_set_lets_all_receivers_take_turns() {
    in_own_process(|| {
        let mut set = ReceiverSet::new().unwrap();
        let mut senders = HashMap::new();
        for _ in 0..200 {
            let (tx, rx) = channel::<()>().unwrap();
            tx.send(()).unwrap();
            senders.insert(set.add(rx).unwrap(), tx);
        }
        let mut counts: HashMap<_, u32> = HashMap::new();
        for _ in 0..200 * 20 {
            let (key, message) = set.recv().unwrap();
            message.unwrap();
            *counts.entry(key).or_default() += 1;
            senders[&key].send(()).unwrap(); // always ready
        }
        assert_eq!(counts.len(), 200);
        assert!(
            counts.values().all(|count| (19..=21).contains(count)),
            "{counts:?}"
        );
    });
}

#[test]
fn a_set_of_shared_receivers_waits_again_when_others_were_faster() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let (count, counts) = channel::<u32>().unwrap();
        let waiters = [0, 1].map(|_| {
            let rx = rx.clone();
            forked(|| {
                let mut set = ReceiverSet::new().unwrap();
                set.add(rx).unwrap();
                let mut got = 0;
                while set.recv().unwrap().1.unwrap() != 0 {
                    got += 1;
                }
                count.send(got).unwrap();
            })
        });
        for _ in 0..20_000 {
            tx.send(1).unwrap();
        }
        tx.send(0).unwrap();
        tx.send(0).unwrap();
        assert_eq!(counts.recv().unwrap() + counts.recv().unwrap(), 20_000);
        waiters.into_iter().for_each(|waiter| waiter.join());
    });
}

#[test]
fn a_set_can_be_an_arm_and_costs_one_descriptor() {
    in_own_process(|| {
        let before = open_fds();
        let mut set = ReceiverSet::new().unwrap();
        assert_eq!(open_fds().len(), before.len() + 1);
        let (tx, rx) = channel::<u32>().unwrap();
        let (_quiet, quiet_rx) = channel::<u32>().unwrap();
        set.add(rx).unwrap();
        let child = forked(|| tx.send(5).unwrap());
        let got = select! {
            recv(quiet_rx) -> _ => unreachable!(),
            ready(set) => set.try_recv().unwrap().1.unwrap(),
        };
        assert_eq!(got, 5);
        child.join();
        drop((set, tx, _quiet, quiet_rx));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_listener_can_be_an_arm() {
    in_own_process(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server");
        let listener = Listener::<u32>::bind(&path).unwrap();
        let (_quiet, quiet_rx) = channel::<u32>().unwrap();
        select! {
            ready(listener) => unreachable!("nobody has connected"),
            default => {}
        }
        let client = forked(|| Sender::connect(&path).unwrap().send(5).unwrap());
        let (rx, peer) = select! {
            recv(quiet_rx) -> _ => unreachable!(),
            ready(listener) => listener.try_accept().unwrap(),
        };
        assert_eq!(peer.pid, u32::try_from(client.pid.as_raw()).ok());
        assert_eq!(rx.recv().unwrap(), 5);
        client.join();
    });
}

#[test]
fn a_child_can_be_an_arm() {
    in_own_process(|| {
        let (go, wait) = channel::<u32>().unwrap();
        let (quiet, quiet_rx) = channel::<u32>().unwrap();
        let mut child = spawn(wait, |wait: Receiver<u32>| wait.recv().unwrap() + 1).unwrap();
        select! {
            ready(child) => unreachable!("it waits to be told"),
            default => {}
        }
        go.send(1).unwrap();
        let joined = select! {
            recv(quiet_rx) -> _ => unreachable!(),
            ready(child) => child.try_join(),
        };
        assert_eq!(joined.unwrap(), Some(2));
        // One that is killed tells it as well, while somebody else keeps its channel open.
        let mut child: Child<()> = spawn(quiet.clone(), |_: Sender<u32>| {
            loop {
                std::thread::park();
            }
        })
        .unwrap();
        child.kill().unwrap();
        let joined = select! {
            recv(quiet_rx) -> _ => unreachable!(),
            ready(child) => child.try_join(),
        };
        assert!(matches!(joined, Err(Error::Child { .. })), "{joined:?}");
    });
}

#[test]
fn thousands_of_receivers() {
    in_own_process(|| {
        let mut set = ReceiverSet::new().unwrap();
        let channels: Result<Vec<_>, Error> = (0..4000).map(|_| channel::<u32>()).collect();
        let Ok(channels) = channels else {
            eprintln!("skipped: needs 8000 descriptors");
            return;
        };
        let mut senders = HashMap::new();
        for (tx, rx) in channels {
            senders.insert(set.add(rx).unwrap(), tx);
        }
        let (&key, tx) = senders.iter().next().unwrap();
        tx.send(1).unwrap();
        let (from, message) = set.recv().unwrap();
        assert_eq!((from, message.unwrap()), (key, 1));
        drop(senders);
        for _ in 0..4000 {
            assert!(matches!(set.recv(), Ok((_, Err(Error::Disconnected)))));
        }
        assert!(set.is_empty());
    });
}

#[derive(Serialize, Deserialize)]
struct Fd(#[serde(with = "wormhole::fd")] OwnedFd);

#[test]
fn dropping_an_unused_selection_or_case_leaks_nothing() {
    in_own_process(|| {
        let (tx, rx) = channel::<Fd>().unwrap();
        let before = open_fds();
        let fd = || Fd(pipe().0.into());
        tx.send(fd()).unwrap();
        let mut select = Select::new();
        select.recv(&rx);
        drop(select.select().unwrap());
        assert_eq!(open_fds(), before);
        select.send(&tx, fd());
        drop(select);
        assert_eq!(open_fds(), before);
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));
    });
}
