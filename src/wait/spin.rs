//! Spinning: looking again and again before going to sleep, as long as that has been paying off.
//!
//! Waking up takes longer than most answers, so a call that waits for an answer does better to look again. One that
//! waits for something that comes now and then would only burn the processor. And where other processes want the
//! processor, a call that yields it between two looks may be without it for milliseconds, when sleeping would have had
//! it back as soon as the answer came. So each time that spinning was in vain, or too slow, it takes twice as many
//! quick answers until it is tried again.
//!
//! To learn how long an answer takes, a call has to look before it sleeps, which is a system call and two looks at the
//! clock. After an answer that was late a few waits go by unmeasured. After a quick one there is a look each time: the
//! next answer may be there by then, and its sender need not wake anything up.

use std::ptr;
use std::sync::atomic::{AtomicI16, Ordering};
use std::time::{Duration, Instant};

use super::deadline::Wait;

/// What one end of a channel has learned about its waits. There is one in each socket, so it is kept small.
#[derive(Debug)]
pub(crate) struct Spin {
    /// In nanoseconds.
    limit: u64,
    /// How many quick answers there have been lately, less those that it takes to try again.
    score: AtomicI16,
    /// How many it takes after the next failure.
    penalty: AtomicI16,
    /// How many waits are still to go by until one is measured again.
    unmeasured: AtomicI16,
}

impl Spin {
    /// At this score a wait spins.
    const ENOUGH: i16 = 4;
    const MOST: i16 = 8;
    const FIRST_PENALTY: i16 = 8;
    const LAST_PENALTY: i16 = 4096;
    /// Of so many waits one is measured, while answers are late.
    const ONE_OF: i16 = 8;

    pub(crate) fn new(limit: Duration) -> Self {
        Spin {
            limit: nanoseconds(limit),
            score: AtomicI16::new(0),
            penalty: AtomicI16::new(Self::FIRST_PENALTY),
            unmeasured: AtomicI16::new(0),
        }
    }

    /// 584 years at most.
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_nanos(self.limit)
    }

    /// Whether it ever spins.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.limit > 0
    }

    // ORDERING: mere estimates, of which several threads may overwrite each other's.
    fn pays_off(&self) -> bool {
        self.is_on() && self.score.load(Ordering::Relaxed) >= Self::ENOUGH
    }

    /// Whether a call that may sleep does so without a look before: this wait is not measured.
    #[inline]
    pub(crate) fn sleeps_at_once(&self) -> bool {
        if self.score.load(Ordering::Relaxed) > 0 {
            return false;
        }
        let unmeasured = self.unmeasured.load(Ordering::Relaxed);
        if unmeasured > 0 {
            self.unmeasured.store(unmeasured - 1, Ordering::Relaxed);
        }
        unmeasured > 0
    }

    fn succeeded(&self, has_spun: bool) {
        let score = self.score.load(Ordering::Relaxed);
        self.score
            .store((score + 1).min(Self::MOST), Ordering::Relaxed);
        if has_spun {
            let penalty = self.penalty.load(Ordering::Relaxed);
            self.penalty
                .store((penalty - 1).max(Self::FIRST_PENALTY), Ordering::Relaxed);
        }
    }

    fn failed(&self) {
        let penalty = self.penalty.load(Ordering::Relaxed);
        self.score.store(-penalty, Ordering::Relaxed);
        self.penalty
            .store((penalty * 2).min(Self::LAST_PENALTY), Ordering::Relaxed);
    }

    fn was_slow(&self) {
        let score = self.score.load(Ordering::Relaxed);
        self.score
            .store(score.min((score - 1).max(0)), Ordering::Relaxed);
    }
}

/// One wait, of one end or of several, from the first look that was in vain: it spins for as long as that is worth it.
#[derive(Debug)]
pub(crate) struct Spinning<'a> {
    /// The end on whose account it spins.
    spins_for: Option<&'a Spin>,
    since: Instant,
}

impl<'a> Spinning<'a> {
    pub(crate) fn new(ends: impl IntoIterator<Item = &'a Spin>) -> Self {
        Spinning {
            spins_for: ends.into_iter().find(|spin| spin.pays_off()),
            since: Instant::now(),
        }
    }

    /// Whether to look once more at once.
    pub(crate) fn goes_on(&mut self, wait: Wait) -> bool {
        let Some(spin) = self.spins_for else {
            return false;
        };
        if self.since.elapsed() < spin.limit() && !wait.is_over() {
            return true;
        }
        spin.failed();
        self.spins_for = None;
        false
    }

