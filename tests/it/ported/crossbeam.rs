//! After the tests of crossbeam-channel: `array.rs`, `list.rs`, `zero.rs`, `iter.rs`, `golang.rs` and
//! `thread_locals.rs`, all but those of `select!`.

use std::io::Read;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wormhole::{Error, Receiver, ReceiverSet, Sender, channel, select};

use super::{join_all, small};
use crate::support::{Random, forked, in_own_process, open_fds, pipe, until_asleep};

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn what_is_sent_before_disconnection_is_received_after_it() {
    in_own_process(|| {
        let (tx, rx) = channel::<i32>().unwrap();
        forked(|| (1..=3).for_each(|number| tx.send(number).unwrap())).join();
        drop(tx);
        let receiver = forked(|| assert_eq!(rx.recv().unwrap(), 1));
        receiver.join();
        assert_eq!(rx.recv().unwrap(), 2);
        assert_eq!(rx.recv_timeout(LONG).unwrap(), 3);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        assert!(matches!(rx.try_recv(), Err(Error::Disconnected)));
        assert!(matches!(rx.recv_timeout(LONG), Err(Error::Disconnected)));
    });
}

#[test]
fn nothing_can_be_sent_after_disconnection_even_if_there_was_room() {
    in_own_process(|| {
        let (tx, rx) = channel::<i32>().unwrap();
        tx.send(1).unwrap();
        drop(rx);
        assert!(matches!(tx.send(2), Err(Error::Disconnected)));
        assert!(matches!(tx.try_send(3), Err(Error::Disconnected)));
        assert!(matches!(tx.send_timeout(4, LONG), Err(Error::Disconnected)));
    });
}

#[test]
fn disconnection_wakes_everyone_who_waits_to_receive() {
    in_own_process(|| {
        let (tx, rx) = channel::<i32>().unwrap();
        let waits: [&dyn Fn(); 5] = [
            &|| assert!(matches!(rx.recv(), Err(Error::Disconnected))),
            &|| assert!(matches!(rx.recv_timeout(LONG), Err(Error::Disconnected))),
            &|| assert!(rx.iter().next().is_none()),
            &|| select! { recv(rx) -> message => assert!(matches!(message, Err(Error::Disconnected))) },
            &|| {
                let mut set = ReceiverSet::new().unwrap();
                set.add(rx.clone()).unwrap();
                let (_, message) = set.recv().unwrap();
                assert!(matches!(message, Err(Error::Disconnected)));
            },
        ];
        let mut waiting = Vec::new();
        for wait in waits.iter().chain(&waits) {
            waiting.push(child!(without (tx) { wait() }));
        }
        waiting.iter().for_each(|child| until_asleep(child.pid));
        drop(tx);
        join_all(waiting);
    });
}

#[test]
fn disconnection_wakes_everyone_who_waits_to_send() {
    in_own_process(|| {
        let (tx, rx) = small().channel::<i32>().unwrap();
        while tx.try_send(0).is_ok() {}
        let waits: [&dyn Fn(); 3] = [
            &|| assert!(matches!(tx.send(1), Err(Error::Disconnected))),
            &|| assert!(matches!(tx.send_timeout(1, LONG), Err(Error::Disconnected))),
            &|| select! { send(tx, 1) -> sent => assert!(matches!(sent, Err(Error::Disconnected))) },
        ];
        // The waits do not use the receiver, so each child can drop its own.
        let mut rx = Some(rx);
        let mut waiting = Vec::new();
        for wait in waits.iter().chain(&waits) {
            waiting.push(forked(|| {
                rx = None;
                wait();
            }));
        }
        waiting.iter().for_each(|child| until_asleep(child.pid));
        drop(rx);
        join_all(waiting);
    });
}

#[test]
fn each_of_several_receivers_gets_messages_and_all_get_each_one_once() {
    const PROCESSES: u32 = 4;
    const MESSAGES: u32 = 5000;
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let (report, reports) = channel::<Vec<u32>>().unwrap();
        let receivers: Vec<_> = (0..PROCESSES)
            .map(|_| {
                forked(|| {
                    report
                        .send(
                            (0..MESSAGES)
                                .map(|_| rx.recv().unwrap())
                                .collect::<Vec<_>>(),
                        )
                        .unwrap()
                })
            })
            .collect();
        let senders: Vec<_> = (0..PROCESSES)
            .map(|_| forked(|| (0..MESSAGES).for_each(|number| tx.send(number).unwrap())))
            .collect();
        drop((tx, report));
        let mut counts = vec![0; MESSAGES as usize];
        for number in reports.iter().flat_map(Result::unwrap) {
            counts[number as usize] += 1;
        }
        assert!(counts.iter().all(|&count| count == PROCESSES));
        assert!(matches!(
            rx.try_recv(),
            Err(Error::Disconnected | Error::Empty)
        ));
        join_all(receivers.into_iter().chain(senders));
    });
}

