//! How long a call may wait.

use std::time::{Duration, Instant};

/// How long a call may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// Not at all.
    Never,
    /// Until the deadline.
    Until(Instant),
    /// For as long as it takes.
    Forever,
}

impl Wait {
    /// Waits that long from now. A time beyond what the clock can express is for ever.
    pub(crate) fn at_most(timeout: Duration) -> Self {
        Instant::now()
            .checked_add(timeout)
            .map_or(Wait::Forever, Wait::Until)
    }

    /// Whether there is no time at all to sleep.
    pub(crate) fn is_over(self) -> bool {
        match self {
            Wait::Never => true,
            Wait::Until(deadline) => deadline <= Instant::now(),
            Wait::Forever => false,
        }
    }
}