    /// What was spinning for has come, through this end.
    pub(crate) fn learn(&self, spin: &Spin) {
        // After a sleep the time that waking up takes is in it, about as long again.
        let is_quick = self.since.elapsed() <= spin.limit().saturating_mul(2);
        let has_spun = self.spins_for.is_some_and(|end| ptr::eq(end, spin));
        match (has_spun, is_quick) {
            (has_spun, true) => spin.succeeded(has_spun),
            (true, false) => spin.failed(),
            (false, false) => spin.was_slow(),
        }
        let unmeasured = if is_quick { 0 } else { Spin::ONE_OF - 1 };
        spin.unmeasured.store(unmeasured, Ordering::Relaxed);
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_nanos(1);

    /// A wait that ends at once: quick with a limit that is long, slow with one that is short. Whether it spins.
    fn wait(spin: &Spin) -> bool {
        if spin.sleeps_at_once() {
            return false;
        }
        let spinning = Spinning::new([spin]);
        while spinning.since.elapsed() <= SHORT * 2 {}
        spinning.learn(spin);
        spinning.spins_for.is_some()
    }

    #[test]
    fn it_takes_some_quick_answers_to_spin() {
        let spin = Spin::new(LONG);
        for _ in 0..Spin::ENOUGH {
            assert!(!wait(&spin));
        }
        for _ in 0..300 {
            assert!(wait(&spin));
        }
        assert_eq!(spin.score.load(Ordering::Relaxed), Spin::MOST);
    }

    #[test]
    fn each_failure_doubles_the_number_of_quick_answers_that_it_takes() {
        let mut spin = Spin::new(LONG);
        for penalty in [8, 16, 32, 64] {
            while !wait(&spin) {}
            spin.penalty.store(penalty, Ordering::Relaxed);
            spin.limit = nanoseconds(SHORT); // too slow, although it spins
            assert!(wait(&spin));
            assert_eq!(spin.penalty.load(Ordering::Relaxed), 2 * penalty);
            spin.limit = nanoseconds(LONG);
            let asleep = (0..).take_while(|_| !wait(&spin)).count();
            // The answer that made it fail was late, so some waits after it are not measured.
            assert_eq!(
                i16::try_from(asleep),
                Ok(Spin::ONE_OF - 1 + penalty + Spin::ENOUGH)
            );
        }
        spin.penalty.store(Spin::LAST_PENALTY, Ordering::Relaxed);
        spin.failed();
        spin.failed();
        assert_eq!(spin.penalty.load(Ordering::Relaxed), Spin::LAST_PENALTY);
        for _ in 0..Spin::LAST_PENALTY + Spin::ENOUGH + 2 * Spin::LAST_PENALTY {
            wait(&spin);
        }
        assert_eq!(spin.penalty.load(Ordering::Relaxed), Spin::FIRST_PENALTY);
    }

    #[test]
    fn after_a_late_answer_one_wait_of_eight_is_measured_and_after_a_quick_one_each() {
        let mut spin = Spin::new(SHORT);
        let is_measured = |spin: &Spin| {
            let is_measured = !spin.sleeps_at_once();
            if is_measured {
                let spinning = Spinning::new([spin]);
                while spinning.since.elapsed() <= SHORT * 2 {}
                spinning.learn(spin);
            }
            is_measured
        };
        let measured = (0..80).filter(|_| is_measured(&spin)).count();
        assert_eq!(measured, 10);
        spin.limit = nanoseconds(LONG);
        let measured = (0..80).filter(|_| is_measured(&spin)).count();
        assert_eq!(measured, 80);
    }

    /// Spins until that ends in vain.
    fn spin_out(spinning: &mut Spinning<'_>) {
        while spinning.goes_on(Wait::Forever) {}
        assert!(spinning.spins_for.is_none());
    }

    #[test]
    fn a_wait_in_vain_ends_it() {
        let mut spin = Spin::new(LONG);
        while !wait(&spin) {}
        spin.limit = nanoseconds(SHORT);
        spin_out(&mut Spinning::new([&spin]));
        assert_eq!(spin.score.load(Ordering::Relaxed), -Spin::FIRST_PENALTY);
    }

    #[test]
    fn slow_answers_end_it() {
        let mut spin = Spin::new(LONG);
        for _ in 0..Spin::ENOUGH - 1 {
            wait(&spin);
        }
        spin.limit = nanoseconds(SHORT);
        for _ in 0..10 {
            assert!(!wait(&spin));
        }
        assert_eq!(spin.score.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_deadline_ends_it_as_well() {
        let spin = Spin::new(LONG);
        while !wait(&spin) {}
        assert!(Spinning::new([&spin]).goes_on(Wait::at_most(LONG)));
        assert!(!Spinning::new([&spin]).goes_on(Wait::at_most(Duration::ZERO)));
    }

    #[test]
    fn of_several_ends_those_learn_that_it_was_about() {
        let ends = [Spin::new(LONG), Spin::new(LONG), Spin::new(LONG)];
        let score = |end: usize| ends[end].score.load(Ordering::Relaxed);
        while !wait(&ends[1]) {}
        let mut spinning = Spinning::new(&ends);
        assert!(spinning.goes_on(Wait::Forever), "on account of the second");
        spinning.learn(&ends[2]);
        assert_eq!((score(0), score(2)), (0, 1));
        let [before, others] = [score(1), score(0) + score(2)];
        assert!(!spinning.goes_on(Wait::Never), "no longer");
        assert_eq!(score(1), -Spin::FIRST_PENALTY, "from {before}");
        assert_eq!(score(0) + score(2), others);
        assert!(!Spinning::new(&ends).goes_on(Wait::Forever));
    }

    #[test]
    fn zero_turns_it_off() {
        let spin = Spin::new(Duration::ZERO);
        spin.score.store(Spin::MOST, Ordering::Relaxed);
        assert!(!Spinning::new([&spin]).goes_on(Wait::Forever));
    }
}
