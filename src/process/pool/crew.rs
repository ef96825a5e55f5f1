//! The workers of a pool in their places, and what becomes of its jobs.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::Answer;
use super::hand::{Doom, Hand, InHand};
use super::options::PoolOptions;
use super::outcome::{JobError, JobId};
use super::watch::{Event, Watch};
use crate::channel::{Receiver, Sender, channel};
use crate::error::{ChildEnd, Error, Result};
use crate::process::handle::Process;
use crate::process::settings::Settings;
use crate::trace;
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

/// Of so many looks at the workers alone, one is at everything.
const LOOKS: u32 = 64;

pub(super) struct Crew<J, R> {
    start: Start<J, R>,
    /// Whether workers say when they have started.
    says_ready: bool,
    pub(super) options: PoolOptions,
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
        options: PoolOptions,
        says_ready: bool,
        start: Start<J, R>,
    ) -> Result<Self> {
        let mut crew = Crew {
            start,
            says_ready,
            places: Vec::with_capacity(options.workers),
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
            deaths: 0,
            last_death: None,
            options,
        };
        for _ in 0..crew.options.workers {
            crew.start_one()?;
        }
        crew.is_short = false;
        Ok(crew)
    }

    fn start_one(&mut self) -> Result<()> {
        let (jobs, job_end) = channel::<J>()?;
        let (answer, answers) = channel::<Answer<R>>()?;
        let untaken = (self.options.ahead > 0).then(|| job_end.clone());
        let process = (self.start)(self.options.builder.settings(), job_end, answer)?;
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

    /// Does what is due: replaces workers, kills those whose job takes too long, gives out what dead ones left.
    pub(super) fn tend(&mut self) -> Result<()> {
        if let Some(earliest) = self.earliest {
            let now = Instant::now();
            if earliest <= now {
                self.hands().for_each(|hand| hand.check(Some(now)));
                self.is_short = true;
                let first = |hand: &Hand<J, R>| hand.jobs_in_hand.front()?.until;
                let waiting = self.places.iter().flatten().filter(|hand| hand.is_active());
                self.earliest = waiting.filter_map(first).min();
            }
        }
        if self.is_short {
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

    /// Starts as many workers as are missing.
    fn replace(&mut self) -> Result<()> {
        while self.active() < self.options.workers {
            if self.is_broken() {
                self.give_up();
                return Ok(());
            }
            let is_last = self.active() == 0;
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

    /// If nobody is left who could: the jobs that nobody has taken will not be done.
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

    /// A worker that can take a job now, and has the fewest.
    fn free_place(&mut self) -> Option<usize> {
        let (ahead, limit) = (self.options.ahead, self.options.jobs_per_worker);
        let mut found = None;
        let count = self.places.len();
        for place in (self.turn..count).chain(0..self.turn.min(count)) {
            let Some(Some(hand)) = self.places.get(place) else {
                continue;
            };
            let len = hand.jobs_in_hand.len();
            let is_used_up = limit.is_some_and(|limit| hand.answered + len as u64 >= limit);
            let listens = hand.is_ready && hand.is_heard && hand.is_active();
            if !listens || len > ahead || is_used_up {
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
    fn give(&mut self, place: usize, id: JobId, job: &J) -> Result<bool> {
        let Some(Some(hand)) = self.places.get_mut(place) else {
            return Ok(false);
        };
        match hand.give(job) {
            Ok(()) => {
                let is_first = hand.jobs_in_hand.is_empty();
                let until = self
                    .options
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
            Err(Error::Full) => Ok(false),
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

    /// Gives a job to whichever worker is free, or waits for one.
    pub(super) fn submit(&mut self, job: &J, wait: Wait) -> Result<JobId> {
        if self.outcomes.len() >= self.options.keep {
            return Err(Error::Full);
        }
        loop {
            self.tend()?;
            while self.backlog.is_empty() {
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
                } else {
                    break; // it is full
                }
            }
            if self.is_lost() {
                return Err(self.broken());
            }
            self.turn_over(wait, Error::Full)?;
        }
    }

    /// Looks what has happened, and waits for it if it may. `would_block` is what it says if it may not.
    pub(super) fn turn_over(&mut self, wait: Wait, would_block: Error) -> Result<()> {
        let before = (self.outcomes.len(), self.count_ready());
        self.sleep(wait)?;
        if matches!(wait, Wait::Never) && before == (self.outcomes.len(), self.count_ready()) {
            return Err(would_block);
        }
        Ok(())
    }

    fn count_ready(&self) -> usize {
        let ready = self.places.iter().flatten().filter(|hand| hand.is_ready);
        ready.count()
    }

    /// Looks at the workers that have jobs. Cheap if these are few, and else at everything.
    pub(super) fn look(&mut self) -> Result<()> {
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
            return self.sleep(Wait::Never);
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

    /// Waits for something to happen.
    pub(super) fn sleep(&mut self, wait: Wait) -> Result<()> {
        let retry = self.retry.filter(|_| self.is_short).map(|(at, _)| at);
        self.watch.set_alarm(earlier(self.earliest, retry))?;
        let timeout = match wait {
            Wait::Never => Some(Timespec::default()),
            Wait::Forever => None,
            Wait::Until { deadline, .. } => {
                match deadline.checked_duration_since(Instant::now()) {
                    None | Some(Duration::ZERO) => {
                        let after = wait.length();
                        let operation = "wait for a pool";
                        return Err(Error::TimedOut { operation, after });
                    }
                    Some(left) => Timespec::try_from(left).ok(), // billions of years are forever
                }
            }
        };
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        match self.watch.wait(timeout, &mut events) {
            Ok(()) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::io("wait for a pool", errno)),
        }
        for event in &events {
            match *event {
                Event::Answer(place) => self.hear(place),
                Event::End(place) => self.bury(place),
                Event::Alarm => {} // for `tend`
            }
        }
        self.events = events;
        Ok(())
    }

    /// Takes what a worker has said.
    pub(super) fn hear(&mut self, place: usize) {
        while let Some(Some(hand)) = self.places.get_mut(place) {
            if !hand.is_heard {
                return;
            }
            match hand.answers.try_recv() {
                Ok(answer) => self.take(place, Ok(answer)),
                Err(Error::Empty) => return,
                Err(Error::Disconnected) => {
                    self.watch.forget(&hand.answers);
                    hand.is_heard = false;
                    let has_jobs = !hand.jobs_in_hand.is_empty();
                    if !hand.has_started(self.says_ready) && !has_jobs {
                        // Replaced once it has ended, and its death is counted.
                        let _ = hand.process.kill();
                        return;
                    }
                    match has_jobs {
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
            Ok(Answer::Ready) => {
                hand.is_ready = true;
                self.deaths = 0;
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
        self.deaths = 0;
        if let Some(next) = hand.jobs_in_hand.front_mut() {
            next.until = self.options.deadline.and_then(deadline);
            self.earliest = earlier(self.earliest, next.until);
            hand.check(None);
            self.is_short |= hand.doom.is_some();
        } else if self
            .options
            .jobs_per_worker
            .is_some_and(|limit| hand.answered >= limit)
        {
            hand.dismiss();
            self.is_short = true;
        }
        self.outcomes.push_back((job.id, outcome));
    }

    /// Takes leave of a worker that has ended.
    fn bury(&mut self, place: usize) {
        let Some(Some(hand)) = self.places.get_mut(place) else {
            return;
        };
        let Ok(end) = hand.process.ended(Wait::Never) else {
            return; // not yet
        };
        self.hear(place); // a result may have been faster than whatever ended it
        let Some(mut hand) = self.places.get_mut(place).and_then(Option::take) else {
            return;
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
                Some(Doom::Broken(reason)) if hand.is_heard => JobError::Undelivered { reason },
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

    /// Replaces what is missing, and tells whoever waits for the descriptor whether there are outcomes.
    pub(super) fn settle(&mut self) -> Result<()> {
        let tended = self.tend();
        self.watch.set_outcomes(!self.outcomes.is_empty());
        tended
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

    /// Whether a worker could take a job now.
    pub(super) fn has_free_place(&mut self) -> bool {
        let turn = self.turn;
        let is_free = self.backlog.is_empty() && self.free_place().is_some();
        self.turn = turn;
        is_free
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
