//! From local workers to a queue.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use super::report::Tally;
use super::{Bridge, BridgeOptions, Handed, Phases};
use crate::error::{Error, Result};
use crate::rules::check_in_flight;
use crate::sender::{Sender, new_id};

/// The pauses between attempts to store something in a queue that is full, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// Sends what local processes hand over to a queue, as many at a time as the options say.
///
/// The process that handed over a value hears on `done` when the server has stored it; if it hears that `done` is
/// disconnected, the value was not stored, or it is not known. A queue that is full holds the bridge back, and so, when the
/// channel is full, those who send on it. With more than one in flight there is no order.
///
/// The bridge ends with `Ok` when all senders of the channel are gone and what they sent is stored.
///
/// # Errors
///
/// - [`Error::Local`]: the channel cannot be registered with the event loop.
/// - [`Error::Invalid`]: the options say that there are more than 16,384 jobs in flight.
///
/// # Panics
///
/// If it is called outside of a runtime of tokio.
pub fn outbound<T>(
    workers: wormhole::Receiver<Handed<T>>,
    sender: Sender<T>,
    options: BridgeOptions,
) -> Result<Bridge>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    check_in_flight(options.in_flight)?;
    let workers = wormhole::tokio::Receiver::new(workers);
    let workers = workers
        .map_err(|error| Error::local(sender.place(), "register the channel of results", error))?;
    let in_flight = options.in_flight.max(1);
    let carrier = Arc::new(Outbound {
        workers,
        sender,
        tally: Arc::new(Tally::new(options)),
    });
    let tally = Arc::clone(&carrier.tally);
    let task = |phases, _| {
        let carrier = Arc::clone(&carrier);
        async move { carrier.carry(phases).await }
    };
    Ok(Bridge::of_tasks(tally, 1..=in_flight, task, ready(())))
}

struct Outbound<T> {
    workers: wormhole::tokio::Receiver<Handed<T>>,
    sender: Sender<T>,
    tally: Arc<Tally>,
}

impl<T: Serialize + DeserializeOwned> Outbound<T> {
    async fn carry(&self, mut phases: Phases) -> Result<()> {
        loop {
            let received = tokio::select! {
                biased;
                () = phases.finishes() => return Ok(()),
                received = self.workers.recv() => received,
            };
            let local = |error| Error::local(self.sender.place(), "take a value", error);
            let Handed { value, done } = match received {
                Ok(handed) => handed,
                Err(wormhole::Error::Disconnected) => return Ok(()),
                Err(error @ wormhole::Error::Io { .. }) => return Err(local(error)),
                Err(error) => {
                    self.tally.refused(&local(error));
                    continue;
                }
            };
            let id = new_id();
            let stored = tokio::select! {
                stored = store(&self.sender, &id, &value) => stored,
                () = phases.gives_back() => {
                    self.tally.given_back();
                    return Ok(());
                }
            };
            match stored {
                Ok(()) => {
                    self.tally.done();
                    // If nobody waits for it, that is fine.
                    let _ = done.try_send(());
                }
                Err(error) if is_of_value(&error) => self.tally.refused(&error),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Stores a value, and waits while the queue is full.
pub(super) async fn store<T: Serialize>(sender: &Sender<T>, id: &str, value: &T) -> Result<()> {
    let sender = sender.by_ref();
    let mut pause = FIRST_PAUSE;
    loop {
        match sender.send_with_id(id, value).await {
            Ok(_) => return Ok(()),
            Err(Error::Full { .. }) => sleep(pause).await,
            Err(error) => return Err(error),
        }
        pause = LAST_PAUSE.min(pause * 2);
    }
}

/// Whether the value is at fault, and not the queue.
pub(super) fn is_of_value(error: &Error) -> bool {
    matches!(error, Error::TooLarge { .. } | Error::Encode { .. })
}
