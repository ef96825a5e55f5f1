//! After Go's tests of `select`: those in `runtime/chan_test.go`, and `doubleselect.go`, `select.go` and
//! `select6.go` in `test/chan`.

use std::collections::BTreeSet;

use wormhole::{Error, Select, channel, select};

use super::{join_all, small};
use crate::support::{Random, forked, in_own_process, until_asleep};

#[test]
fn processes_that_send_and_receive_on_one_channel_at_once_all_finish() {
    in_own_process(|| {
        for options in [small(), wormhole::Options::new()] {
            let (tx, rx) = options.channel::<u32>().unwrap();
            let processes = [0, 1, 2].map(|process| {
                forked(|| {
                    for number in 0..1000 {
                        if (number + process) % 2 == 0 {
                            select! {
                                send(tx, process) -> sent => sent.unwrap(),
                                recv(rx) -> message => assert!(message.unwrap() < 3),
                            }
                        } else {
                            select! {
                                recv(rx) -> message => assert!(message.unwrap() < 3),
                                send(tx, process) -> sent => sent.unwrap(),
                            }
                        }
                    }
                })
            });
            join_all(processes);
        }
    });
}

#[test]
fn stress_sends_receives_and_selects_of_both_on_four_channels() {
    const EACH: usize = 2000;
    in_own_process(|| {
        let channels: Vec<_> = [1, 1, 4096, 8192]
            .map(|bytes| {
                wormhole::Options::new()
                    .buffer(bytes)
                    .channel::<u32>()
                    .unwrap()
            })
            .into();
        let mut children = Vec::new();
        for (tx, rx) in &channels {
            children.push(forked(|| (0..EACH).for_each(|_| tx.send(0).unwrap())));
            children.push(forked(|| (0..EACH).for_each(|_| _ = rx.recv().unwrap())));
        }
        // And each of these does as much on all four together; a channel that has had enough is left out.
        children.push(forked(|| {
            let mut counts = [0; 4];
            for _ in 0..4 * EACH {
                let mut select = Select::new();
                for (at, (tx, _)) in channels.iter().enumerate() {
                    let case = select.send(tx, 0);
                    if counts[at] == EACH {
                        select.remove(case);
                    }
                }
                let selected = select.select().unwrap();
                counts[selected.index()] += 1;
                selected.sent().unwrap();
            }
            assert_eq!(counts, [EACH; 4]);
        }));
        children.push(forked(|| {
            let mut counts = [0; 4];
            let mut select = Select::new();
            channels.iter().for_each(|(_, rx)| _ = select.recv(rx));
            for _ in 0..4 * EACH {
                let selected = select.select().unwrap();
                let at = selected.index();
                selected.recv(&channels[at].1).unwrap();
                counts[at] += 1;
                if counts[at] == EACH {
                    select.remove(at);
                }
            }
            assert_eq!(counts, [EACH; 4]);
        }));
        join_all(children);
        for (_, rx) in &channels {
            assert!(matches!(rx.try_recv(), Err(Error::Empty)));
        }
    });
}

#[test]
fn two_sends_on_one_channel_are_chosen_at_random() {
    const MESSAGES: usize = 1000;
    in_own_process(|| {
        for options in [small(), wormhole::Options::new()] {
            let (tx, rx) = options.channel::<u8>().unwrap();
            let sender = child!(without (rx) {
                for _ in 0..MESSAGES {
                    select! {
                        send(tx, 0) -> sent => sent.unwrap(),
                        send(tx, 1) -> sent => sent.unwrap(),
                    }
                }
            });
            drop(tx);
            let bits: Vec<u8> = rx.iter().map(Result::unwrap).collect();
            let ones = bits.iter().filter(|&&bit| bit == 1).count();
            assert_eq!(bits.len(), MESSAGES);
            // Half of them, with a deviation of 16. Neither one after the other nor in blocks.
            assert!((400..600).contains(&ones), "{ones}");
            let changes = bits.windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert!((400..600).contains(&changes), "{changes}");
            sender.join();
        }
    });
}

#[test]
fn a_channel_that_is_in_a_select_twice_still_wakes_others() {
    in_own_process(|| {
        let (c_tx, c) = channel::<i32>().unwrap();
        let (d_tx, d) = channel::<i32>().unwrap();
        let (e, done) = channel::<i32>().unwrap();
        let first = forked(|| {
            select! {
                recv(c) -> _ => panic!("from c"),
                recv(c) -> _ => panic!("from c"),
                recv(d) -> message => assert_eq!(message.unwrap(), 7),
            }
            e.send(9).unwrap();
        });
        until_asleep(first.pid);
        let second = forked(|| assert_eq!(c.recv().unwrap(), 8));
        until_asleep(second.pid);
        d_tx.send(7).unwrap();
        assert_eq!(done.recv().unwrap(), 9);
        first.join();
        c_tx.send(8).unwrap();
        second.join();
    });
}

