//! The workers of a pool in their places, and what becomes of its jobs.

mod give;
mod listen;

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::Answer;
use super::hand::Hand;
use super::outcome::{JobError, JobId};
use super::settings::PoolSettings;
use super::watch::{Event, Watch};
use crate::channel::{Receiver, Sender, channel};
use crate::error::{ChildEnd, Error, Result};
use crate::process::handle::Process;
use crate::process::settings::Settings;
use crate::wait::Wait;

/// Starts a worker with these ends.
pub(super) type Start<J, R> =
    Box<dyn FnMut(&Settings, Receiver<J>, Sender<Answer<R>>) -> Result<Process> + Send>;

pub(super) type Outcome<R> = (JobId, Result<R, JobError>);

/// So many workers may die in a row before one of them has started.
const DEATHS: u32 = 3;

/// How long to wait after a worker could not be started, at first and at most, while others work.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Crew<J, R> {
    start: Start<J, R>,
    /// Whether workers say when they have started.
    says_ready: bool,
    pub(super) settings: PoolSettings,
    pub(super) places: Vec<Option<Hand<J, R>>>,
    pub(super) watch: Watch,
    events: Vec<Event>,
    /// Jobs that were sent to workers which died before they took them.
    backlog: VecDeque<(JobId, J)>,
    pub(super) outcomes: VecDeque<Outcome<R>>,
    last_id: u64,
    /// Where to look for a free worker next.
    turn: usize,
    /// Which of them to listen to first.
    ear: usize,
    looks: u32,
    /// Whether there are fewer workers than there should be.
    is_short: bool,
    retry: Option<(Instant, Duration)>,
    /// No job has to be done before.
    earliest: Option<Instant>,
    /// Whether there are workers whose channels were full when a job was given to them.
    some_are_full: bool,
    /// When to try these again.
    try_again: Option<Instant>,
    deaths: u32,
    last_death: Option<(u32, ChildEnd)>,
}

