//! `Pool`: jobs for worker processes that may die of them.

mod answer;
mod crew;
mod hand;
mod map;
mod options;
mod outcome;
mod settings;
mod watch;
mod worker;

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::process;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::crew::{Crew, Outcome};
use crate::error::{Error, Result};
use crate::options::DEFAULT_SPIN;
use crate::wait::{Spin, Spinning, Wait};

pub use map::Map;
pub use options::PoolOptions;
pub use outcome::{JobError, JobId};

/// Worker processes that do jobs, and that may crash, hang, leak or be killed while they do.
///
/// Each worker has one job at a time, on a channel of its own. So the death of a worker costs exactly the job that it was
/// at, and it is known which; another worker takes its place. **Every job has exactly one outcome**: its result, or a
/// [`JobError`] that says what happened. A panic fails the job, not the worker. No job is tried twice.
///
/// The pool has no threads: what there is to do is done while its methods are called. It is [`AsFd`], readable when
/// [`try_recv`](Self::try_recv) has something to do, so it can be an arm of [`select!`](crate::select!).
///
/// Jobs and results are messages: they may hold channel ends, descriptors and blobs. A result nests at most 126 levels
/// deep. Forked workers have, other than
/// the child of a [`spawn`](crate::spawn()), no descriptor of this process but the standard streams
/// ([`Builder::only_arguments`](crate::process::Builder::only_arguments)). In programs with threads, where none could take
/// the place of a forked worker that dies, and where that is too close still, [`PoolOptions::fresh`] starts them as fresh
/// copies of the program, and [`PoolOptions::command`] as other programs.
///
/// Dropping it kills the workers, and reaps them; [`finish`](Self::finish) waits for what was submitted. When this process
/// is killed, idle workers end at once, and the others after their job, or at once with
/// [`PoolOptions::end_with_parent`].
///
/// # Examples
///
/// ```
/// use wormhole::{ChildEnd, JobError, Pool};
///
/// fn divide((a, b): (u32, u32)) -> u32 {
///     if a == 13 {
///         std::process::abort();
///     }
///     a / b
/// }
///
/// let mut pool = Pool::new(2, divide)?;
/// let jobs = [(84, 2), (1, 0), (13, 1), (9, 3)];
/// let results: Vec<_> = pool.map(jobs).map(|(_, result)| result).collect();
/// assert_eq!(results[0], Ok(42));
/// assert!(matches!(&results[1], Err(JobError::Panicked { message, .. }) if message.contains("zero")));
/// assert!(matches!(results[2], Err(JobError::Died { end: ChildEnd::Killed { signal: 6, .. }, .. })));
/// assert_eq!(results[3], Ok(3));
///
/// // Or as they finish.
/// let first = pool.submit((1, 1))?;
/// let second = pool.submit((6, 1))?;
/// for (id, result) in pool.finish()? {
///     assert_eq!(result, Ok(if id == first { 1 } else { 6 }));
///     assert!(id == first || id == second);
/// }
/// # Ok::<(), wormhole::Error>(())
/// ```
pub struct Pool<J, R> {
    crew: Crew<J, R>,
    spin: Spin,
    /// Outcomes that came while a `map` waited for others.
    aside: VecDeque<Outcome<R>>,
    /// Jobs whose outcomes are not wanted any more.
    forgotten: HashSet<JobId>,
    /// The process that has started it. In a copy of that, made by a fork, the workers are not its own.
    owner: u32,
}

impl<J, R> Pool<J, R> {
    fn new_with(crew: Crew<J, R>) -> Self {
        Pool {
            crew,
            spin: Spin::new(DEFAULT_SPIN),
            aside: VecDeque::new(),
            forgotten: HashSet::new(),
            owner: process::id(),
        }
    }

    /// Returns the process ids of the workers, of those too that have just ended or are about to.
    pub fn workers(&self) -> Vec<u32> {
        let hands = self.crew.places.iter().flatten();
        hands.map(|hand| hand.process.pid()).collect()
    }

    fn has_outcomes(&self) -> bool {
        !self.aside.is_empty() || !self.crew.outcomes.is_empty()
    }
}