#[test]
fn who_waits_for_two_at_once_leaves_the_other_to_those_who_wait_behind() {
    in_own_process(|| {
        let (c1_tx, c1) = channel::<bool>().unwrap();
        let (c2_tx, c2) = channel::<bool>().unwrap();
        // One waits for c1 alone, one for both, one again for c1 alone.
        let select_both = || {
            select! { recv(c1) -> message => message.unwrap(), recv(c2) -> message => message.unwrap() }
        };
        let before = forked(|| _ = c1.recv().unwrap());
        until_asleep(before.pid);
        let both = forked(|| assert!(select_both()));
        until_asleep(both.pid);
        c2_tx.send(true).unwrap();
        both.join();
        let after = forked(|| _ = c1.recv().unwrap());
        until_asleep(after.pid);
        c1_tx.send(false).unwrap();
        c1_tx.send(false).unwrap();
        join_all([before, after]);
    });
}

#[test]
fn a_select_sends_each_message_on_one_channel_only() {
    const MESSAGES: u32 = 5000;
    in_own_process(|| {
        let (out, all) = channel::<u32>().unwrap();
        let mut muxes = Vec::new();
        let mut senders = Vec::new();
        for _ in 0..4 {
            let (tx, rx) = small().channel::<u32>().unwrap();
            muxes.push(child!(without (tx, senders, all) {
                rx.iter().for_each(|number| out.send(number.unwrap()).unwrap());
            }));
            senders.push(tx);
        }
        drop(out);
        let sender = child!(without (all) {
            for number in 0..MESSAGES {
                select! {
                    send(senders[0], number) -> sent => sent.unwrap(),
                    send(senders[1], number) -> sent => sent.unwrap(),
                    send(senders[2], number) -> sent => sent.unwrap(),
                    send(senders[3], number) -> sent => sent.unwrap(),
                }
            }
        });
        drop(senders);
        let mut seen = BTreeSet::new();
        for number in all {
            assert!(seen.insert(number.unwrap()), "twice");
        }
        assert!(seen.into_iter().eq(0..MESSAGES));
        sender.join();
        join_all(muxes);
    });
}

#[test]
fn senders_that_are_left_out_of_a_select_in_turn_are_never_chosen() {
    in_own_process(|| {
        let (a, from_a) = channel::<u32>().unwrap();
        let (b, from_b) = channel::<u32>().unwrap();
        let mut random = Random::new(3);
        let (mut sent_a, mut sent_b) = (0, 0);
        for _ in 0..500 {
            let (with_a, with_b) = (random.below(2) == 0, random.below(2) == 0);
            let mut select = Select::new();
            let case_a = select.send(&a, sent_a);
            let case_b = select.send(&b, sent_b);
            if !with_a {
                select.remove(case_a);
            }
            if !with_b {
                select.remove(case_b);
            }
            match select.try_select().unwrap() {
                None => assert!(!with_a && !with_b),
                Some(selected) if selected.index() == case_a => {
                    assert!(with_a);
                    selected.sent().unwrap();
                    assert_eq!(from_a.recv().unwrap(), sent_a);
                    sent_a += 1;
                }
                Some(selected) => {
                    assert!(with_b && selected.index() == case_b);
                    selected.sent().unwrap();
                    assert_eq!(from_b.recv().unwrap(), sent_b);
                    sent_b += 1;
                }
            }
        }
        assert!(sent_a > 0 && sent_b > 0);
    });
}

#[test]
fn one_of_several_that_wait_gets_a_message_and_the_others_wait_on() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let (got, gots) = channel::<u32>().unwrap();
        let (_never, nothing) = channel::<u32>().unwrap();
        let children: Vec<_> = (0..10)
            .map(|_| {
                forked(|| {
                    let number = select! {
                        recv(nothing) -> _ => unreachable!(),
                        recv(rx) -> number => number.unwrap(),
                    };
                    got.send(number).unwrap();
                })
            })
            .collect();
        for number in 0..10 {
            tx.send(number).unwrap();
            assert_eq!(gots.recv().unwrap(), number);
            assert!(matches!(gots.try_recv(), Err(Error::Empty)));
        }
        join_all(children);
    });
}
