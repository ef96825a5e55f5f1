//! How long a call may wait.

use std::time::{Duration, Instant};

/// How long a call may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// Not at all.
    Never,
    /// Until the deadline, from when the call began.
    Until { deadline: Instant, since: Instant },
    /// For as long as it takes.
    Forever,
}

impl Wait {
    /// Waits that long from now. A time beyond what the clock can express is forever.
    pub(crate) fn at_most(timeout: Duration) -> Self {
        let since = Instant::now();
        let deadline = since.checked_add(timeout);
        deadline.map_or(Wait::Forever, |deadline| Wait::Until { deadline, since })
    }

    pub(crate) fn until(deadline: Instant) -> Self {
        let since = Instant::now();
        Wait::Until { deadline, since }
    }

    /// How long a wait has taken that is over because its deadline has passed.
    pub(crate) fn length(self) -> Duration {
        match self {
            Wait::Until { deadline, since } => deadline.saturating_duration_since(since),
            Wait::Never | Wait::Forever => Duration::ZERO,
        }
    }

    /// Whether there is no time at all to sleep.
    pub(crate) fn is_over(self) -> bool {
        match self {
            Wait::Never => true,
            Wait::Until { deadline, .. } => deadline <= Instant::now(),
            Wait::Forever => false,
        }
    }
}
