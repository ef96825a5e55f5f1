//! A job, what is done for it, and its result.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::random::Random;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) number: u64,
    pub(crate) seed: u64,
    pub(crate) load: String,
}

/// A result, and who has done it when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) job: u64,
    /// What only a worker can know that has read the whole job.
    pub(crate) sum: u64,
    pub(crate) worker: u32,
    pub(crate) bridge: u32,
    /// On the clock of `now`, which all processes share. No worker begins two jobs at once.
    pub(crate) begun: u64,
}

impl Job {
    /// The job of that number. Most are short, some are longer than a packet takes.
    pub(crate) fn new(seed: u64, number: u64) -> Job {
        let mut random = Random::of(&[seed, number, 7]);
        let length = match random.below(100) {
            0 => random.between(50_000, 400_000),
            1..10 => random.between(300, 10_000),
            _ => random.below(300),
        };
        let letter = char::from(b'a' + u8::try_from(random.below(26)).unwrap_or(0));
        Job {
            number,
            seed: random.next(),
            load: (0..length).map(|_| letter).collect(),
        }
    }

    pub(crate) fn sum(&self) -> u64 {
        let bytes = self.load.bytes().map(u64::from);
        bytes.fold(self.seed ^ self.number, |sum, byte| {
            sum.rotate_left(5).wrapping_mul(0x100_0000_01b3) ^ byte
        })
    }
}

/// What a worker does: its job, unless it dies of it.
pub(crate) fn work(job: Job) -> Done {
    static JOBS: AtomicU64 = AtomicU64::new(0);
    let begun = now();
    let count = JOBS.fetch_add(1, Ordering::Relaxed);
    let worker = std::process::id();
    // Not of the job alone: it would kill all its workers.
    let mut random = Random::of(&[job.seed, worker.into(), count, begun]);
    match random.below(1000) {
        0..2 => std::process::abort(),
        2..4 => std::process::exit(3),
        4..300 => std::thread::sleep(Duration::from_micros(random.below(5000))),
        _ => {}
    }
    Done {
        job: job.number,
        sum: job.sum(),
        worker,
        bridge: std::os::unix::process::parent_id(),
        begun,
    }
}

/// Nanoseconds of a clock that all processes of the machine share.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let parts = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    match parts {
        (Ok(seconds), Ok(nanoseconds)) => seconds * 1_000_000_000 + nanoseconds,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_is_cut_has_another_sum() {
        let job = Job {
            number: 1,
            seed: 2,
            load: "abc".to_owned(),
        };
        let cut = Job {
            load: "ab".to_owned(),
            ..job.clone()
        };
        let other = Job {
            number: 2,
            ..job.clone()
        };
        assert_ne!(job.sum(), cut.sum());
        assert_ne!(job.sum(), other.sum());
    }
}
