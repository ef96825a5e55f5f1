//! Bridges between a queue and the workers of this machine.

mod inbound;
mod options;
mod outbound;
mod pool;
mod report;

use std::fmt;
use std::future::pending;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use self::report::Tally;
use crate::error::Result;

pub use inbound::inbound;
pub use options::BridgeOptions;
pub use outbound::outbound;
pub use pool::{Failed, Outcome, pool, pool_outcomes};
pub use report::Report;

/// A job on a local channel, and the end on which its worker says that it is done.
///
/// A worker that drops `done` without a word, or is killed, gives the job back. As a message it is an object of these two
/// members, for workers in any language: `{"value":"worm.png","done":0}`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "T: Serialize", deserialize = "T: Deserialize<'de>"))]
pub struct Handed<T> {
    /// The job.
    pub value: T,
    /// To be sent on when the job is done.
    pub done: wormhole::Sender<()>,
}

/// A running bridge: [`inbound`], [`outbound`], [`pool`].
///
/// It runs in tasks of the runtime in which it was made. **Dropping it gives back at once** what is in hand, which workers
/// may still be at: [`stop`](Self::stop) lets them finish first. The queue and its consumer stay in any case.
///
/// An outage of the server ends no bridge: it goes on when the server is back.
#[must_use = "a bridge that is dropped stops"]
pub struct Bridge {
    phase: watch::Sender<Phase>,
    tally: Arc<Tally>,
    /// `None` when it has said how it ended.
    running: Option<JoinHandle<Result<()>>>,
}

/// How far a bridge has been stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Runs,
    /// It takes no more, and finishes what it has.
    Finishes,
    /// It gives back what it has.
    GivesBack,
}

/// A task's view of the phase.
#[derive(Clone, Debug)]
struct Phases(watch::Receiver<Phase>);

impl Phases {
    /// Waits until the bridge takes no more.
    async fn finishes(&mut self) {
        self.later_than(Phase::Runs).await;
    }

    /// Waits until the bridge gives back what it has.
    async fn gives_back(&mut self) {
        self.later_than(Phase::Finishes).await;
    }

    /// Waits until the phase is a later one.
    async fn later_than(&mut self, now: Phase) -> Phase {
        if let Ok(phase) = self.0.wait_for(|phase| *phase > now).await {
            return *phase;
        }
        // The bridge was dropped: this task is about to be.
        pending().await
    }
}

impl Bridge {
    /// Stops the bridge: it takes no more, and waits until the workers have finished, or given back, what they have.
    ///
    /// `Ok` means that each job that it took is done, or given back for other machines, so the program may end. While the
    /// server is away it cannot hear that a job is given back, nor does a server that is stopped within ten seconds: such a
    /// job is with another machine after the [ack wait](crate::Options::ack_wait). The queue and its consumer stay.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait), if it had ended by itself.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, so is the bridge: what it has is given back at once.
    pub async fn stop(self) -> Result<()> {
        self.phase.send_replace(Phase::Finishes);
        self.end().await
    }

    /// Stops the bridge, and gives back what the workers have not finished after that time.
    ///
    /// They may still be at it, so it may be done twice. A worker that has not begun can see it:
    /// [`is_disconnected`](wormhole::Sender::is_disconnected) of `done`. A pool's workers are killed.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait), if it had ended by itself.
    ///
    /// # Cancel safety
    ///
    /// As [`stop`](Self::stop).
    pub async fn stop_within(mut self, time: Duration) -> Result<()> {
        self.phase.send_replace(Phase::Finishes);
        if let Ok(ended) = timeout(time, self.wait()).await {
            return ended;
        }
        self.phase.send_replace(Phase::GivesBack);
        self.end().await
    }

    async fn end(mut self) -> Result<()> {
        self.wait().await
    }

    /// Waits until the bridge ends by itself, and says why. Once it has, `Ok`.
    ///
    /// An outbound bridge ends with `Ok` when every local sender is gone and everything is stored. The others end only by
    /// an error.
    ///
    /// # Errors
    ///
    /// - [`Error::Disconnected`](crate::Error::Disconnected): the queue was deleted, or the client closed.
    /// - [`Error::Local`](crate::Error::Local): the workers are gone, the pool starts no more of them, or this process is
    ///   out of descriptors.
    /// - [`Error::Server`](crate::Error::Server): the server refused something.
    ///
    /// What it had is given back, or finished.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped and made anew without harm.
    pub async fn wait(&mut self) -> Result<()> {
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        let ended = running.await;
        self.running = None;
        match ended {
            Ok(ended) => ended,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is shut down.
            Err(_) => Ok(()),
        }
    }

    /// Returns what has become of the jobs so far.
    pub fn report(&self) -> Report {
        self.tally.report()
    }

    /// Runs tasks that each carry one job at a time, until all have ended, and then another one. The first one that fails
    /// stops the others.
    fn of_tasks<F>(
        tally: Arc<Tally>,
        numbers: RangeInclusive<usize>,
        mut task: impl FnMut(Phases, usize) -> F,
        last: impl Future<Output = ()> + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let (phase, phases) = watch::channel(Phase::Runs);
        let phases = Phases(phases);
        let mut tasks = JoinSet::new();
        for number in numbers {
            tasks.spawn(task(phases.clone(), number));
        }
        let stop = phase.clone();
        let running = async move {
            let mut result = Ok(());
            while let Some(ended) = tasks.join_next().await {
                let ended = ended.unwrap_or_else(|error| match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => Ok(()),
                });
                stop.send_if_modified(|phase| {
                    let runs = *phase == Phase::Runs;
                    *phase = (*phase).max(Phase::Finishes);
                    runs
                });
                result = result.and(ended);
            }
            last.await;
            result
        };
        Bridge {
            phase,
            tally,
            running: Some(tokio::spawn(running)),
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge")
            .field("phase", &*self.phase.borrow())
            .field("report", &self.report())
            .finish_non_exhaustive()
    }
}
