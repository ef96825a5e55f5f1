//! Giving out jobs: who gets the next one, and what is done when nobody can take it.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Crew, deadline, earlier};
use crate::error::{Error, Result};
use crate::process::pool::hand::{Doom, InHand};
use crate::process::pool::outcome::JobId;
use crate::wait::Wait;

/// After that time a job that a worker's channel had no room for is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(4);

impl<J, R> Crew<J, R>
where
    J: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    /// A worker that can take a job now, and has the fewest.
    pub(super) fn free_place(&mut self) -> Option<usize> {
        let (ahead, limit) = (self.settings.ahead, self.settings.jobs_per_worker);
        let mut found = None;
        let count = self.places.len();
        for place in (self.turn..count).chain(0..self.turn.min(count)) {
            let Some(Some(hand)) = self.places.get(place) else {
                continue;
            };
            let len = hand.jobs_in_hand.len();
            let is_used_up = limit.is_some_and(|limit| hand.answered + len as u64 >= limit);
            let listens = hand.is_ready && hand.is_heard && hand.is_active();
            if !listens || hand.is_full || len > ahead || is_used_up {
                continue;
            }
            if found.is_none_or(|(_, fewest)| len < fewest) {
                found = Some((place, len));
            }
            if len == 0 {
                break;
            }
        }
        let (place, _) = found?;
        self.turn = place + 1;
        Some(place)
    }

    /// Gives a job to a worker. `false`: it does not take it.
    pub(super) fn give(&mut self, place: usize, id: JobId, job: &J) -> Result<bool> {
        let Some(Some(hand)) = self.places.get_mut(place) else {
            return Ok(false);
        };
        match hand.give(job) {
            Ok(()) => {
                let is_first = hand.jobs_in_hand.is_empty();
                let until = self
                    .settings
                    .deadline
                    .filter(|_| is_first)
                    .and_then(deadline);
                hand.jobs_in_hand.push_back(InHand {
                    id,
                    until,
                    is_cancelled: false,
                });
                self.earliest = earlier(self.earliest, until);
                Ok(true)
            }
            Err(Error::Full) => {
                // Its next answer tells that there is room again. But it may have taken a job long before that.
                hand.is_full = true;
                self.some_are_full = true;
                self.try_again = deadline(TRY_AGAIN);
                Ok(false)
            }
            // It is gone, or takes no more jobs.
            Err(Error::Disconnected) => {
                hand.dismiss();
                hand.kill(Doom::Broken("the worker takes no jobs any more".to_owned()));
                self.is_short = true;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Looks whether there is room by now in channels that were full.
    pub(super) fn look_for_room(&mut self) {
        if !self.some_are_full {
            return;
        }
        self.some_are_full = false;
        for hand in self.places.iter_mut().flatten() {
            hand.is_full = hand.is_full && !hand.has_room();
            self.some_are_full |= hand.is_full;
        }
        self.try_again = deadline(TRY_AGAIN).filter(|_| self.some_are_full);
    }

    /// Gives a job to whichever worker is free, or waits for one.
    pub(in crate::process::pool) fn submit(&mut self, job: &J, wait: Wait) -> Result<JobId> {
        if self.outcomes.len() >= self.settings.keep {
            return Err(Error::Full);
        }
        self.look_for_room();
        loop {
            self.tend()?;
            while self.backlog.is_empty() {
                // One that has not taken it is not free any more.
                let Some(place) = self.free_place() else {
                    break;
                };
                let id = JobId(self.last_id + 1);
                if self.give(place, id, job)? {
                    self.last_id += 1;
                    return Ok(id);
                }
                if self.is_short {
                    self.replace()?;
                }
            }
            if self.is_lost() {
                return Err(self.broken());
            }
            self.turn_over(wait, Error::Full)?;
        }
    }

    /// Looks what has happened, and waits for it if it may. `would_block` is what it says if it may not.
    pub(in crate::process::pool) fn turn_over(
        &mut self,
        wait: Wait,
        would_block: Error,
    ) -> Result<()> {
        // Whatever there may be to `tend`, or to say, from here on.
        let state = |crew: &Self| {
            let workers = (crew.count_ready(), crew.active(), crew.deaths);
            (crew.outcomes.len(), workers, crew.is_short)
        };
        let before = state(self);
        let is_time = self.sleep(wait)?;
        let has_changed = is_time || before != state(self);
        if matches!(wait, Wait::Never) && !has_changed {
            return Err(would_block);
        }
        Ok(())
    }

    fn count_ready(&self) -> usize {
        let ready = self.places.iter().flatten().filter(|hand| hand.is_ready);
        ready.count()
    }

    /// Whether a worker could take a job now.
    pub(in crate::process::pool) fn has_free_place(&mut self) -> bool {
        let turn = self.turn;
        let is_free = self.backlog.is_empty() && self.free_place().is_some();
        self.turn = turn;
        is_free
    }
}
