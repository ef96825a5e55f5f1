//! Waiting awake and asleep, whichever way a call waits.

use std::thread;
use std::time::Duration;

use nix::unistd::Pid;
use wormhole::{Error, Options, Receiver, ReceiverSet, Sender, channel, select};

use crate::support::{forked, in_own_process, stat, until_asleep};

/// So many answers that came quickly make an end wait awake.
const ENOUGH: u32 = 4;

const LONG: Duration = Duration::from_secs(3600);

/// The processor time of a process, in ticks of the kernel.
fn ticks(pid: Pid) -> u64 {
    stat(pid)
        .iter()
        .skip(11)
        .take(2)
        .map(|n| n.parse::<u64>().unwrap())
        .sum()
}

fn until_it_has_worked(pid: Pid) {
    let before = ticks(pid);
    while ticks(pid) < before + 3 {
        thread::yield_now();
    }
}

/// Lets a child wait again and again, each time until `end_it` ends that.
fn waits(spin: Duration, wait: impl Fn(), end_it: impl Fn()) {
    let (done, is_done) = channel::<()>().unwrap();
    let rounds = ENOUGH + 3;
    let child = forked(|| {
        for _ in 0..rounds {
            wait();
            done.send(()).unwrap();
        }
    });
    for round in 0..rounds {
        if round < ENOUGH || spin.is_zero() {
            until_asleep(child.pid);
        } else {
            until_it_has_worked(child.pid);
        }
        end_it();
        is_done.recv().unwrap();
    }
    child.join();
}

fn channel_of(spin: Duration) -> (Sender<u32>, Receiver<u32>) {
    let options = Options::new().spin(spin).buffer(4096);
    options.channel().unwrap()
}

/// What a wait of an hour is quick for waits awake, and what nothing is quick for sleeps at once.
fn receives(wait: impl Fn(&Receiver<u32>) -> u32) {
    for spin in [LONG, Duration::ZERO] {
        let (tx, rx) = channel_of(spin);
        waits(spin, || assert_eq!(wait(&rx), 7), || tx.send(7).unwrap());
    }
}

#[test]
fn a_receive_waits_awake_while_that_pays_off() {
    in_own_process(|| receives(|rx| rx.recv().unwrap()));
}

#[test]
fn a_receive_with_a_deadline_waits_awake_while_that_pays_off() {
    in_own_process(|| receives(|rx| rx.recv_timeout(LONG).unwrap()));
}

#[test]
fn select_waits_awake_while_that_pays_off() {
    in_own_process(|| {
        let (_silent, never) = channel_of(Duration::ZERO);
        receives(|rx| {
            select! {
                recv(never) -> _ => unreachable!(),
                recv(rx) -> message => message.unwrap(),
            }
        });
        receives(|rx| {
            select! {
                recv(rx) -> message => message.unwrap(),
                default(LONG) => unreachable!(),
            }
        });
    });
}

#[test]
fn a_set_waits_awake_while_that_pays_off() {
    in_own_process(|| {
        for spin in [LONG, Duration::ZERO] {
            let (tx, rx) = channel_of(spin);
            let (_silent, never) = channel_of(Duration::ZERO);
            let set = std::cell::RefCell::new(ReceiverSet::new().unwrap());
            set.borrow_mut().add(rx).unwrap();
            set.borrow_mut().add(never).unwrap();
            let wait = || assert_eq!(set.borrow_mut().recv().unwrap().1.unwrap(), 7);
            waits(spin, wait, || tx.send(7).unwrap());
        }
    });
}

#[test]
fn a_send_waits_awake_while_that_pays_off() {
    in_own_process(|| {
        let sends: [fn(&Sender<u32>); 3] = [
            |tx| tx.send(8).unwrap(),
            |tx| tx.send_timeout(8, LONG).unwrap(),
            |tx| select! { send(tx, 8) -> sent => sent.unwrap() },
        ];
        for spin in [LONG, Duration::ZERO] {
            for send in sends {
                let (tx, rx) = channel_of(spin);
                while tx.try_send(8).is_ok() {}
                waits(spin, || send(&tx), || assert_eq!(rx.recv().unwrap(), 8));
            }
        }
    });
}

#[test]
fn without_spinning_no_call_waits_that_may_not() {
    in_own_process(|| {
        let options = Options::new().spin(Duration::ZERO);
        let (tx, rx) = options.channel::<u32>().unwrap();
        let short = Duration::from_millis(5);
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));
        let late = rx.recv_timeout(short);
        assert!(matches!(late, Err(Error::TimedOut { .. })));
        while tx.try_send(1).is_ok() {}
        assert!(matches!(tx.try_send(2), Err(Error::Full)));
        let late = tx.send_timeout(3, short);
        assert!(matches!(late, Err(Error::TimedOut { .. })));
        assert!(rx.try_iter().all(|message| message.unwrap() == 1));
    });
}
