//! After the oneshot tests of `std::sync::mpsc`, in `library/std/tests/sync/mpsc.rs`: all of those within
//! one thread are sequences of the same few steps, so here are all the sequences.

use std::collections::VecDeque;
use std::time::Duration;

use wormhole::{Error, Receiver, Sender, channel};

use crate::support::{forked, in_own_process, open_fds, until_asleep};

/// One channel in one process, and what must come of every step.
struct Model {
    tx: Option<Sender<u32>>,
    rx: Option<Receiver<u32>>,
    queue: VecDeque<u32>,
}

impl Model {
    const STEPS: usize = 7;

    fn step(&mut self, step: usize, number: u32) {
        match step {
            0 => self.tx = None,
            1 => self.rx = None,
            2..=4 => {
                let Some(tx) = &self.tx else { return };
                let sent = match step {
                    2 => tx.send(number),
                    3 => tx.try_send(number),
                    _ => tx.send_timeout(number, Duration::ZERO),
                };
                if self.rx.is_some() {
                    self.queue.push_back(number);
                    sent.unwrap();
                } else {
                    assert!(matches!(sent, Err(Error::Disconnected)));
                }
            }
            _ => {
                let Some(rx) = &self.rx else { return };
                let received = match (step, self.queue.front(), &self.tx) {
                    (5, None, Some(_)) => return, // it would wait for ever
                    (5, ..) => rx.recv(),
                    _ => rx.try_recv(),
                };
                match (self.queue.pop_front(), &self.tx) {
                    (Some(expected), _) => assert_eq!(received.unwrap(), expected),
                    (None, Some(_)) => assert!(matches!(received, Err(Error::Empty))),
                    (None, None) => assert!(matches!(received, Err(Error::Disconnected))),
                }
            }
        }
    }
}

#[test]
fn oneshots_in_every_order_of_sending_receiving_and_dropping() {
    const LENGTH: u32 = 5;
    in_own_process(|| {
        let before = open_fds();
        for sequence in 0..Model::STEPS.pow(LENGTH) {
            let (tx, rx) = channel().unwrap();
            let mut model = Model {
                tx: Some(tx),
                rx: Some(rx),
                queue: VecDeque::new(),
            };
            for number in 0..LENGTH {
                model.step(sequence / Model::STEPS.pow(number) % Model::STEPS, number);
            }
        }
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_oneshot_that_is_waited_for_is_sent_or_closed() {
    in_own_process(|| {
        let (tx, rx) = channel::<Box<i32>>().unwrap();
        let receiver = child!(without (tx) {
            assert_eq!(*rx.recv().unwrap(), 10);
            assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        });
        until_asleep(receiver.pid);
        tx.send(Box::new(10)).unwrap();
        drop(tx);
        receiver.join();
    });
}

#[test]
fn stress_oneshots_closed_on_both_sides_at_once() {
    const ROUNDS: usize = 60;
    in_own_process(|| {
        let before = open_fds();
        for _ in 0..ROUNDS {
            // Both are closed.
            let (tx, rx) = channel::<i32>().unwrap();
            let closer = child!(without (tx) { drop(rx) });
            drop(tx);
            closer.join();

            // One is closed while something is sent: it is sent, or the sender learns of it.
            let (tx, rx) = channel::<i32>().unwrap();
            let closer = child!(without (tx) { drop(rx) });
            drop(rx);
            assert!(matches!(tx.send(1), Ok(()) | Err(Error::Disconnected)));
            closer.join();

            // One is closed while the other waits.
            let (tx, rx) = channel::<i32>().unwrap();
            let waiting = child!(without (tx) {
                assert!(matches!(rx.recv(), Err(Error::Disconnected)));
            });
            drop((tx, rx));
            waiting.join();

            // One is sent, and received.
            let (tx, rx) = channel::<Box<i32>>().unwrap();
            let sender = forked(move || tx.send(Box::new(10)).unwrap());
            assert_eq!(*rx.recv().unwrap(), 10);
            sender.join();
        }
        assert_eq!(open_fds(), before);
    });
}
