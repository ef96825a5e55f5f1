//! After the stress tests of crossbeam-channel's `select!`, in `select_macro.rs`.

use std::time::Duration;

use wormhole::{Error, channel, select};

use super::{join_all, small};
use crate::support::{forked, in_own_process};

const COUNT: u32 = 2000;

#[test]
fn stress_receiving_from_two_that_take_turns() {
    in_own_process(|| {
        let (tx1, rx1) = channel::<u32>().unwrap();
        let (tx2, rx2) = small().channel::<u32>().unwrap();
        let (ok, oks) = channel::<()>().unwrap();
        let sender = child!(without (rx1, rx2, ok) {
            for number in 0..COUNT {
                for tx in [&tx1, &tx2] {
                    tx.send(number).unwrap();
                    oks.recv().unwrap();
                }
            }
        });
        for number in 0..COUNT {
            for _ in 0..2 {
                let received = select! {
                    recv(rx1) -> message => message.unwrap(),
                    recv(rx2) -> message => message.unwrap(),
                };
                assert_eq!(received, number);
                ok.send(()).unwrap();
            }
        }
        sender.join();
    });
}

#[test]
fn stress_sending_to_whichever_has_room_while_receiving() {
    in_own_process(|| {
        let (tx1, rx1) = small().channel::<u32>().unwrap();
        let (tx2, rx2) = small().channel::<u32>().unwrap();
        let (tx3, rx3) = small().channel::<u32>().unwrap();
        let other = child!(without (tx1, tx2, rx3) {
            // What was sent comes in order on each channel, and all of it on both together.
            let mut seen = vec![false; COUNT as usize];
            let mut last = [None, None];
            while seen.contains(&false) {
                let (from, number) = select! {
                    recv(rx1) -> message => (0, message.unwrap()),
                    recv(rx2) -> message => (1, message.unwrap()),
                };
                assert!(last[from] < Some(number));
                last[from] = Some(number);
                assert!(!std::mem::replace(&mut seen[number as usize], true));
                tx3.send(number).unwrap();
            }
        });
        drop((rx1, rx2, tx3));
        let (mut next, mut back) = (0, 0);
        while back < COUNT {
            if next == COUNT {
                rx3.recv().unwrap();
                back += 1;
                continue;
            }
            select! {
                recv(rx3) -> message => { message.unwrap(); back += 1 }
                send(tx1, next) -> sent => { sent.unwrap(); next += 1 }
                send(tx2, next) -> sent => { sent.unwrap(); next += 1 }
            }
        }
        assert!(matches!(rx3.recv(), Err(Error::Disconnected)));
        other.join();
    });
}

#[test]
fn stress_deadlines_of_selects_on_both_sides() {
    in_own_process(|| {
        let (tx, rx) = small().channel::<u32>().unwrap();
        let sender = child!(without (rx) {
            for number in 0..COUNT {
                loop {
                    select! {
                        send(tx, number) -> sent => { sent.unwrap(); break }
                        default(Duration::from_micros(u64::from(number % 200))) => {}
                    }
                }
            }
        });
        drop(tx);
        for number in 0..COUNT {
            loop {
                select! {
                    recv(rx) -> message => { assert_eq!(message.unwrap(), number); break }
                    default(Duration::from_micros(u64::from(number % 150))) => {}
                }
            }
        }
        sender.join();
    });
}

#[test]
fn many_processes_that_send_or_receive_on_one_channel_leave_what_nobody_took() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let (did, what_was_done) = channel::<i32>().unwrap();
        let children: Vec<_> = (0..44)
            .map(|number| {
                forked(|| {
                    let balance = select! {
                        recv(rx) -> message => { message.unwrap(); -1 }
                        send(tx, number) -> sent => { sent.unwrap(); 1 }
                    };
                    did.send(balance).unwrap();
                })
            })
            .collect();
        drop(did);
        let balance: i32 = what_was_done.iter().map(Result::unwrap).sum();
        assert!(balance >= 0);
        assert_eq!(rx.try_iter().count(), usize::try_from(balance).unwrap());
        join_all(children);
    });
}
