//! How far it goes: docs/limits.md has the figures of these tests. Those that are ignored take longer, and do
//! what a smaller test beside them does in short: `cargo test --release --test system scale -- --include-ignored`.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::fstat;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde::{Deserialize, Serialize};
use wormhole::{Error, Options, Receiver, ReceiverSet, Sender, channel};

use crate::support::{Forked, Random, ends_within, forked, in_own_process, open_fds};

#[test]
fn a_process_holds_an_end_of_ten_thousand_channels() {
    in_own_process(|| {
        const CHANNELS: usize = 10_000;
        let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        if limit < 11_000 {
            eprintln!("skipped: needs 11,000 descriptors, may have {limit}");
            return;
        }
        let before = open_fds();
        let (give, given) = channel::<Vec<Sender<u64>>>().unwrap();
        let (next, turns) = channel::<u64>().unwrap();
        let mut parents = Some((give, next));
        let other = forked(|| {
            parents = None;
            let mut senders = Vec::new();
            while senders.len() < CHANNELS {
                senders.extend(given.recv().unwrap());
            }
            for turn in &turns {
                let turn = turn.unwrap();
                senders.iter().for_each(|tx| tx.send(turn).unwrap());
            }
        });
        drop((given, turns));
        let (give, next) = parents.unwrap();
        let mut set = ReceiverSet::new().unwrap();
        for _ in 0..CHANNELS / 250 {
            let pairs = (0..250).map(|_| channel().unwrap());
            let (senders, receivers): (Vec<_>, Vec<_>) = pairs.unzip();
            give.send(senders).unwrap(); // moves them
            for rx in receivers {
                set.add(rx).unwrap();
            }
        }
        for turn in 0..3 {
            next.send(turn).unwrap();
            let mut keys: Vec<_> = (0..CHANNELS)
                .map(|_| {
                    let (key, message) = set.recv().unwrap();
                    assert_eq!(message.unwrap(), turn);
                    key
                })
                .collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), CHANNELS);
            assert!(matches!(set.try_recv(), Err(Error::Empty)));
        }
        drop((give, next));
        for _ in 0..CHANNELS {
            assert!(matches!(set.recv(), Ok((_, Err(Error::Disconnected)))));
        }
        assert!(set.is_empty());
        drop(set);
        other.join();
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_thousand_processes_share_one_channel_of_jobs() {
    in_own_process(|| {
        const JOBS: usize = 20_000;
        let (job, jobs) = channel::<usize>().unwrap();
        let (done, all_done) = channel::<(usize, i32)>().unwrap();
        let (leave, may_leave) = channel::<()>().unwrap();
        let (mut job, mut leave) = (Some(job), Some(leave));
        let workers: Vec<Forked> = (0..1000)
            .map(|_| {
                forked(|| {
                    (job, leave) = (None, None);
                    let pid = nix::unistd::getpid().as_raw();
                    for number in &jobs {
                        done.send((number.unwrap(), pid)).unwrap();
                    }
                    // All stay to the end, so that all are there at the same time.
                    assert!(matches!(may_leave.recv(), Err(Error::Disconnected)));
                })
            })
            .collect();
        drop((jobs, done, may_leave));
        let job = job.take().unwrap();
        let feeder = forked(|| (0..JOBS).for_each(|number| job.send(number).unwrap()));
        drop(job);

        let mut times = vec![0; JOBS];
        let mut by_worker: HashMap<i32, usize> = workers
            .iter()
            .map(|worker| (worker.pid.as_raw(), 0))
            .collect();
        for _ in 0..JOBS {
            let (number, pid) = all_done.recv().unwrap();
            times[number] += 1;
            *by_worker.get_mut(&pid).unwrap() += 1;
        }
        assert!(times.iter().all(|&times| times == 1));
        drop(leave);
        feeder.join();
        workers.into_iter().for_each(Forked::join);
        assert!(matches!(all_done.recv(), Err(Error::Disconnected)));
        let busy = by_worker.values().filter(|&&jobs| jobs > 0).count();
        println!("{busy} of 1,000 processes had a job");
    });
}

/// A text that no other has: its number, and noise that goes with it.
fn numbered(number: u64, len: usize) -> String {
    let mut random = Random::new(number);
    let mut text = format!("{number} ");
    while text.len() < len {
        text.push_str(&format!("{:016x}", random.next()));
    }
    text.truncate(len);
    text
}

/// Sends so many bytes of text from one process to another, in messages of 1 MB and of 1 KB.
fn transfer(bytes: usize) {
    let (tx, rx) = channel::<(u64, String)>().unwrap();
    let len = |number: u64| if number % 2 == 0 { 1_000_000 } else { 1_000 };
    let count = 2 * bytes as u64 / (len(0) + len(1)) as u64;
    let texts = [0, 1].map(|number| numbered(number, len(number)));
    let text = |number: u64| &texts[usize::from(number % 2 == 1)];
    let sender = forked(|| {
        let mut message = (0, String::new());
        for number in 0..count {
            message.0 = number;
            message.1.clone_from(text(number));
            tx.by_ref().send(&message).unwrap();
        }
    });
    drop(tx);
    let mut total = 0;
    for number in 0..count {
        let (found, received) = rx.recv().unwrap();
        assert_eq!(found, number);
        assert!(received == *text(number));
        total += received.len();
    }
    assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    sender.join();
    println!("{total} bytes in {count} messages");
}

#[test]
fn fifty_megabytes_go_through_one_channel() {
    in_own_process(|| transfer(50_000_000));
}

#[test]
#[ignore = "the long form of `fifty_megabytes_go_through_one_channel`"]
fn a_gigabyte_goes_through_one_channel() {
    in_own_process(|| transfer(1_000_000_000));
}

/// Stops a receiver, by a signal, while four processes send to it. Each message arrives once it goes on.
fn stopped_for(duration: Duration) {
    const SENDERS: usize = 4;
    const MESSAGES: u64 = 1000; // many more than the channel has room for
    fn text(number: u64) -> String {
        numbered(number, usize::try_from(20 + number % 500).unwrap())
    }
    let (tx, rx) = channel::<(usize, u64, String)>().unwrap();
    let (ready, is_ready) = channel::<()>().unwrap();
    let receiver = forked(|| {
        ready.send(()).unwrap();
        let mut next = [0; SENDERS];
        for _ in 0..SENDERS as u64 * MESSAGES {
            let (sender, number, received) = rx.recv().unwrap();
            assert_eq!(number, next[sender]);
            assert_eq!(received, text(number));
            next[sender] += 1;
        }
    });
    is_ready.recv().unwrap();
    kill(receiver.pid, Signal::SIGSTOP).unwrap();
    let stopped = waitpid(receiver.pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert_eq!(stopped, WaitStatus::Stopped(receiver.pid, Signal::SIGSTOP));

    let senders: Vec<Forked> = (0..SENDERS)
        .map(|sender| {
            let tx = &tx;
            forked(move || {
                for number in 0..MESSAGES {
                    tx.send((sender, number, text(number))).unwrap();
                }
            })
        })
        .collect();
    assert!(!ends_within(duration, senders[0].pid));
    for sender in &senders {
        assert!(!ends_within(Duration::ZERO, sender.pid));
    }
    kill(receiver.pid, Signal::SIGCONT).unwrap();
    senders.into_iter().for_each(Forked::join);
    receiver.join();
    assert!(matches!(rx.try_recv(), Err(Error::Empty)));
}

#[test]
fn a_stopped_receiver_holds_its_senders_back_and_loses_nothing() {
    in_own_process(|| stopped_for(Duration::from_millis(300)));
}

#[test]
#[ignore = "the long form of `a_stopped_receiver_holds_its_senders_back_and_loses_nothing`"]
fn a_receiver_stopped_for_a_minute_holds_its_senders_back_and_loses_nothing() {
    in_own_process(|| stopped_for(Duration::from_secs(60)));
}

#[derive(Serialize, Deserialize)]
struct Fd(#[serde(with = "wormhole::fd")] OwnedFd);

#[test]
fn a_thousand_messages_carry_253_descriptors_each() {
    in_own_process(|| {
        // With a small buffer few messages are on their way at a time: what a user has in flight is limited.
        let (tx, rx) = Options::new().buffer(1).channel::<Vec<Fd>>().unwrap();
        let files: Vec<Fd> = (0..253)
            .map(|_| Fd(memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap()))
            .collect();
        let inodes = |fds: &[Fd]| -> Vec<u64> {
            let inode = |Fd(fd): &Fd| fstat(fd.as_fd()).unwrap().st_ino;
            fds.iter().map(inode).collect()
        };
        let expected = inodes(&files);
        let sender = forked(|| (0..1000).for_each(|_| tx.by_ref().send(&files).unwrap()));
        drop((tx, files));
        let before = open_fds();
        for _ in 0..1000 {
            assert_eq!(inodes(&rx.recv().unwrap()), expected);
        }
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        assert_eq!(open_fds(), before);
        sender.join();
    });
}

/// How much memory files without a disk take up on this machine, in kB. Others may change it meanwhile.
fn shmem() -> i64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = info.lines().find(|line| line.starts_with("Shmem:"));
    let value = line.unwrap().split_whitespace().nth(1).unwrap();
    value.parse().unwrap()
}

#[test]
fn spilled_messages_queue_up_no_further_than_the_buffer() {
    in_own_process(|| {
        let long = "x".repeat(10_000_000);
        let fill = |tx: &Sender<String>| -> usize {
            let sent = std::iter::from_fn(|| tx.by_ref().try_send(&long).ok());
            sent.count()
        };
        let drain = |rx: &Receiver<String>| -> usize {
            let received = rx.try_iter().map(Result::unwrap);
            received
                .filter(|message| message.len() == long.len())
                .count()
        };
        // One takes up all of a buffer of up to 256 KiB by itself, but is let in as long as there is room.
        let (tx, rx) = channel().unwrap();
        let before = shmem();
        assert_eq!(fill(&tx), 1);
        println!(
            "one of 10 MB behind a receiver that does nothing: {} kB of memory",
            shmem() - before
        );
        assert_eq!(drain(&rx), 1);
        tx.send("short".to_owned()).unwrap();
        assert_eq!((fill(&tx), drain(&rx)), (1, 1));
        for _ in 0..200 {
            tx.send("short".to_owned()).unwrap();
        }
        assert_eq!((fill(&tx), drain(&rx)), (1, 1));

        // A larger one has room for as many as there are times 256 KiB in it. The kernel doubles the number.
        let Ok((tx, rx)) = Options::new().buffer(1 << 20).channel() else {
            eprintln!("skipped: net.core.wmem_max allows no such buffer");
            return;
        };
        let sent = fill(&tx);
        assert!((2..=8).contains(&sent), "{sent}");
        assert_eq!(drain(&rx), sent);
    });
}
