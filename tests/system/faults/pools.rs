//! The workloads of pools: whatever fails, each job has exactly one outcome, and the pool goes on.

use nix::poll::PollFlags;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use wormhole::{Error, JobError, JobId, Pool};

use super::strace::marked;
use super::work::{LONG, fault_is, no_child_is_left, nothing_leaks, told, used};
use crate::support::{becomes_ready, ends_within, open_fds};

type Received = Result<(JobId, Result<u32, JobError>), Error>;

const DEATH: u32 = 13;

fn twice(number: u32) -> u32 {
    match number {
        DEATH => std::process::exit(1),
        number => number * 2,
    }
}

/// strace counts in each process by itself. So this one makes more calls before it begins than a worker makes at all.
fn make_calls() {
    (0..8).for_each(|_| drop(used()));
}

/// What a pool gave, as the table has it.
fn told_of(received: &Received) -> String {
    match received {
        Ok((_, Ok(_))) => "ok".to_owned(),
        Ok((_, Err(JobError::Died { end, .. }))) => format!("died: {end}"),
        Ok((_, Err(JobError::Undelivered { reason }))) => format!("undelivered: {reason}"),
        Ok((_, Err(error))) => error.to_string(),
        Err(_) => told(received),
    }
}

/// Checks that of these jobs exactly those have had an outcome, or have it now, and that the pool goes on.
fn goes_on(mut pool: Pool<u32, u32>, submitted: &[JobId], received: &[&Received]) {
    let had = received.iter().flat_map(|received| received.iter());
    let mut had: Vec<JobId> = had.map(|(id, _)| *id).collect();
    while had.len() < submitted.len() {
        had.push(pool.recv_timeout(LONG).unwrap().0);
    }
    had.sort_unstable();
    assert_eq!(had, submitted);
    assert!(matches!(pool.recv_timeout(LONG), Err(Error::Disconnected)));
    let id = pool.submit_timeout(21, LONG).unwrap();
    assert_eq!(pool.recv_timeout(LONG).unwrap(), (id, Ok(42)));
    pool.finish().unwrap();
    no_child_is_left();
}

pub(super) fn start_a_pool() -> String {
    make_calls();
    let before = open_fds();
    let started = marked(|| Pool::new(2, twice));
    let told = told(&started);
    match started {
        Ok(pool) => goes_on(pool, &[], &[]),
        Err(_) => no_child_is_left(),
    }
    nothing_leaks(&before);
    told
}

pub(super) fn job_of_a_pool() -> String {
    make_calls();
    let before = open_fds();
    let mut pool = Pool::new(1, twice).unwrap();
    let submitted = marked(|| pool.submit(2));
    let told = match submitted {
        Err(_) => {
            goes_on(pool, &[], &[]);
            told(&submitted)
        }
        Ok(id) => {
            assert!(becomes_ready(&pool, PollFlags::POLLIN, LONG));
            let received = marked(|| pool.recv());
            goes_on(pool, &[id], &[&received]);
            told_of(&received)
        }
    };
    nothing_leaks(&before);
    told
}

/// The workers' calls fail, the same one in each of them, and that of the same number in their parent: a job that was
/// submitted has its outcome whatever it is, and nothing takes forever.
pub(super) fn child_of_a_pool() -> String {
    let before = open_fds();
    if let Ok(mut pool) = Pool::new(1, twice) {
        match pool.submit_timeout(2, LONG) {
            Ok(id) => {
                let mut received = pool.recv_timeout(LONG);
                if matches!(received, Err(Error::Io { .. })) {
                    received = pool.recv_timeout(LONG);
                }
                assert_eq!(received.unwrap().0, id);
            }
            Err(Error::Child { .. } | Error::Io { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(matches!(pool.try_recv(), Err(Error::Disconnected)));
    }
    no_child_is_left();
    nothing_leaks(&before);
    "ok".to_owned()
}

pub(super) fn death_in_a_pool() -> String {
    make_calls();
    let before = open_fds();
    let mut pool = Pool::new(1, twice).unwrap();
    let worker = Pid::from_raw(pool.workers()[0].try_into().unwrap());
    let mut submitted = vec![pool.submit(DEATH).unwrap()];
    assert!(ends_within(LONG, worker));
    let (first, second) = marked(|| (pool.recv(), pool.submit(2)));
    submitted.extend(second.as_ref().ok());
    let told = match &second {
        Err(_) if first.is_ok() => told(&second),
        _ => told_of(&first),
    };
    goes_on(pool, &submitted, &[&first]);
    nothing_leaks(&before);
    told
}

pub(super) fn cancel_in_a_pool() -> String {
    fn hang(_: u32) -> u32 {
        loop {
            nix::unistd::pause();
        }
    }
    make_calls();
    let before = open_fds();
    let mut pool = Pool::new(1, hang).unwrap();
    let worker = Pid::from_raw(pool.workers()[0].try_into().unwrap());
    let id = pool.submit(1).unwrap();
    let cancelled = marked(|| pool.cancel(id));
    let outcome = pool.recv_timeout(LONG);
    assert!(matches!(&outcome, Ok((of, Err(_))) if *of == id));
    let told = match cancelled {
        Ok(()) => told_of(&outcome),
        Err(_) => told(&cancelled),
    };
    assert!(matches!(pool.recv_timeout(LONG), Err(Error::Disconnected)));
    drop(pool);
    if fault_is("pidfd_send_signal") {
        kill(worker, Signal::SIGKILL).unwrap(); // it was left to itself
        waitpid(worker, None).unwrap();
    }
    no_child_is_left();
    nothing_leaks(&before);
    told
}