#[test]
fn who_has_sent_one_finds_one_if_everybody_does_so() {
    const PROCESSES: usize = 4;
    in_own_process(|| {
        let (tx, rx) = channel::<()>().unwrap();
        // Each takes one only after it has put one there, so nobody finds none.
        let children: Vec<_> = (0..PROCESSES)
            .map(|process| {
                forked(|| {
                    for round in 0..3000 {
                        if (round + process) % 2 == 0 {
                            tx.try_send(()).unwrap();
                            rx.try_recv().unwrap();
                        } else {
                            select! { send(tx, ()) -> sent => sent.unwrap(), default => unreachable!() }
                            select! { recv(rx) -> received => received.unwrap(), default => unreachable!() }
                        }
                    }
                })
            })
            .collect();
        join_all(children);
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));
    });
}

#[test]
fn deadlines_on_both_sides_lose_nothing() {
    const MESSAGES: u32 = 3000;
    in_own_process(|| {
        let (tx, rx) = small().channel::<u32>().unwrap();
        let mut random = Random::new(2);
        let mut timeout = move || Duration::from_micros(random.below(300) as u64);
        let sender = child!(without (rx) {
            for number in 0..MESSAGES {
                while let Err(error) = tx.send_timeout(number, timeout()) {
                    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
                }
            }
        });
        drop(tx);
        let mut expected = 0;
        loop {
            match rx.recv_timeout(timeout()) {
                Ok(number) => {
                    assert_eq!(number, expected);
                    expected += 1;
                }
                Err(Error::TimedOut { .. }) => {}
                Err(Error::Disconnected) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(expected, MESSAGES);
        sender.join();
    });
}

#[test]
fn what_messages_hold_is_dropped_once_wherever_they_end() {
    #[derive(Serialize, Deserialize)]
    struct Holder(#[serde(with = "wormhole::fd")] std::fs::File);
    in_own_process(|| {
        let before = open_fds();
        let mut random = Random::new(7);
        for _ in 0..40 {
            let (mut reader, writer) = pipe();
            let (tx, rx) = channel::<Holder>().unwrap();
            let (received, left) = (random.below(40), random.below(20));
            let receiver = child!(without (tx, writer.try_clone().unwrap()) {
                for _ in 0..received {
                    drop(rx.recv().unwrap());
                }
            });
            for _ in 0..received + left {
                tx.send(Holder(writer.try_clone().unwrap())).unwrap();
            }
            receiver.join();
            // What the receiver left is still there, and goes with the channel.
            drop((writer, tx));
            assert_eq!(
                rx.iter().take(left / 2).map(Result::unwrap).count(),
                left / 2
            );
            drop(rx);
            assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        }
        assert_eq!(open_fds(), before);
    });
}

#[derive(Serialize, Deserialize)]
struct Next(Receiver<Next>);

#[test]
fn each_channel_comes_through_the_one_before() {
    const CHANNELS: usize = 1000;
    in_own_process(|| {
        let before = open_fds();
        let (tx, rx) = channel::<Next>().unwrap();
        let follower = child!(without (tx) {
            let mut rx = rx;
            for _ in 0..CHANNELS {
                Next(rx) = rx.recv().unwrap();
            }
            assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        });
        drop(rx);
        let mut tx = tx;
        for _ in 0..CHANNELS {
            let (next, next_rx) = channel::<Next>().unwrap();
            let message = Next(next_rx);
            // Receivers that wait in channels whose receivers wait: the kernel counts them all.
            while let Err(error) = tx.by_ref().send(&message) {
                assert!(matches!(error, Error::TooManyFdsInFlight), "{error}");
                std::thread::yield_now();
            }
            tx = next;
        }
        drop(tx);
        follower.join();
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_reply_channel_made_for_each_request_ends_with_it() {
    in_own_process(|| {
        let before = open_fds();
        let (requests, server) = channel::<(u32, Sender<u32>)>().unwrap();
        let serving = child!(without (requests) {
            for request in server {
                let (number, reply) = request.unwrap();
                (0..number).for_each(|step| reply.send(step).unwrap());
            }
        });
        drop(server);
        for number in 0..200 {
            let (reply, replies) = channel().unwrap();
            requests.send((number, reply)).unwrap();
            assert!(replies.iter().map(Result::unwrap).eq(0..number));
        }
        drop(requests);
        serving.join();
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn messages_of_size_zero_are_counted() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Unit;
    in_own_process(|| {
        let (unit, units) = channel::<Unit>().unwrap();
        let (array, arrays) = channel::<[u8; 0]>().unwrap();
        let sender = child!(without (units, arrays) {
            for _ in 0..1000 {
                unit.send(Unit).unwrap();
                array.send([]).unwrap();
            }
        });
        drop((unit, array));
        let mut counts = (0, 0);
        for (a, b) in units.iter().zip(&arrays) {
            assert_eq!((a.unwrap(), b.unwrap()), (Unit, []));
            counts = (counts.0 + 1, counts.1 + 1);
        }
        assert_eq!(counts, (1000, 1000));
        assert!(units.iter().next().is_none() && arrays.iter().next().is_none());
        sender.join();
    });
}