impl<J, R> Pool<J, R>
where
    J: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    /// Gives a job to a worker, and returns its id.
    ///
    /// Blocks while all workers are busy, or have not started yet; results that come meanwhile are kept for
    /// [`recv`](Self::recv), up to a [limit](PoolOptions::keep). `Ok` means that a worker has it in its channel.
    ///
    /// # Errors
    ///
    /// The job is dropped and has no outcome:
    ///
    /// - [`Error::Full`]: there are as many outcomes as the pool keeps. Receive some.
    /// - [`Error::Encode`], [`Error::TooLarge`], [`Error::TooManyFds`], [`Error::TooManyFdsInFlight`]: it cannot be sent, as
    ///   in [`Sender::send`](crate::Sender::send).
    /// - [`Error::Child`]: three workers in a row have died before they started, of which this is the last. The pool starts
    ///   no more.
    /// - [`Error::Io`], [`Error::MultiThreaded`]: no worker is left, and none can be started: no memory or processes, say.
    ///   Submitting it again tries again.
    pub fn submit(&mut self, job: J) -> Result<JobId> {
        self.submit_within(&job, Wait::Forever)
    }

    /// Gives a job to a worker if one is free. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] when no worker is free, or none has started yet, otherwise as [`submit`](Self::submit).
    pub fn try_submit(&mut self, job: J) -> Result<JobId> {
        self.submit_within(&job, Wait::Never)
    }

    /// Gives a job to a worker, and waits for one for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when no worker became free in time, otherwise as [`submit`](Self::submit).
    pub fn submit_timeout(&mut self, job: J, timeout: Duration) -> Result<JobId> {
        self.submit_within(&job, Wait::at_most(timeout))
    }

    /// As [`submit`](Self::submit) and leaves the job to the caller, for whom it is there if it fails.
    ///
    /// # Errors
    ///
    /// As [`submit`](Self::submit).
    pub fn submit_ref(&mut self, job: &J) -> Result<JobId> {
        self.submit_within(job, Wait::Forever)
    }

    /// As [`try_submit`](Self::try_submit) and leaves the job to the caller, for whom it is there if no worker is free.
    ///
    /// # Errors
    ///
    /// As [`try_submit`](Self::try_submit).
    pub fn try_submit_ref(&mut self, job: &J) -> Result<JobId> {
        self.submit_within(job, Wait::Never)
    }

    fn submit_within(&mut self, job: &J, wait: Wait) -> Result<JobId> {
        if self.is_full() {
            return Err(Error::Full);
        }
        self.give_out(job, wait)
    }

    /// Whether it keeps as many outcomes as it may.
    fn is_full(&mut self) -> bool {
        let keep = self.crew.settings.keep.saturating_sub(self.aside.len());
        let outcomes = &mut self.crew.outcomes;
        if outcomes.len() >= keep && !self.forgotten.is_empty() {
            outcomes.retain(|(id, _)| !self.forgotten.remove(id));
        }
        outcomes.len() >= keep
    }

    fn give_out(&mut self, job: &J, wait: Wait) -> Result<JobId> {
        let submitted = self.crew.submit(job, wait);
        self.crew.watch.set_outcomes(self.has_outcomes());
        // For whoever waits for the descriptor next. It only fails if there is no timer.
        let _ = self.crew.set_alarm();
        submitted
    }

    /// Begins to give a job to a worker, for an event loop.
    #[cfg(any(feature = "tokio", feature = "async-io"))]
    pub(crate) fn submission(&mut self) -> Submission<'_, J, R> {
        Submission { pool: self }
    }

    /// Waits for the next outcome, in the order in which jobs finish.
    ///
    /// # Errors
    ///
    /// - [`Error::Disconnected`]: no job is left that has no outcome. Submit more.
    /// - [`Error::Io`], [`Error::MultiThreaded`]: no worker is left, and none can be started, although there are jobs. The
    ///   next call tries again.
    pub fn recv(&mut self) -> Result<(JobId, Result<R, JobError>)> {
        self.recv_within(Wait::Forever)
    }

    /// Returns an outcome if there is one. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`] when no job has finished, otherwise as [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<(JobId, Result<R, JobError>)> {
        self.recv_within(Wait::Never)
    }

    /// Waits for the next outcome, for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when no job has finished in time, otherwise as [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<(JobId, Result<R, JobError>)> {
        self.recv_within(Wait::at_most(timeout))
    }

    fn recv_within(&mut self, wait: Wait) -> Result<Outcome<R>> {
        if let Some(outcome) = self.aside.pop_front() {
            self.crew.watch.set_outcomes(self.has_outcomes());
            return Ok(outcome);
        }
        match self.next_outcome(wait, false) {
            Ok(Some(outcome)) => Ok(outcome),
            Ok(None) => Err(Error::Empty), // only comes to whom it asks for
            Err(error) => Err(error),
        }
    }

    /// Waits for the next outcome or, if `or_free`, until a worker is free.
    fn next_outcome(&mut self, wait: Wait, or_free: bool) -> Result<Option<Outcome<R>>> {
        let next = self.seek(wait, or_free);
        // A death is made up for at once, and not only when the next job comes.
        let settled = self.crew.settle();
        self.crew.watch.set_outcomes(self.has_outcomes());
        match next {
            Err(Error::Empty) => settled.and(next),
            next => next,
        }
    }

    fn seek(&mut self, wait: Wait, or_free: bool) -> Result<Option<Outcome<R>>> {
        let mut spinning = None;
        let mut is_last = false;
        loop {
            while let Some(outcome) = self.crew.outcomes.pop_front() {
                if self.forgotten.is_empty() || !self.forgotten.remove(&outcome.0) {
                    if let Some(spinning) = &spinning {
                        Spinning::learn(spinning, &self.spin);
                    }
                    return Ok(Some(outcome));
                }
            }
            let tended = self.crew.tend();
            if !or_free && self.crew.is_idle() {
                return Err(Error::Disconnected);
            }
            tended?;
            if or_free && (self.crew.has_free_place() || self.crew.is_lost() && self.crew.is_idle())
            {
                return Ok(None);
            }
            if !self.crew.outcomes.is_empty() {
                continue;
            }
            if is_last {
                return Err(Error::Empty);
            }
            self.crew.look()?;
            if !self.crew.outcomes.is_empty() {
                continue;
            }
            if matches!(wait, Wait::Never) {
                self.crew.sleep(wait)?;
                is_last = true;
                continue;
            }
            let spins = spinning.get_or_insert_with(|| Spinning::new([&self.spin]));
            if spins.goes_on(wait) {
                std::thread::yield_now();
            } else {
                self.crew.sleep(wait)?;
            }
        }
    }

    /// Gives up a job. Its outcome is [`JobError::Cancelled`], unless it has another one already.
    ///
    /// The worker that is at it is killed, and another one started. Never blocks; the outcome comes as any other.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv) when workers cannot be started; the job is cancelled nevertheless.
    pub fn cancel(&mut self, id: JobId) -> Result<()> {
        self.crew.cancel(id);
        let settled = self.crew.settle();
        self.crew.watch.set_outcomes(self.has_outcomes());
        settled
    }

    /// Returns how many jobs there are whose outcome was not received. Those that a [`map`](Self::map) has left behind do
    /// not count.
    pub fn pending(&self) -> usize {
        self.crew.pending() + self.aside.len() - self.forgotten.len()
    }

    /// Waits for all jobs, and for the workers to end, and returns the outcomes that were not received.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv). The workers are killed then.
    pub fn finish(mut self) -> Result<Vec<(JobId, Result<R, JobError>)>> {
        let mut outcomes = Vec::new();
        loop {
            match self.recv() {
                Ok(outcome) => outcomes.push(outcome),
                Err(Error::Disconnected) => break,
                Err(error) => return Err(error),
            }
        }
        self.crew.disband()?;
        Ok(outcomes)
    }
}

