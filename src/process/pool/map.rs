//! The results of many jobs, in order.

use std::collections::VecDeque;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Pool;
use super::outcome::{JobError, JobId};
use crate::error::Error;
use crate::wait::Wait;

impl<J, R> Pool<J, R>
where
    J: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    /// Works through jobs, and gives each with its result, in order.
    ///
    /// Takes jobs as workers become free, and runs ahead of what it gives back by at most four times as many jobs as the
    /// workers can have ([`ahead`](crate::PoolOptions::ahead) included). So an endless iterator will do, and one that makes
    /// its jobs as they are asked for. Outcomes of jobs that were submitted before are kept for [`recv`](Self::recv).
    ///
    /// It keeps each job until it gives it back, with the ends and descriptors in it: to move these into the worker, use
    /// [`submit`](Self::submit). What [`submit`](Self::submit) says as an [`Error`], it gives as
    /// [`JobError::Undelivered`].
    pub fn map<I>(&mut self, jobs: I) -> Map<'_, I::IntoIter, R>
    where
        I: IntoIterator<Item = J>,
    {
        Map::new(self, jobs.into_iter())
    }
}

/// The jobs that a [`Pool`] works through, each with its result, in order: [`Pool::map`].
///
/// If it is dropped before its end, jobs that were submitted are worked on, and their outcomes forgotten.
#[must_use = "an iterator does nothing unless it is used"]
pub struct Map<'p, I: Iterator, R>
where
    I::Item: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    pool: &'p mut Pool<I::Item, R>,
    jobs: std::iter::Fuse<I>,
    /// Those that were submitted, and the one after them, which no worker could take.
    window: VecDeque<Slot<I::Item, R>>,
}

struct Slot<J, R> {
    job: J,
    state: State<R>,
}

enum State<R> {
    Waiting,
    Submitted(JobId),
    Done(Result<R, JobError>),
}

impl<'p, I: Iterator, R> Map<'p, I, R>
where
    I::Item: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    pub(super) fn new(pool: &'p mut Pool<I::Item, R>, jobs: I) -> Self {
        Map {
            pool,
            jobs: jobs.fuse(),
            window: VecDeque::new(),
        }
    }

    /// Submits jobs for as long as workers take them.
    fn fill(&mut self) {
        loop {
            let is_waiting = |slot: &Slot<_, _>| matches!(slot.state, State::Waiting);
            if !self.window.back().is_some_and(is_waiting) {
                let options = &self.pool.crew.settings;
                let in_hand = options.ahead.saturating_add(1);
                let in_hand = options.workers.saturating_mul(in_hand);
                if self.window.len() >= in_hand.saturating_mul(4) {
                    return;
                }
                let Some(job) = self.jobs.next() else {
                    return;
                };
                let state = State::Waiting;
                self.window.push_back(Slot { job, state });
            }
            let Some(slot) = self.window.back_mut() else {
                return;
            };
            match self.pool.give_out(&slot.job, Wait::Never) {
                Ok(id) => slot.state = State::Submitted(id),
                Err(Error::Full) => return,
                Err(error) => slot.state = State::Done(Err(JobError::undelivered(&error))),
            }
        }
    }
}

impl<I: Iterator, R> Iterator for Map<'_, I, R>
where
    I::Item: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    type Item = (I::Item, Result<R, JobError>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.fill();
            let first = self.window.front()?;
            if let State::Done(_) = first.state {
                let Slot { job, state } = self.window.pop_front()?;
                if let State::Done(result) = state {
                    return Some((job, result));
                }
                continue;
            }
            let is_waiting = |slot: &Slot<_, _>| matches!(slot.state, State::Waiting);
            let has_more = self.window.back().is_some_and(is_waiting);
            match self.pool.next_outcome(Wait::Forever, has_more) {
                Ok(Some((id, result))) => match self.window.iter_mut().find(|slot| slot.is(id)) {
                    Some(slot) => slot.state = State::Done(result),
                    None => self.pool.aside.push_back((id, result)),
                },
                Ok(None) => {}
                Err(error) => {
                    if let Some(first) = self.window.front_mut() {
                        let done = State::Done(Err(JobError::undelivered(&error)));
                        if let State::Submitted(id) = std::mem::replace(&mut first.state, done) {
                            self.pool.forgotten.insert(id);
                        }
                    }
                }
            }
        }
    }
}

impl<J, R> Slot<J, R> {
    fn is(&self, id: JobId) -> bool {
        matches!(self.state, State::Submitted(own) if own == id)
    }
}

impl<I: Iterator, R> Drop for Map<'_, I, R>
where
    I::Item: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    fn drop(&mut self) {
        let ids = self.window.iter().filter_map(|slot| match slot.state {
            State::Submitted(id) => Some(id),
            _ => None,
        });
        self.pool.forgotten.extend(ids);
    }
}

impl<I: Iterator, R> fmt::Debug for Map<'_, I, R>
where
    I::Item: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").finish_non_exhaustive()
    }
}
