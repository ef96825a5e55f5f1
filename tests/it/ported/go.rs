//! After Go's channel tests: `runtime/chan_test.go`, and `fifo.go`, `goroutines.go`, `nonblock.go` and
//! `sieve1.go` in `test/chan`.

use std::collections::BTreeMap;

use wormhole::{Error, Receiver, Sender, channel, select};

use super::{join_all, small};
use crate::support::{Forked, forked, in_own_process, open_fds, until_asleep};

#[test]
fn who_receives_from_an_empty_channel_waits_and_who_only_looks_does_not() {
    in_own_process(|| {
        let (tx, rx) = channel::<i32>().unwrap();
        let waiting = [0, 1].map(|_| forked(|| assert_eq!(rx.recv().unwrap(), 5)));
        waiting.iter().for_each(|child| until_asleep(child.pid));
        select! { recv(rx) -> _ => unreachable!(), default => {} }
        tx.send(5).unwrap();
        tx.send(5).unwrap();
        join_all(waiting);
    });
}

#[test]
fn who_sends_to_a_full_channel_waits_and_who_only_tries_does_not() {
    in_own_process(|| {
        let (tx, rx) = small().channel::<i32>().unwrap();
        while tx.try_send(0).is_ok() {}
        let waiting = child!(without (rx) { tx.send(1).unwrap() });
        until_asleep(waiting.pid);
        select! { send(tx, 2) -> _ => unreachable!(), default => {} }
        rx.recv().unwrap();
        waiting.join();
        assert_eq!(rx.try_iter().map(Result::unwrap).sum::<i32>(), 1);
    });
}

#[test]
fn a_hundred_numbers_arrive_in_order_whatever_the_capacity() {
    in_own_process(|| {
        for buffer in [1, 4096, 10_000, 100_000] {
            let (tx, rx) = wormhole::Options::new().buffer(buffer).channel().unwrap();
            let sender = child!(without (rx) { (0..100).for_each(|n| tx.send(n).unwrap()) });
            drop(tx);
            assert!(rx.iter().map(Result::unwrap).eq(0..100));
            sender.join();
        }
    });
}

#[test]
fn four_processes_receive_all_that_four_send_whatever_the_capacity() {
    const EACH: u32 = 1000;
    in_own_process(|| {
        for buffer in [1, 10_000] {
            let (tx, rx) = wormhole::Options::new()
                .buffer(buffer)
                .channel::<u32>()
                .unwrap();
            let (report, reports) = channel::<BTreeMap<u32, u32>>().unwrap();
            let mut children = Vec::new();
            for _ in 0..4 {
                children.push(forked(|| {
                    (0..EACH).for_each(|number| tx.send(number).unwrap())
                }));
                children.push(forked(|| {
                    let mut counts = BTreeMap::new();
                    for _ in 0..EACH {
                        *counts.entry(rx.recv().unwrap()).or_default() += 1;
                    }
                    report.send(counts).unwrap();
                }));
            }
            drop(report);
            let mut total = BTreeMap::new();
            for (number, count) in reports.iter().flat_map(Result::unwrap) {
                *total.entry(number).or_insert(0) += count;
            }
            assert!(total.into_iter().eq((0..EACH).map(|number| (number, 4))));
            join_all(children);
        }
    });
}

#[test]
fn closing_never_hides_a_message_from_who_only_looks() {
    in_own_process(|| {
        for _ in 0..200 {
            let (tx, rx) = channel::<i32>().unwrap();
            tx.send(1).unwrap();
            let looking = child!(without (tx) {
                select! { recv(rx) -> message => drop(message), default => panic!("not ready") }
            });
            drop(tx);
            assert!(matches!(rx.recv(), Ok(1) | Err(Error::Disconnected)));
            looking.join();
        }
    });
}

#[test]
fn many_consumers_pass_all_on_and_then_the_end() {
    const WORKERS: usize = 23;
    const MESSAGES: usize = 20_000;
    const PRIMES: [u64; 10] = [2, 3, 7, 11, 13, 17, 19, 23, 27, 31];
    in_own_process(|| {
        let (job, jobs) = small().channel::<u64>().unwrap();
        let (result, results) = small().channel::<u64>().unwrap();
        let mut children = Vec::new();
        for worker in 0..WORKERS {
            // Whoever holds a sender of the jobs would wait for itself to close it.
            children.push(child!(without (job, results) {
                for number in &jobs {
                    let number = number.unwrap();
                    if number == PRIMES[worker % PRIMES.len()] {
                        std::thread::yield_now();
                    }
                    result.send(number).unwrap();
                }
            }));
        }
        drop((jobs, result));
        let numbers = (0..MESSAGES).map(|number| PRIMES[number % PRIMES.len()]);
        let expected: u64 = numbers.clone().sum();
        children.push(
            child!(without (results) { numbers.for_each(|number| job.send(number).unwrap()) }),
        );
        drop(job);
        let (mut count, mut sum) = (0, 0);
        for number in results {
            count += 1;
            sum += number.unwrap();
        }
        assert_eq!((count, sum), (MESSAGES, expected));
        join_all(children);
    });
}