impl<J, R> Crew<J, R>
where
    J: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    /// Starts all workers.
    pub(super) fn start(
        settings: PoolSettings,
        says_ready: bool,
        start: Start<J, R>,
    ) -> Result<Self> {
        let mut crew = Crew {
            start,
            says_ready,
            places: Vec::new(), // there may be fewer than were asked for
            watch: Watch::new()?,
            events: Vec::new(),
            backlog: VecDeque::new(),
            outcomes: VecDeque::new(),
            last_id: 0,
            turn: 0,
            ear: 0,
            looks: 0,
            is_short: true,
            retry: None,
            earliest: None,
            some_are_full: false,
            try_again: None,
            deaths: 0,
            last_death: None,
            settings,
        };
        for _ in 0..crew.settings.workers {
            if let Err(error) = crew.start_one() {
                crew.kill();
                return Err(error);
            }
        }
        crew.is_short = false;
        Ok(crew)
    }

    fn start_one(&mut self) -> Result<()> {
        let (jobs, job_end) = channel::<J>()?;
        let (answer, answers) = channel::<Answer<R>>()?;
        let untaken = (self.settings.ahead > 0).then(|| job_end.clone());
        let process = (self.start)(&self.settings.process, job_end, answer)?;
        let hand = Hand::new(process, jobs, untaken, answers, !self.says_ready);
        let place = self.places.iter().position(Option::is_none);
        let place = place.unwrap_or(self.places.len());
        if let Err(error) = self.watch.add_worker(place, &hand.answers, &hand.process) {
            dismiss_now(hand);
            return Err(error);
        }
        match self.places.get_mut(place) {
            Some(empty) => *empty = Some(hand),
            None => self.places.push(Some(hand)),
        }
        Ok(())
    }

    fn hands(&mut self) -> impl Iterator<Item = &mut Hand<J, R>> {
        self.places.iter_mut().flatten()
    }

    fn active(&self) -> usize {
        let active = self.places.iter().flatten().filter(|hand| hand.is_active());
        active.count()
    }

    /// How many workers are about to end that had not started. They are replaced when their deaths are counted.
    fn dying_before_their_start(&self) -> usize {
        let hands = self.places.iter().flatten();
        hands
            .filter(|hand| !hand.is_active() && !hand.has_started(self.says_ready))
            .count()
    }

    /// Does what is due: replaces workers, kills those whose job takes too long, gives out what dead ones left.
    pub(super) fn tend(&mut self) -> Result<()> {
        if let Some(earliest) = self.earliest {
            let now = Instant::now();
            if earliest <= now {
                self.end_late_jobs(now);
                self.is_short = true;
                let first = |hand: &Hand<J, R>| hand.jobs_in_hand.front()?.until;
                let waiting = self.places.iter().flatten().filter(|hand| hand.is_active());
                self.earliest = waiting.filter_map(first).min();
            }
        }
        if self.is_short {
            self.let_go();
            self.replace()?;
        }
        while !self.backlog.is_empty() {
            let Some(place) = self.free_place() else {
                break;
            };
            let Some((id, job)) = self.backlog.pop_front() else {
                break;
            };
            match self.give(place, id, &job) {
                Ok(true) => {}
                Ok(false) => self.backlog.push_front((id, job)),
                Err(error) => self
                    .outcomes
                    .push_back((id, Err(JobError::undelivered(&error)))),
            }
        }
        Ok(())
    }

    /// Kills the workers whose job has taken too long by now.
    fn end_late_jobs(&mut self, now: Instant) {
        for place in 0..self.places.len() {
            let hand = self.places.get(place).and_then(Option::as_ref);
            if hand.is_some_and(|hand| hand.is_late(now)) {
                // It may have answered since, and nobody has listened.
                self.hear(place);
                if let Some(Some(hand)) = self.places.get_mut(place) {
                    hand.check(Some(now));
                }
            }
        }
    }

    /// Starts as many workers as are missing.
    fn replace(&mut self) -> Result<()> {
        while self.active() + self.dying_before_their_start() < self.settings.workers {
            if self.is_broken() {
                self.retry = None;
                self.give_up();
                return Ok(());
            }
            // What becomes of a job that is with a dying worker comes first.
            let is_dying = |hand: &Hand<J, R>| !hand.is_active() && !hand.jobs_in_hand.is_empty();
            let some_are_dying = self.places.iter().flatten().any(is_dying);
            let is_last = self.active() == 0 && !some_are_dying;
            if !is_last && self.retry.is_some_and(|(at, _)| at > Instant::now()) {
                return Ok(());
            }
            if let Err(error) = self.start_one() {
                let pause = self.retry.map_or(FIRST_PAUSE, |(_, pause)| pause * 2);
                let pause = pause.min(LAST_PAUSE);
                self.retry = Some((Instant::now() + pause, pause));
                return if is_last { Err(error) } else { Ok(()) };
            }
            self.retry = None;
        }
        self.is_short = false;
        Ok(())
    }

    /// Whether no worker starts any more.
    fn is_broken(&self) -> bool {
        self.deaths >= DEATHS
    }

    /// If no worker is left: the jobs that none has taken will not be done.
    fn give_up(&mut self) {
        if self.active() > 0 {
            return;
        }
        let error = self.broken();
        for (id, _) in self.backlog.drain(..) {
            self.outcomes
                .push_back((id, Err(JobError::undelivered(&error))));
        }
    }

    fn broken(&self) -> Error {
        let (pid, end) = self.last_death.clone().unwrap_or((0, ChildEnd::Unknown));
        Error::Child { pid, end }
    }

    /// Has a job end without a result, if it has none yet.
    pub(super) fn cancel(&mut self, id: JobId) {
        if let Some(place) = self.backlog.iter().position(|(other, _)| *other == id) {
            self.backlog.remove(place);
            self.outcomes.push_back((id, Err(JobError::Cancelled)));
            return;
        }
        let has_it = |hand: &Option<Hand<J, R>>| {
            let mut jobs = hand.iter().flat_map(|hand| &hand.jobs_in_hand);
            jobs.any(|job| job.id == id)
        };
        let Some(place) = self.places.iter().position(has_it) else {
            return;
        };
        self.hear(place);
        if let Some(Some(hand)) = self.places.get_mut(place) {
            let mut jobs = hand.jobs_in_hand.iter_mut();
            if let Some(job) = jobs.find(|job| job.id == id) {
                job.is_cancelled = true;
                hand.check(None);
                self.is_short = true;
            }
        }
    }

    /// Replaces what is missing, and makes the descriptor tell whether there are outcomes.
    pub(super) fn settle(&mut self) -> Result<()> {
        let tended = self.tend();
        self.watch.set_outcomes(!self.outcomes.is_empty());
        tended.and(self.set_alarm())
    }

    /// How many jobs have no outcome that was received.
    pub(super) fn pending(&self) -> usize {
        let in_hand = self
            .places
            .iter()
            .flatten()
            .map(|hand| hand.jobs_in_hand.len());
        self.outcomes.len() + self.backlog.len() + in_hand.sum::<usize>()
    }

    /// Whether no worker will ever take a job again.
    pub(super) fn is_lost(&self) -> bool {
        self.is_broken() && self.active() == 0
    }

    /// Whether every job has an outcome that was received.
    pub(super) fn is_idle(&self) -> bool {
        let mut hands = self.places.iter().flatten();
        let no_jobs = hands.all(|hand| hand.jobs_in_hand.is_empty());
        no_jobs && self.outcomes.is_empty() && self.backlog.is_empty()
    }

    /// Has all workers end after their jobs, and waits for them.
    pub(super) fn disband(&mut self) -> Result<()> {
        self.hands().for_each(Hand::dismiss);
        for mut hand in self.places.drain(..).flatten() {
            hand.process.ended(Wait::Forever)?;
        }
        Ok(())
    }
}

impl<J, R> Crew<J, R> {
    /// Kills all workers, and waits for their end.
    pub(super) fn kill(&mut self) {
        self.places.iter().flatten().for_each(|hand| {
            let _ = hand.process.kill();
        });
        self.places.drain(..).flatten().for_each(dismiss_now);
    }
}

fn dismiss_now<J, R>(mut hand: Hand<J, R>) {
    if hand.process.kill().is_ok() {
        let _ = hand.process.ended(Wait::Forever);
    }
}

fn deadline(after: Duration) -> Option<Instant> {
    Instant::now().checked_add(after)
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl<J, R> fmt::Debug for Crew<J, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pids: Vec<_> = self
            .places
            .iter()
            .flatten()
            .map(|hand| hand.process.pid())
            .collect();
        f.debug_struct("Crew")
            .field("workers", &pids)
            .finish_non_exhaustive()
    }
}