/// A job that an event loop gives to a worker as soon as one is free.
#[cfg(any(feature = "tokio", feature = "async-io"))]
#[derive(Debug)]
pub(crate) struct Submission<'p, J, R> {
    pool: &'p mut Pool<J, R>,
}

#[cfg(any(feature = "tokio", feature = "async-io"))]
impl<J, R> Submission<'_, J, R>
where
    J: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    /// Makes an attempt. `Empty` means that the pool's descriptor is readable when it is time for another one.
    pub(crate) fn attempt(&mut self, job: &J) -> Result<JobId> {
        let pool = &mut *self.pool;
        match pool.submit_within(job, Wait::Never) {
            Err(Error::Full) if !pool.is_full() => {
                // Those that are there already would make it readable all the time.
                pool.crew.watch.set_outcomes(false);
                Err(Error::Empty)
            }
            submitted => submitted,
        }
    }
}

#[cfg(any(feature = "tokio", feature = "async-io"))]
impl<J, R> Drop for Submission<'_, J, R> {
    fn drop(&mut self) {
        let has_outcomes = self.pool.has_outcomes();
        self.pool.crew.watch.set_outcomes(has_outcomes);
    }
}

impl<J, R> Drop for Pool<J, R> {
    fn drop(&mut self) {
        if process::id() == self.owner {
            self.crew.kill();
        }
    }
}

impl<J, R> AsFd for Pool<J, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.crew.watch.as_fd()
    }
}

impl<J, R> AsRawFd for Pool<J, R> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<J, R> fmt::Debug for Pool<J, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("workers", &self.workers())
            .field("fd", &self.as_fd().as_raw_fd())
            .finish_non_exhaustive()
    }
}
