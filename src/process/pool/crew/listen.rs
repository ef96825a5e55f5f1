//! Listening to the workers: what they answer, and that they end.

use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Crew, deadline, earlier};
use crate::error::{ChildEnd, Error, Result};
use crate::process::pool::answer::Answer;
use crate::process::pool::hand::{Doom, Hand};
use crate::process::pool::outcome::JobError;
use crate::process::pool::watch::Event;
use crate::trace;
use crate::wait::Wait;

/// Of so many looks at the workers alone, one is at everything.
const LOOKS: u32 = 64;

/// How long one sleep is at most. The call goes on to wait after it.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

impl<J, R> Crew<J, R>
where
    J: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    /// Looks at the workers that have jobs. Cheap if these are few, and else at everything.
    pub(in crate::process::pool) fn look(&mut self) -> Result<()> {
        self.looks = self.looks.wrapping_add(1);
        let has_jobs = |hand: &Option<Hand<J, R>>| {
            hand.as_ref()
                .is_some_and(|hand| !hand.jobs_in_hand.is_empty())
        };
        let busy = self
            .places
            .iter()
            .filter(|hand| has_jobs(hand))
            .take(3)
            .count();
        if busy > 2 || self.looks % LOOKS == 0 {
            return self.sleep(Wait::Never).map(drop);
        }
        // One outcome at a time, and the workers take turns: each look is a system call.
        let count = self.places.len();
        for place in (self.ear..count).chain(0..self.ear.min(count)) {
            if self.places.get(place).is_some_and(has_jobs) {
                self.hear(place);
                if !self.outcomes.is_empty() {
                    self.ear = place + 1;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Waits for something to happen. Says whether it is time to `tend`.
    pub(in crate::process::pool) fn sleep(&mut self, wait: Wait) -> Result<bool> {
        const OPERATION: &str = "wait for a pool";
        self.set_alarm()?;
        self.try_again = None;
        let left = match wait {
            Wait::Never => Some(Duration::ZERO),
            Wait::Forever => None,
            Wait::Until { deadline, .. } => {
                Some(deadline.saturating_duration_since(Instant::now()))
            }
        };
        // KERNEL: epoll_wait(2) takes milliseconds, of 24 days at most.
        let timeout = left.and_then(|left| Timespec::try_from(left.min(LONGEST)).ok());
        if !matches!(wait, Wait::Never) {
            self.watch.set_outcomes(false); // those that are there already would end the sleep at once
        }
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        match self.watch.wait(timeout, &mut events) {
            Ok(()) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::io(OPERATION, errno)),
        }
        let (mut has_happened, mut is_time) = (false, false);
        for event in &events {
            has_happened |= match *event {
                Event::Answer(place) => {
                    self.hear(place);
                    true
                }
                Event::End(place) => self.bury(place),
                Event::Alarm => {
                    is_time = true;
                    self.look_for_room();
                    true
                }
            };
        }
        self.events = events;
        let is_over = left == Some(Duration::ZERO) && !matches!(wait, Wait::Never);
        if is_over && !has_happened {
            let after = wait.length();
            return Err(Error::TimedOut {
                operation: OPERATION,
                after,
            });
        }
        Ok(is_time)
    }

    /// Has the descriptor become readable when there is something to `tend`.
    pub(in crate::process::pool) fn set_alarm(&mut self) -> Result<()> {
        let retry = self.retry.filter(|_| self.is_short).map(|(at, _)| at);
        let alarm = earlier(earlier(self.earliest, retry), self.try_again);
        self.watch.set_alarm(alarm)
    }

    /// Takes what a worker has said.
    pub(in crate::process::pool) fn hear(&mut self, place: usize) {
        let Some(Some(hand)) = self.places.get(place) else {
            return;
        };
        // One for each job, that it is ready, and that it has hung up. One that says more does not keep the others waiting.
        for _ in 0..hand.jobs_in_hand.len() + 2 {
            let Some(Some(hand)) = self.places.get_mut(place) else {
                return;
            };
            if !hand.is_heard {
                return;
            }
            match hand.answers.try_recv() {
                Ok(answer) => self.take(place, Ok(answer)),
                Err(Error::Empty) => return,
                Err(Error::Disconnected) => {
                    self.watch.forget(&hand.answers);
                    hand.is_heard = false;
                    hand.has_hung_up = hand.doom.is_none(); // of one that is killed it is no news
                    let has_jobs = !hand.jobs_in_hand.is_empty();
                    match has_jobs || !hand.has_started(self.says_ready) {
                        true => hand.kill(Doom::Broken("the worker has hung up".to_owned())),
                        false => hand.dismiss(), // it will end by itself
                    }
                    self.is_short = true;
                    return;
                }
                Err(error @ Error::Io { .. }) => {
                    hand.kill(Doom::Broken(format!("{error:#}")));
                    self.watch.forget(&hand.answers);
                    hand.is_heard = false;
                    self.is_short = true;
                    return;
                }
                Err(error) => self.take(place, Err(error)),
            }
            // Nothing more is to be expected of it.
            if let Some(Some(hand)) = self.places.get(place) {
                if hand.jobs_in_hand.is_empty() && hand.is_active() {
                    return;
                }
            }
        }
    }

    /// Takes one answer, or the error instead of one.
    fn take(&mut self, place: usize, answer: Result<Answer<R>>) {
        let Some(Some(hand)) = self.places.get_mut(place) else {
            return;
        };
        let outcome = match answer {
            Ok(Answer::Ready) if !hand.has_said_ready => {
                hand.is_ready = true;
                hand.has_said_ready = true;
                self.deaths = 0;
                return;
            }
            Ok(Answer::Ready) => {
                hand.kill(Doom::Broken("the worker is ready twice".to_owned()));
                self.is_short = true;
                return;
            }
            Ok(Answer::Done(result)) => Ok(result),
            Ok(Answer::Failed(panic)) => {
                if !hand.is_ready {
                    let message = panic.message;
                    hand.start_failure = Some(ChildEnd::Panicked { message });
                    return;
                }
                Err(JobError::Panicked {
                    message: panic.message,
                    place: panic.place,
                    backtrace: panic.backtrace,
                })
            }
            Ok(Answer::Undelivered(reason)) => {
                if !hand.is_ready {
                    hand.start_failure = Some(ChildEnd::Undelivered { reason });
                    return;
                }
                Err(JobError::Undelivered { reason })
            }
            Err(error) => Err(JobError::undelivered(&error)),
        };
        let Some(job) = hand.jobs_in_hand.pop_front() else {
            hand.kill(Doom::Broken(
                "the worker answers what it was not asked".to_owned(),
            ));
            self.is_short = true;
            return;
        };
        hand.answered += 1;
        hand.is_full = false;
        self.deaths = 0;
        if let Some(next) = hand.jobs_in_hand.front_mut() {
            next.until = self.settings.deadline.and_then(deadline);
            self.earliest = earlier(self.earliest, next.until);
            hand.check(None);
            self.is_short |= hand.doom.is_some();
        } else if self
            .settings
            .jobs_per_worker
            .is_some_and(|limit| hand.answered >= limit)
        {
            hand.dismiss();
            self.is_short = true;
        }
        self.outcomes.push_back((job.id, outcome));
    }

    /// Takes leave of workers that should have been killed and cannot be.
    pub(super) fn let_go(&mut self) {
        for place in 0..self.places.len() {
            let hand = self.places.get(place).and_then(Option::as_ref);
            if hand.is_some_and(|hand| hand.is_out_of_reach) {
                self.bury(place);
            }
        }
    }

    /// Takes leave of a worker that has ended. `false`: it cannot be reaped yet.
    fn bury(&mut self, place: usize) -> bool {
        let Some(Some(hand)) = self.places.get_mut(place) else {
            return false;
        };
        let end = match hand.process.ended(Wait::Never) {
            Ok(end) => end,
            // It is left to itself, with what it is at, so that nothing waits for it.
            Err(_) if hand.is_out_of_reach => ChildEnd::Unknown,
            Err(_) => return false,
        };
        self.hear(place); // a result may have been faster than whatever ended it
        let Some(mut hand) = self.places.get_mut(place).and_then(Option::take) else {
            return false;
        };
        self.is_short = true;
        if hand.is_heard {
            self.watch.forget(&hand.answers);
        }
        self.watch.forget(&hand.process);
        let end = hand.start_failure.take().unwrap_or(end);
        let pid = hand.process.pid();
        trace::worker_lost(pid);
        let has_started = hand.has_started(self.says_ready);
        let is_wanted = matches!(hand.doom, Some(Doom::TimedOut | Doom::Cancelled));
        if !has_started && !is_wanted {
            self.deaths += 1;
            self.last_death = Some((pid, end.clone()));
        }
        let untaken = hand.untaken();
        let first = hand.jobs_in_hand.pop_front();
        if let Some(job) = first {
            let error = match hand.doom.take() {
                Some(Doom::TimedOut) => JobError::TimedOut,
                Some(Doom::Cancelled) => JobError::Cancelled,
                Some(Doom::Broken(reason)) if !hand.has_hung_up => JobError::Undelivered { reason },
                Some(Doom::Broken(_)) | None => JobError::Died { pid, end },
            };
            self.outcomes.push_back((job.id, Err(error)));
        }
        // There is one at most that was taken, but with a worker that lies.
        for job in hand.jobs_in_hand.drain(..) {
            let end = ChildEnd::Unknown;
            self.outcomes
                .push_back((job.id, Err(JobError::Died { pid, end })));
        }
        for (id, job) in untaken.into_iter().rev() {
            match job {
                Ok(job) => self.backlog.push_front((id, job)),
                Err(error) => self.outcomes.push_back((id, Err(error))),
            }
        }
        true
    }
}
