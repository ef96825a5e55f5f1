//! How a bridge works.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;

/// How a bridge works: how many jobs it has in flight, and what happens to those that fail.
///
/// # Examples
///
/// ```
/// use wormhole_nats::BridgeOptions;
///
/// let options = BridgeOptions::new(4).on_problem(|error| eprintln!("{error:#}"));
/// # let _ = options;
/// ```
#[derive(Clone)]
#[must_use]
pub struct BridgeOptions {
    pub(super) in_flight: usize,
    pub(super) retry_after: Duration,
    on_problem: Option<Listener>,
}

type Listener = Arc<dyn Fn(&Error) + Send + Sync>;

impl BridgeOptions {
    /// Starts from the defaults, with so many jobs in flight at a time: as many as there are workers, and 16,384 at most. 0
    /// counts as 1; for a pool it is the number of its workers.
    pub fn new(in_flight: usize) -> Self {
        BridgeOptions {
            in_flight,
            retry_after: Duration::ZERO,
            on_problem: None,
        }
    }

    /// Sets after which time a job that failed in a pool, or whose worker was killed, is with another receiver. At once by
    /// default.
    pub fn retry_after(mut self, time: Duration) -> Self {
        self.retry_after = time;
        self
    }

    /// Calls `tell` with each error that concerns one job and does not end the bridge: [`Error::Decode`],
    /// [`Error::Exhausted`], a result that is [`Error::TooLarge`]. It must not block.
    pub fn on_problem(mut self, tell: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        self.on_problem = Some(Arc::new(tell));
        self
    }

    pub(super) fn tell(&self, error: &Error) {
        if let Some(tell) = &self.on_problem {
            tell(error);
        }
    }
}

impl fmt::Debug for BridgeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BridgeOptions")
            .field("in_flight", &self.in_flight)
            .field("retry_after", &self.retry_after)
            .finish_non_exhaustive()
    }
}
