//! One worker, as its pool sees it.

use std::collections::VecDeque;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::Answer;
use super::outcome::{JobError, JobId};
use crate::channel::{Receiver, Sender};
use crate::error::{ChildEnd, Error, Result};
use crate::process::handle::Process;

/// A job that a worker has, or that lies before it.
#[derive(Debug)]
pub(super) struct InHand {
    pub(super) id: JobId,
    /// For the one that it works on: when it has to be done.
    pub(super) until: Option<Instant>,
    pub(super) is_cancelled: bool,
}

/// Why a worker is killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Doom {
    TimedOut,
    Cancelled,
    /// Nothing that it says can be understood any more.
    Broken(String),
}

/// A worker with its two channels.
#[derive(Debug)]
pub(super) struct Hand<J, R> {
    pub(super) process: Process,
    /// `None` once it shall take no more.
    jobs: Option<Sender<J>>,
    /// The other end, for what the worker leaves untaken. Only where jobs are sent ahead.
    untaken: Option<Receiver<J>>,
    pub(super) answers: Receiver<Answer<R>>,
    /// Its jobs, the one that it works on first.
    pub(super) jobs_in_hand: VecDeque<InHand>,
    /// Whether it has started, and takes jobs.
    pub(super) is_ready: bool,
    /// Whether it has said so. Not all kinds do.
    pub(super) has_said_ready: bool,
    /// How many jobs it has answered.
    pub(super) answered: u64,
    pub(super) doom: Option<Doom>,
    /// Why it could not start, as it said itself.
    pub(super) start_failure: Option<ChildEnd>,
    /// Whether answers may still come.
    pub(super) is_heard: bool,
    /// Whether its channel had no room for a job, the last time that it was given one.
    pub(super) is_full: bool,
    /// Whether it has closed its end of the answers by itself, as it does when it dies.
    pub(super) has_hung_up: bool,
    /// Whether it was to be killed and cannot be: it has become another user, or a sandbox denies the call.
    pub(super) is_out_of_reach: bool,
}

impl<J, R> Hand<J, R> {
    pub(super) fn new(
        process: Process,
        jobs: Sender<J>,
        untaken: Option<Receiver<J>>,
        answers: Receiver<Answer<R>>,
        is_ready: bool,
    ) -> Self {
        Hand {
            process,
            jobs: Some(jobs),
            untaken,
            answers,
            jobs_in_hand: VecDeque::new(),
            is_ready,
            has_said_ready: false,
            answered: 0,
            doom: None,
            start_failure: None,
            is_heard: true,
            is_full: false,
            has_hung_up: false,
            is_out_of_reach: false,
        }
    }

    /// Whether it is one of those that do the work: neither leaving nor about to be killed.
    pub(super) fn is_active(&self) -> bool {
        self.jobs.is_some() && self.doom.is_none()
    }

    /// Whether it has ever done anything, as far as its kind says so.
    pub(super) fn has_started(&self, says_ready: bool) -> bool {
        match says_ready {
            true => self.is_ready,
            false => self.answered > 0,
        }
    }

    /// Whether its channel would take a job.
    pub(super) fn has_room(&self) -> bool {
        let has_room = |jobs: &Sender<J>| jobs.endpoint().socket().has_room();
        self.jobs.as_ref().is_none_or(has_room)
    }

    /// Has it end after its jobs.
    pub(super) fn dismiss(&mut self) {
        self.jobs = None;
        self.untaken = None;
    }

    /// Has it killed. What it has said already still counts.
    pub(super) fn kill(&mut self, doom: Doom) {
        self.is_out_of_reach = self.process.kill().is_err();
        self.doom.get_or_insert(doom);
    }

    /// Whether its job took too long by now.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        let first = self.jobs_in_hand.front();
        let until = first.and_then(|first| first.until);
        until.is_some_and(|until| until <= now)
    }

    /// Kills it if its job is cancelled or, by now, took too long.
    pub(super) fn check(&mut self, now: Option<Instant>) {
        let is_cancelled = |job: &InHand| job.is_cancelled;
        if self.jobs_in_hand.front().is_some_and(is_cancelled) {
            self.kill(Doom::Cancelled);
        } else if now.is_some_and(|now| self.is_late(now)) {
            self.kill(Doom::TimedOut);
        }
    }
}

impl<J: Serialize, R> Hand<J, R> {
    /// Gives it a job. `Full` and `Disconnected` mean that another worker should have it.
    pub(super) fn give(&self, job: &J) -> Result<()> {
        match &self.jobs {
            Some(jobs) => jobs.by_ref().try_send(job),
            None => Err(Error::Disconnected),
        }
    }
}

impl<J: DeserializeOwned, R> Hand<J, R> {
    /// After its end: the jobs that it has not taken, and the ids of those that cannot be read again.
    pub(super) fn untaken(&mut self) -> Vec<(JobId, Result<J, JobError>)> {
        let Some(untaken) = self.untaken.take() else {
            return Vec::new();
        };
        // With the last sender, so that what comes after the jobs is the end.
        self.jobs = None;
        let mut jobs = Vec::new();
        loop {
            match untaken.try_recv() {
                Ok(job) => jobs.push(Ok(job)),
                Err(Error::Empty | Error::Disconnected) => break,
                Err(error @ Error::Io { .. }) => {
                    // How many more there are cannot be told, and so not which ones these were.
                    jobs.clear();
                    let all_but_the_first = self.jobs_in_hand.iter().skip(1);
                    jobs.extend(all_but_the_first.map(|_| Err(JobError::undelivered(&error))));
                    break;
                }
                Err(error) => jobs.push(Err(JobError::undelivered(&error))),
            }
        }
        let taken = self.jobs_in_hand.len().saturating_sub(jobs.len());
        let ids = self.jobs_in_hand.drain(taken..);
        ids.zip(jobs)
            .map(|(hand, job)| match hand.is_cancelled {
                true => (hand.id, Err(JobError::Cancelled)),
                false => (hand.id, job),
            })
            .collect()
    }
}
