//! From a queue to local workers.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::report::Tally;
use super::{Bridge, BridgeOptions, Handed, Phases};
use crate::delivery::Delivery;
use crate::error::{Error, Result};
use crate::receiver::Receiver;
use crate::rules::check_in_flight;

/// Hands jobs from a queue to the workers of a local channel, as many at a time as the options say.
///
/// A worker receives a [`Handed`] job, does it, and sends on its `done`; then the job is done in the queue. If the worker
/// drops `done` without a word, or is killed, the job is given back at once, for another machine. Any number of processes
/// may receive from the channel.
///
/// The bridge ends with [`Error::Local`] when all receivers of the channel are gone. Keep none in this process.
///
/// # Errors
///
/// - [`Error::Local`]: the channel cannot be registered with the event loop.
/// - [`Error::Invalid`]: the options say that there are more than 16,384 jobs in flight.
///
/// # Panics
///
/// If it is called outside of a runtime of tokio.
///
/// # Examples
///
/// ```no_run
/// use wormhole_nats::{BridgeOptions, Handed, Options, Queue, async_nats, inbound};
///
/// fn work(jobs: wormhole::Receiver<Handed<String>>) {
///     while let Ok(Handed { value, done }) = jobs.recv() {
///         println!("{value}");
///         let _ = done.send(());
///     }
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let (tx, rx) = wormhole::channel()?;
///     let _workers = [wormhole::spawn(rx.clone(), work)?, wormhole::spawn(rx, work)?];
///
///     let runtime = tokio::runtime::Runtime::new()?; // after the forks, as it starts threads
///     runtime.block_on(async {
///         let client = async_nats::connect("nats://127.0.0.1:4222").await?;
///         let queue = Queue::<String>::open(client, "jobs", Options::new()).await?;
///         let mut bridge = inbound(queue.receiver(), tx, BridgeOptions::new(2))?;
///         tokio::select! {
///             ended = bridge.wait() => ended?,
///             _ = tokio::signal::ctrl_c() => bridge.stop().await?,
///         }
///         Ok(())
///     })
/// }
/// ```
pub fn inbound<T>(
    receiver: Receiver<T>,
    workers: wormhole::Sender<Handed<T>>,
    options: BridgeOptions,
) -> Result<Bridge>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    check_in_flight(options.in_flight)?;
    let workers = wormhole::tokio::Sender::new(workers);
    let workers = workers
        .map_err(|error| Error::local(receiver.place(), "register the channel of jobs", error))?;
    let in_flight = options.in_flight.max(1);
    let carrier = Arc::new(Inbound {
        receiver,
        workers,
        tally: Arc::new(Tally::new(options)),
    });
    let tally = Arc::clone(&carrier.tally);
    let task = |phases, number| {
        let carrier = Arc::clone(&carrier);
        async move {
            match number {
                0 => carrier.watch(phases).await,
                _ => carrier.carry(phases).await,
            }
        }
    };
    let receiver = carrier.receiver.clone();
    let told = async move { receiver.told().await };
    Ok(Bridge::of_tasks(tally, 0..=in_flight, task, told))
}

struct Inbound<T> {
    receiver: Receiver<T>,
    workers: wormhole::tokio::Sender<Handed<T>>,
    tally: Arc<Tally>,
}

impl<T: Serialize + DeserializeOwned> Inbound<T> {
    /// Ends the bridge when there are no workers, before it takes a job.
    async fn watch(&self, mut phases: Phases) -> Result<()> {
        tokio::select! {
            () = phases.finishes() => Ok(()),
            closed = self.workers.closed() => {
                let error = closed.err().unwrap_or(wormhole::Error::Disconnected);
                Err(self.local("hand a job to a worker", error))
            }
        }
    }

    /// Carries one job after the other.
    async fn carry(&self, mut phases: Phases) -> Result<()> {
        loop {
            let received = tokio::select! {
                biased;
                () = phases.finishes() => return Ok(()),
                received = self.receiver.recv() => received,
            };
            let job = match received {
                Ok(job) => job,
                Err(error @ (Error::Decode { .. } | Error::Exhausted { .. })) => {
                    self.tally.refused(&error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (value, delivery) = job.into_parts();
            tokio::select! {
                carried = self.carry_one(value, delivery) => carried?,
                // What is in hand is dropped, and so given back.
                () = phases.gives_back() => {
                    self.tally.given_back();
                    return Ok(());
                }
            }
        }
    }

    async fn carry_one(&self, value: T, delivery: Delivery) -> Result<()> {
        let channel = wormhole::channel();
        let channel = channel.and_then(|(done, word)| {
            let word = wormhole::tokio::Receiver::new(word)?;
            Ok((done, word))
        });
        let (done, word) =
            channel.map_err(|error| self.local("make a channel for a job", error))?;
        match self.workers.send(Handed { value, done }).await {
            Ok(()) => {}
            Err(error @ (wormhole::Error::TooLarge { .. } | wormhole::Error::Encode { .. })) => {
                let error = self.local("hand a job to a worker", error);
                self.tally.refused(&error);
                return delivery.refuse(&format!("{error:#}")).await;
            }
            Err(error) => {
                self.tally.given_back();
                return Err(self.local("hand a job to a worker", error));
            }
        }
        match word.recv().await {
            Ok(()) => {
                delivery.done().await?;
                self.tally.done();
            }
            // The worker has dropped it or is dead, or talks nonsense.
            Err(_) => {
                let retry_after = self.tally.options.retry_after;
                self.tally.given_back();
                if !retry_after.is_zero() {
                    delivery.retry(retry_after).await?;
                }
            }
        }
        Ok(())
    }

    fn local(&self, operation: &'static str, error: wormhole::Error) -> Error {
        Error::local(self.receiver.place(), operation, error)
    }
}