#[test]
fn those_who_wait_for_each_other_go_in_order() {
    // Each waits for the one before, receives the next number, and lets the next one go.
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let (first, mut turn) = channel::<()>().unwrap();
        let mut children = Vec::new();
        for number in 0..50 {
            let (pass, next_turn) = channel::<()>().unwrap();
            let my_turn = std::mem::replace(&mut turn, next_turn);
            children.push(forked(|| {
                my_turn.recv().unwrap();
                assert_eq!(rx.recv().unwrap(), number);
                pass.send(()).unwrap();
            }));
        }
        (0..50).for_each(|number| tx.send(number).unwrap());
        first.send(()).unwrap();
        turn.recv().unwrap();
        join_all(children);
    });
}

#[test]
fn a_number_goes_through_a_chain_of_processes() {
    const LENGTH: u32 = 200;
    in_own_process(|| {
        let before = open_fds();
        let (rightmost, answer) = channel::<u32>().unwrap();
        let mut right = rightmost;
        let mut children = Vec::new();
        for _ in 0..LENGTH {
            let (tx, rx) = channel::<u32>().unwrap();
            let next = std::mem::replace(&mut right, tx);
            // The end that goes on to the next process stays here, and must not be open there.
            children.push(child!(without (right, answer) {
                for number in rx {
                    next.send(number.unwrap() + 1).unwrap();
                }
            }));
        }
        right.send(0).unwrap();
        assert_eq!(answer.recv().unwrap(), LENGTH);
        // The end goes through the chain as well.
        drop(right);
        assert!(matches!(answer.recv(), Err(Error::Disconnected)));
        join_all(children);
        drop(answer);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_pipeline_of_processes_filters_and_maps() {
    fn stage(
        input: Receiver<u64>,
        work: impl Fn(u64) -> Option<u64>,
        stray: &mut Option<Sender<u64>>,
    ) -> (Receiver<u64>, Forked) {
        let (tx, rx) = channel::<u64>().unwrap();
        let child = forked(|| {
            *stray = None;
            for number in &input {
                if let Some(number) = work(number.unwrap()) {
                    tx.send(number).unwrap();
                }
            }
        });
        (rx, child)
    }
    in_own_process(|| {
        let (tx, numbers) = channel::<u64>().unwrap();
        let mut tx = Some(tx);
        let (odd, first) = stage(numbers, |n| (n % 2 == 1).then_some(n), &mut tx);
        let (squares, second) = stage(odd, |n| Some(n * n), &mut tx);
        let (large, third) = stage(squares, |n| (n > 50).then_some(n), &mut tx);
        let tx = tx.unwrap();
        let feeder =
            child!(without (large) { (0..2000).for_each(|number| tx.send(number).unwrap()) });
        drop(tx);
        let expected = (0..2000)
            .filter(|n| n % 2 == 1)
            .map(|n| n * n)
            .filter(|&n| n > 50);
        assert!(large.iter().map(Result::unwrap).eq(expected));
        join_all([first, second, third, feeder]);
    });
}

#[test]
fn primes_fall_through_a_sieve_of_processes() {
    // One process for each prime, which lets pass what its prime does not divide, and starts the next one.
    fn filter(numbers: &Receiver<u64>, prime_tx: &Sender<u64>) {
        let Some(prime) = numbers.iter().next() else {
            return;
        };
        let prime = prime.unwrap();
        prime_tx.send(prime).unwrap();
        let (tx, rx) = channel::<u64>().unwrap();
        let next = child!(without (tx) { filter(&rx, prime_tx) });
        drop(rx);
        for number in numbers.iter().map(Result::unwrap) {
            if number % prime != 0 {
                tx.send(number).unwrap();
            }
        }
        drop(tx);
        next.join();
    }
    in_own_process(|| {
        let (prime_tx, primes) = channel::<u64>().unwrap();
        let (tx, rx) = channel::<u64>().unwrap();
        let sieve = child!(without (tx, primes) { filter(&rx, &prime_tx) });
        drop((rx, prime_tx));
        let generator =
            child!(without (primes) { (2..200).for_each(|number| tx.send(number).unwrap()) });
        drop(tx);
        let found: Vec<u64> = primes.iter().map(Result::unwrap).collect();
        let is_prime = |number: &u64| (2..*number).all(|divisor| number % divisor != 0);
        assert_eq!(found, (2..200).filter(is_prime).collect::<Vec<_>>());
        join_all([sieve, generator]);
    });
}
