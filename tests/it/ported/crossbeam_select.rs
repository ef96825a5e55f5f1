//! After the tests of crossbeam-channel's `select!` and `Select`: `select_macro.rs`, `select.rs` and
//! `ready.rs`.

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wormhole::{Error, Receiver, Select, Sender, channel, select};

use super::small;
use crate::support::{forked, in_own_process, until_asleep};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(2);

#[test]
fn a_closed_channel_is_chosen_before_anything_else_comes() {
    in_own_process(|| {
        let (tx1, rx1) = channel::<i32>().unwrap();
        let (tx2, rx2) = channel::<i32>().unwrap();
        drop(tx1);
        for _ in 0..10 {
            select! {
                recv(rx1) -> message => assert!(matches!(message, Err(Error::Disconnected))),
                recv(rx2) -> _ => unreachable!(),
                default(LONG) => unreachable!(),
            }
        }
        let waiting = child!(without (tx2) {
            select! {
                recv(rx2) -> message => assert!(matches!(message, Err(Error::Disconnected))),
                default(LONG) => unreachable!(),
            }
        });
        until_asleep(waiting.pid);
        drop(tx2);
        waiting.join();
        // Closed on the sending side: an error at once, with and without a deadline.
        let (tx, rx) = channel::<i32>().unwrap();
        drop(rx);
        select! { send(tx, 0) -> sent => assert!(sent.is_err()), default => unreachable!() }
        select! { send(tx, 0) -> sent => assert!(sent.is_err()), default(LONG) => unreachable!() }
    });
}

#[test]
fn without_other_arms_the_default_waits_for_its_time() {
    in_own_process(|| {
        select! { default => {} }
        let start = Instant::now();
        select! { default(SHORT) => {} }
        assert!(start.elapsed() >= SHORT);
        assert!(matches!(
            Select::new().select_timeout(SHORT),
            Err(Error::TimedOut { .. })
        ));
        assert!(start.elapsed() >= SHORT * 2);
        // Time passes for the others.
        let (tx, rx) = channel::<i32>().unwrap();
        select! {
            default(SHORT) => {
                drop(tx);
                select! { recv(rx) -> message => assert!(message.is_err()), default => unreachable!() }
            }
        }
    });
}

#[test]
fn a_message_that_comes_later_ends_a_wait_that_gave_up_before() {
    in_own_process(|| {
        let (_tx1, rx1) = channel::<i32>().unwrap();
        let (tx2, rx2) = channel::<i32>().unwrap();
        let (go, gone) = channel::<()>().unwrap();
        let sender = forked(|| {
            gone.recv().unwrap();
            tx2.send(2).unwrap();
        });
        select! {
            recv(rx1) -> _ => unreachable!(),
            recv(rx2) -> _ => unreachable!(),
            default(SHORT) => go.send(()).unwrap(),
        }
        select! {
            recv(rx1) -> _ => unreachable!(),
            recv(rx2) -> message => assert_eq!(message.unwrap(), 2),
            default(LONG) => unreachable!(),
        }
        sender.join();
    });
}

#[test]
fn a_receive_and_a_send_happen_one_after_the_other() {
    in_own_process(|| {
        let (tx1, rx1) = channel::<i32>().unwrap();
        let (tx2, rx2) = small().channel::<i32>().unwrap();
        while tx2.try_send(0).is_ok() {}
        let other = forked(|| {
            tx1.send(1).unwrap();
            while rx2.recv().unwrap() != 2 {}
        });
        let (mut received, mut sent) = (0, 0);
        while received + sent < 2 {
            select! {
                recv(rx1) -> message => { assert_eq!(message.unwrap(), 1); received += 1 }
                send(tx2, 2) -> result => { result.unwrap(); sent += 1 }
            }
            if sent == 1 && received == 0 {
                assert_eq!(rx1.recv().unwrap(), 1);
                received = 1;
            }
        }
        assert_eq!((received, sent), (1, 1));
        other.join();
    });
}

#[test]
fn messages_before_the_end_come_before_the_end() {
    in_own_process(|| {
        let (tx, rx) = channel::<()>().unwrap();
        drop(tx.clone());
        select! { recv(rx) -> _ => unreachable!(), default => {} }
        tx.send(()).unwrap();
        drop(tx);
        select! { recv(rx) -> message => message.unwrap() }
        select! { recv(rx) -> message => assert!(matches!(message, Err(Error::Disconnected))) }
        assert!(matches!(rx.try_recv(), Err(Error::Disconnected)));
    });
}

#[test]
fn the_same_receive_and_send_may_be_there_twice_and_all_happen() {
    in_own_process(|| {
        let (tx, rx) = channel::<i32>().unwrap();
        let mut hit = [false; 4];
        while hit.contains(&false) {
            select! {
                recv(rx) -> message => { message.unwrap(); hit[0] = true }
                recv(rx) -> message => { message.unwrap(); hit[1] = true }
                send(tx, 0) -> sent => { sent.unwrap(); hit[2] = true }
                send(tx, 0) -> sent => { sent.unwrap(); hit[3] = true }
            }
        }
        let mut hit = [false; 4];
        while hit.contains(&false) {
            let mut select = Select::new();
            let cases = [
                select.recv(&rx),
                select.recv(&rx),
                select.send(&tx, 0),
                select.send(&tx, 0),
            ];
            let selected = select.select().unwrap();
            let index = selected.index();
            let at = cases.iter().position(|&case| case == index).unwrap();
            hit[at] = true;
            if at < 2 {
                selected.recv(&rx).unwrap();
            } else {
                selected.sent().unwrap();
            }
        }
    });
}

