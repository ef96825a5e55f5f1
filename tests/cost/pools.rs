//! A pool that waits uses no processor.

use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use wormhole::process::Failure;
use wormhole::{Pool, PoolOptions, Receiver, Sender, channel};

use super::is_asleep;
use super::support::{DEADLINE, forked, in_own_process};

/// Waits until something holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// Checks that a process that has nothing to do does nothing.
fn falls_asleep(pid: Pid) {
    let pid = pid.as_raw().unsigned_abs();
    until("it never sleeps", || is_asleep(pid));
}

/// Tells that it has begun, and waits for a word.
type Job = (Sender<()>, Option<Receiver<()>>, String);

fn work((begun, go, _): Job) {
    begun.send(()).unwrap();
    if let Some(go) = go {
        go.recv().unwrap();
    }
}

#[test]
fn a_map_sleeps_while_its_workers_have_no_room_for_the_next_job() {
    in_own_process(|| {
        let (begun, begins) = channel().unwrap();
        let (go, goes) = channel().unwrap();
        let mapper = forked(|| {
            let mut pool = PoolOptions::new(1).ahead(3).run(work).unwrap();
            // One of them fills the channel.
            let job = |_| (begun.clone(), Some(goes.clone()), "x".repeat(400_000));
            let results = pool.map((0..5).map(job));
            assert_eq!(results.filter(|(_, result)| result.is_ok()).count(), 5);
        });
        begins.recv_timeout(DEADLINE).unwrap();
        falls_asleep(mapper.pid);
        for _ in 0..5 {
            go.send(()).unwrap();
        }
        mapper.join();
    });
}

#[test]
fn a_map_sleeps_while_outcomes_of_other_jobs_are_put_aside() {
    in_own_process(|| {
        let (begun, begins) = channel().unwrap();
        let (go, goes) = channel().unwrap();
        let mapper = forked(|| {
            let mut pool = Pool::new(1, work).unwrap();
            pool.submit((begun.clone(), None, String::new())).unwrap();
            let jobs = [None, Some(goes)].map(|go| (begun.clone(), go, String::new()));
            let results = pool.map(jobs);
            assert_eq!(results.filter(|(_, result)| result.is_ok()).count(), 2);
            assert_eq!(pool.recv().unwrap().1, Ok(()));
        });
        // The worker has no job ahead: when it is at the last, the pool has heard of the others.
        for _ in 0..3 {
            begins.recv_timeout(DEADLINE).unwrap();
        }
        falls_asleep(mapper.pid);
        go.send(()).unwrap();
        mapper.join();
    });
}

#[test]
fn a_submit_sleeps_while_outcomes_are_kept() {
    in_own_process(|| {
        let (begun, begins) = channel().unwrap();
        let (go, goes) = channel().unwrap();
        let submitter = forked(|| {
            let mut pool = Pool::new(1, work).unwrap();
            for go in [None, Some(goes.clone()), Some(goes)] {
                pool.submit((begun.clone(), go, String::new())).unwrap();
            }
            assert_eq!(pool.finish().unwrap().len(), 3);
        });
        // The worker is at the second job, so the outcome of the first is kept, and the third is waited with.
        for _ in 0..2 {
            begins.recv_timeout(DEADLINE).unwrap();
        }
        falls_asleep(submitter.pid);
        for _ in 0..2 {
            go.send(()).unwrap();
        }
        submitter.join();
    });
}

#[test]
fn a_pool_sleeps_that_starts_no_more_workers_but_has_one() {
    fn starts(fates: &Receiver<bool>) -> Result<(), Failure> {
        match fates.recv()? {
            true => Ok(()),
            false => std::process::exit(4),
        }
    }
    fn works((): &mut (), job: Job) {
        work(job);
    }
    in_own_process(|| {
        let (fate, fates) = channel().unwrap();
        let (begun, begins) = channel().unwrap();
        let (go, goes) = channel().unwrap();
        let (limit, limited) = channel().unwrap();
        let waiter = forked(|| {
            let mut pool = PoolOptions::new(4).start(fates, starts, works).unwrap();
            let id = pool.submit((begun, Some(goes), String::new())).unwrap();
            // No descriptor can be opened, those that the dead leave free included.
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
            limit.send(()).unwrap();
            assert_eq!(pool.recv().unwrap(), (id, Ok(())));
        });
        fate.send(true).unwrap();
        begins.recv_timeout(DEADLINE).unwrap();
        limited.recv_timeout(DEADLINE).unwrap();
        for _ in 0..3 {
            fate.send(false).unwrap();
        }
        let path = format!("/proc/{0}/task/{0}/children", waiter.pid);
        until("the dead are reaped", || {
            let children = std::fs::read_to_string(&path).unwrap();
            children.split_whitespace().count() == 1
        });
        falls_asleep(waiter.pid);
        go.send(()).unwrap();
        waiter.join();
    });
}
