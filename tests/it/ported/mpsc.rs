//! After the tests of `std::sync::mpsc`: `library/std/tests/sync/mpsc.rs` and `mpsc_sync.rs`.

use std::io::Read;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wormhole::{Error, Receiver, Sender, channel};

use super::{join_all, small};
use crate::support::{Forked, forked, in_own_process, open_fds, pipe, until_asleep};

#[test]
fn a_message_comes_from_another_process() {
    in_own_process(|| {
        let (tx, rx) = channel::<i32>().unwrap();
        let sender = forked(move || tx.send(1).unwrap());
        assert_eq!(rx.recv().unwrap(), 1);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        sender.join();
    });
}

#[test]
fn a_channel_that_is_dropped_full_drops_its_messages() {
    #[derive(Serialize, Deserialize)]
    struct Holder(#[serde(with = "wormhole::fd")] std::fs::File);
    in_own_process(|| {
        let before = open_fds();
        let (mut reader, writer) = pipe();
        let (tx, rx) = channel::<Holder>().unwrap();
        let message = Holder(writer);
        for clone in [&tx, &tx.clone(), &tx.clone()] {
            clone.by_ref().send(&message).unwrap();
        }
        drop((message, tx, rx));
        // The messages were the last that held the other end of the pipe.
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        drop(reader);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_sender_learns_that_the_receiver_went_away() {
    in_own_process(|| {
        for clones in [1, 2] {
            let (tx, rx) = channel::<i32>().unwrap();
            let senders = vec![tx.clone(); clones];
            drop(tx);
            let receiver = child!(without (senders) {
                rx.recv().unwrap();
            });
            drop(rx);
            let error = loop {
                if let Some(error) = senders.iter().find_map(|tx| tx.send(1).err()) {
                    break error;
                }
            };
            assert!(matches!(error, Error::Disconnected));
            receiver.join();
            // Once told, always told.
            for tx in senders.iter().chain(&senders) {
                assert!(matches!(tx.send(1), Err(Error::Disconnected)));
            }
        }
    });
}

#[test]
fn a_receiver_gets_what_was_sent_before_the_senders_went_away() {
    in_own_process(|| {
        let (tx, rx) = channel::<i32>().unwrap();
        let senders = [0, 1].map(|_| {
            forked(|| {
                tx.send(1).unwrap();
                tx.send(1).unwrap();
            })
        });
        join_all(senders);
        drop(tx);
        assert_eq!(rx.iter().map(Result::unwrap).sum::<i32>(), 4);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    });
}

#[test]
fn stress_one_sender_and_many() {
    const MESSAGES: u32 = 10_000;
    in_own_process(|| {
        for senders in [1, 8] {
            let (tx, rx) = channel::<i32>().unwrap();
            let receiver = child!(without (tx) {
                for _ in 0..MESSAGES {
                    assert_eq!(rx.recv().unwrap(), 1);
                }
                assert!(matches!(rx.recv(), Err(Error::Disconnected)));
            });
            drop(rx);
            let children: Vec<_> = (0..senders)
                .map(|_| forked(|| (0..MESSAGES / senders).for_each(|_| tx.send(1).unwrap())))
                .collect();
            drop(tx);
            join_all(children);
            receiver.join();
        }
    });
}

#[test]
fn two_processes_answer_each_other() {
    in_own_process(|| {
        let (tx1, rx1) = channel::<i32>().unwrap();
        let (tx2, rx2) = channel::<i32>().unwrap();
        let first = forked(|| {
            assert_eq!(rx1.recv().unwrap(), 1);
            tx2.send(2).unwrap();
        });
        let second = forked(|| {
            tx1.send(1).unwrap();
            assert_eq!(rx2.recv().unwrap(), 2);
        });
        join_all([first, second]);
    });
}

#[test]
fn a_stream_whose_every_message_has_a_sender_and_a_receiver_of_its_own() {
    const LENGTH: u32 = 10;
    // Each process deals with one number and leaves the others to its child.
    fn relay(number: u32, deal_with: &dyn Fn(u32)) -> Forked {
        forked(|| {
            deal_with(number);
            if number + 1 < LENGTH {
                relay(number + 1, deal_with).join();
            }
        })
    }
    in_own_process(|| {
        for _ in 0..5 {
            let (tx, rx) = channel::<u32>().unwrap();
            let senders = relay(0, &|number| tx.send(number).unwrap());
            let receivers = relay(0, &|number| assert_eq!(rx.recv().unwrap(), number));
            join_all([senders, receivers]);
        }
    });
}

#[test]
fn a_receiver_with_a_deadline_gets_what_is_there_or_gives_up_in_time() {
    let timeout = Duration::from_millis(2);
    in_own_process(|| {
        let (tx, rx) = channel::<()>().unwrap();
        let clone = tx.clone();
        for tx in [&tx, &clone] {
            tx.send(()).unwrap();
            rx.recv_timeout(timeout).unwrap();
            let start = Instant::now();
            assert!(matches!(
                rx.recv_timeout(timeout),
                Err(Error::TimedOut { .. })
            ));
            assert!(start.elapsed() >= timeout);
        }
        let waiting = forked(|| rx.recv_timeout(Duration::MAX).unwrap());
        until_asleep(waiting.pid);
        tx.send(()).unwrap();
        waiting.join();
    });
}

#[test]
fn stress_deadlines_that_pass_before_every_other_message() {
    const MESSAGES: u32 = 100;
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let (late, too_late) = channel::<()>().unwrap();
        let sender = child!(without (rx) {
            for number in 0..MESSAGES {
                if number % 2 == 0 {
                    too_late.recv().unwrap(); // the receiver has given up once
                }
                tx.send(number).unwrap();
            }
        });
        drop(tx);
        let (mut received, mut given_up) = (0, 0);
        loop {
            match rx.recv_timeout(Duration::from_millis(1)) {
                Ok(number) => {
                    assert_eq!(number, received);
                    received += 1;
                }
                Err(Error::TimedOut { .. }) => {
                    given_up += 1;
                    late.send(()).unwrap();
                }
                Err(Error::Disconnected) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(received, MESSAGES);
        assert!(given_up >= MESSAGES / 2);
        sender.join();
    });
}

#[test]
fn a_hundred_processes_send_one_message_each() {
    in_own_process(|| {
        let (tx, rx) = channel::<()>().unwrap();
        let senders: Vec<_> = (0..100).map(|_| forked(|| tx.send(()).unwrap())).collect();
        drop(tx);
        let mut received = 0;
        loop {
            match rx.recv_timeout(Duration::from_millis(10)) {
                Ok(()) => received += 1,
                Err(Error::TimedOut { .. }) => {}
                Err(Error::Disconnected) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(received, 100);
        join_all(senders);
    });
}

#[test]
fn a_lot_of_empty_messages_go_through_one_channel() {
    in_own_process(|| {
        let (tx, rx) = channel::<()>().unwrap();
        let (mut sent, mut received) = (0, 0);
        while sent < 10_000 {
            while tx.try_send(()).is_ok() {
                sent += 1;
            }
            received += rx.try_iter().map(Result::unwrap).count();
        }
        assert_eq!(received, sent);
    });
}

#[test]
fn iterators_end_break_off_and_go_on() {
    in_own_process(|| {
        let (tx, rx) = channel::<i32>().unwrap();
        let (total, totals) = channel::<i32>().unwrap();
        let adder = child!(without (tx) {
            total.send(rx.iter().map(Result::unwrap).sum::<i32>()).unwrap();
        });
        drop(rx);
        for number in [3, 1, 2] {
            tx.send(number).unwrap();
        }
        drop(tx);
        assert_eq!(totals.recv().unwrap(), 6);
        adder.join();

        let (tx, rx) = channel::<i32>().unwrap();
        (0..4).for_each(|number| tx.send(number).unwrap());
        drop(tx);
        assert_eq!(rx.iter().take(2).map(Result::unwrap).sum::<i32>(), 1);
        assert_eq!((&rx).into_iter().next().unwrap().unwrap(), 2);
        let mut rest = rx.into_iter();
        assert_eq!(rest.next().unwrap().unwrap(), 3);
        assert!(rest.next().is_none() && rest.next().is_none());
    });
}

#[test]
fn a_process_asks_until_what_is_there_is_enough() {
    in_own_process(|| {
        let (ask, asked) = channel::<()>().unwrap();
        let (give, given) = channel::<i32>().unwrap();
        let asking = child!(without (asked, give) {
            let mut sum = 0;
            while sum < 6 {
                let waiting = given.try_iter().map(Result::unwrap).sum::<i32>();
                sum += waiting;
                if waiting == 0 {
                    ask.send(()).unwrap();
                }
            }
            assert_eq!(sum % 2, 0);
        });
        drop((ask, given));
        for question in &asked {
            question.unwrap();
            if give.send(2).is_err() {
                break;
            }
        }
        asking.join();
    });
}

#[test]
fn a_receiver_that_does_not_wait_sees_each_state_of_its_channel() {
    in_own_process(|| {
        let (tx, rx) = channel::<i32>().unwrap();
        let (go, gone) = channel::<()>().unwrap();
        let (done, did) = channel::<()>().unwrap();
        let sender = child!(without (rx, go, did) {
            gone.recv().unwrap();
            tx.send(1).unwrap();
            done.send(()).unwrap();
            gone.recv().unwrap();
            drop(tx);
            done.send(()).unwrap();
            gone.recv().unwrap();
        });
        drop(tx);
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));
        go.send(()).unwrap();
        did.recv().unwrap();
        assert_eq!(rx.try_recv().unwrap(), 1);
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));
        go.send(()).unwrap();
        did.recv().unwrap();
        assert!(matches!(rx.try_recv(), Err(Error::Disconnected)));
        go.send(()).unwrap();
        sender.join();
    });
}

#[test]
fn a_full_channel_makes_each_kind_of_sender_wait_refuse_or_give_up() {
    in_own_process(|| {
        let (tx, rx) = small().channel::<u32>().unwrap();
        let mut count = 0;
        while tx.try_send(count).is_ok() {
            count += 1;
        }
        assert!(matches!(tx.try_send(0), Err(Error::Full)));
        let timeout = Duration::from_millis(2);
        let start = Instant::now();
        assert!(matches!(
            tx.send_timeout(0, timeout),
            Err(Error::TimedOut { .. })
        ));
        assert!(start.elapsed() >= timeout);
        let waiting = forked(|| tx.send(count).unwrap());
        until_asleep(waiting.pid);
        for expected in 0..=count {
            assert_eq!(rx.recv().unwrap(), expected); // nothing that was refused
        }
        waiting.join();
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));
    });
}

#[test]
fn two_processes_that_never_wait_to_send_keep_a_ball_in_play() {
    const RETURNS: u32 = 2000;
    in_own_process(|| {
        let (there, at_there) = channel::<u32>().unwrap();
        let (back, at_back) = channel::<u32>().unwrap();
        let play = |incoming: &Receiver<u32>, outgoing: &Sender<u32>| {
            for ball in incoming {
                let ball = ball.unwrap() + 1;
                outgoing.try_send(ball).unwrap(); // there is one ball, so there is room
                if ball >= RETURNS {
                    return;
                }
            }
        };
        let other = child!(without (there, at_back) { play(&at_there, &back) });
        there.try_send(0).unwrap();
        play(&at_back, &there);
        other.join();
    });
}