#[test]
fn selects_nest() {
    in_own_process(|| {
        let (tx, rx) = channel::<i32>().unwrap();
        let inner = select! {
            send(tx, 0) -> sent => {
                sent.unwrap();
                select! {
                    recv(rx) -> message => {
                        assert_eq!(message.unwrap(), 0);
                        select! {
                            send(tx, 1) -> sent => {
                                sent.unwrap();
                                select! { recv(rx) -> message => message.unwrap() }
                            }
                        }
                    }
                }
            }
        };
        assert_eq!(inner, 1);
        // Also in the message and in the choice of the channel of an arm.
        let (reply, replies) = channel::<i32>().unwrap();
        tx.send(5).unwrap();
        select! {
            send(select! { default => reply }, select! { recv(rx) -> message => message.unwrap() + 1 }) -> sent => sent.unwrap(),
        }
        assert_eq!(replies.recv().unwrap(), 6);
    });
}

#[test]
fn channels_and_messages_are_evaluated_once_from_top_to_bottom() {
    in_own_process(|| {
        let (tx, rx) = channel::<usize>().unwrap();
        let order = Cell::new(0);
        let at = |expected: usize| {
            assert_eq!(order.replace(expected), expected - 1);
            expected
        };
        let receiver = |expected| {
            at(expected);
            &rx
        };
        let sender = |expected| {
            at(expected);
            &tx
        };
        let (_never, nothing) = channel::<usize>().unwrap();
        let never = |expected| {
            at(expected);
            &nothing
        };
        select! {
            recv(never(1)) -> _ => unreachable!(),
            send(sender(2), at(3)) -> sent => sent.unwrap(),
            recv(receiver(4)) -> _ => unreachable!("nothing was there when all were looked at"),
        }
        assert_eq!(rx.recv().unwrap(), 3);
    });
}

#[test]
fn a_panic_in_an_arms_channel_or_message_does_nothing() {
    fn panics<T>(body: impl FnOnce() -> T) -> bool {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err()
    }
    fn refuse<T>() -> T {
        panic!("as the test wants it")
    }
    in_own_process(|| {
        let (tx, rx) = channel::<i32>().unwrap();
        assert!(panics(
            || select! { recv(refuse::<Receiver<i32>>()) -> _ => {} }
        ));
        assert!(panics(
            || select! { send(refuse::<Sender<i32>>(), 1) -> _ => {} }
        ));
        assert!(panics(
            || select! { send(tx, 1) -> _ => {}, send(tx, refuse::<i32>()) -> _ => {} }
        ));
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));
        tx.send(2).unwrap();
        assert!(panics(|| select! { recv(rx) -> _ => refuse::<()>() }));
        assert!(matches!(rx.try_recv(), Err(Error::Empty))); // it had been received
    });
}

#[derive(Serialize, Deserialize)]
struct Next(Receiver<Next>);

#[test]
fn each_channel_comes_through_the_one_before_by_select() {
    in_own_process(|| {
        let (tx, rx) = channel::<Next>().unwrap();
        let (got, gots) = channel::<()>().unwrap();
        let follower = child!(without (tx, gots) {
            let mut rx = rx;
            for _ in 0..500 {
                Next(rx) = select! { recv(rx) -> next => next.unwrap() };
                got.send(()).unwrap();
            }
        });
        drop((rx, got));
        let mut tx = tx;
        for _ in 0..500 {
            let (next, next_rx) = channel::<Next>().unwrap();
            select! { send(tx, Next(next_rx)) -> sent => sent.unwrap() }
            gots.recv().unwrap();
            tx = next;
        }
        follower.join();
    });
}

#[test]
fn all_ready_receivers_and_senders_get_their_share() {
    in_own_process(|| {
        let receivers: Vec<_> = (0..4).map(|_| channel::<()>().unwrap()).collect();
        let senders: Vec<_> = (0..4).map(|_| channel::<()>().unwrap()).collect();
        let mut counts = [0; 8];
        for _ in 0..4000 {
            receivers.iter().for_each(|(tx, _)| drop(tx.try_send(())));
            let mut select = Select::new();
            receivers.iter().for_each(|(_, rx)| _ = select.recv(rx));
            senders.iter().for_each(|(tx, _)| _ = select.send(tx, ()));
            let selected = select.select().unwrap();
            let index = selected.index();
            counts[index] += 1;
            match receivers.get(index) {
                Some((_, rx)) => selected.recv(rx).unwrap(),
                None => {
                    selected.sent().unwrap();
                    senders[index - 4].1.recv().unwrap();
                }
            }
        }
        // 500 on average, with a deviation of 21.
        assert!(
            counts.iter().all(|count| (350..650).contains(count)),
            "{counts:?}"
        );
    });
}

#[test]
fn readiness_alone_takes_nothing() {
    in_own_process(|| {
        let (tx, rx) = channel::<i32>().unwrap();
        select! { ready(rx) => unreachable!(), default => {} }
        tx.send(1).unwrap();
        for _ in 0..3 {
            select! { ready(rx) => {} }
        }
        assert_eq!(rx.recv().unwrap(), 1);
        drop(tx);
        select! { ready(rx) => {} }
        assert!(matches!(rx.try_recv(), Err(Error::Disconnected)));
    });
}
