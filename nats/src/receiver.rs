//! The receiving side of a queue.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::Message;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use wormhole::Raw;

use crate::answer::Delivered;
use crate::delivery::Delivery;
use crate::error::{Error, Place, Result};
use crate::excerpt::excerpt;
use crate::inboxes::{Inboxes, OPERATION};
use crate::job::Job;
use crate::queue::Limits;

/// Receives jobs from a queue. [`Queue::receiver`](crate::Queue::receiver) makes one.
///
/// It asks for **one** job, when it is told to, and has none in store: a job that this program does not work on waits
/// for others. Any number of tasks may receive from one, or from clones, which share what they count.
pub struct Receiver<T> {
    inner: Arc<Inner>,
    types: PhantomData<fn() -> T>,
}

#[derive(Debug)]
struct Inner {
    inboxes: Arc<Inboxes>,
    limits: Limits,
    refused: AtomicU64,
    exhausted: AtomicU64,
}

impl<T> Receiver<T> {
    pub(crate) fn new(inboxes: Arc<Inboxes>, limits: Limits) -> Self {
        Receiver {
            inner: Arc::new(Inner {
                inboxes,
                limits,
                refused: AtomicU64::new(0),
                exhausted: AtomicU64::new(0),
            }),
            types: PhantomData,
        }
    }

    /// Returns how many messages this receiver and its clones have refused because they were no `T`:
    /// [`Error::Decode`].
    pub fn refused(&self) -> u64 {
        self.inner.refused.load(Ordering::Relaxed)
    }

    /// Returns how many jobs this receiver and its clones have refused because they were delivered too often:
    /// [`Error::Exhausted`].
    pub fn exhausted(&self) -> u64 {
        self.inner.exhausted.load(Ordering::Relaxed)
    }

    pub(crate) fn place(&self) -> Place {
        self.inner.inboxes.link.place()
    }

    /// Waits until the server has heard what became of dropped jobs and of dropped calls.
    pub(crate) async fn told(&self) {
        self.inner.inboxes.told().await;
    }

    pub(crate) fn max_deliveries(&self) -> u64 {
        self.inner.limits.max_deliveries
    }
}

impl<T: DeserializeOwned> Receiver<T> {
    /// Asks for a job and waits until there is one.
    ///
    /// `Ok` means that no other receiver gets it, as long as this program holds the [`Job`] and shows signs of life.
    /// Waits while the server is away, without end: see [`recv_timeout`](Self::recv_timeout).
    ///
    /// # Errors
    ///
    /// - [`Error::Decode`]: a message came that is no `T`. It was refused for good, and counted. Receive the next one.
    /// - [`Error::Exhausted`]: a job came more often than it may. It was refused for good, and counted. Receive the next
    ///   one.
    /// - [`Error::Disconnected`]: the stream or its consumer was deleted, or the client closed.
    /// - [`Error::Server`]: the server refused the request for another reason, such as a limit of a consumer that was made by
    ///   others.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, no job is lost. The request stays open for a tenth of a second: a
    /// `recv` within that time goes on with it, so a loop around `tokio::select!` gets its job however often it is
    /// interrupted. Then it is withdrawn, and a job that came meanwhile is given back, which counts as a delivery.
    pub async fn recv(&self) -> Result<Job<T>> {
        let (message, delivered) = self.inner.inboxes.next().await?;
        self.open(message, delivered)
    }

    /// As [`recv`](Self::recv), and waits for at most `time`.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), and [`Error::TimedOut`].
    ///
    /// # Cancel safety
    ///
    /// As [`recv`](Self::recv).
    pub async fn recv_timeout(&self, time: Duration) -> Result<Job<T>> {
        timeout(time, self.recv()).await.unwrap_or_else(|_| {
            Err(Error::TimedOut {
                place: self.place(),
                operation: OPERATION,
                after: time,
            })
        })
    }

    /// Asks for a job that is there already. Waits for the server's answer only, and for the server if it is away.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), and [`Error::Empty`]: no job is waiting.
    ///
    /// # Cancel safety
    ///
    /// As [`recv`](Self::recv).
    pub async fn try_recv(&self) -> Result<Job<T>> {
        let (message, delivered) = self.inner.inboxes.look().await?;
        self.open(message, delivered)
    }

    /// Makes a job of a message, or refuses it. Nothing is awaited here, so that none is lost on the way.
    fn open(&self, message: Message, delivered: Delivered) -> Result<Job<T>> {
        let Inner {
            inboxes, limits, ..
        } = &*self.inner;
        let link = &inboxes.link;
        let payload = message.payload.clone();
        let delivery = Delivery::new(link, limits, message, delivered);
        let deliveries = delivered.deliveries.saturating_sub(1);
        if deliveries >= limits.max_deliveries {
            let error = Error::Exhausted {
                place: link.place(),
                sequence: delivered.sequence,
                id: delivery.id().to_owned(),
                deliveries,
                text: excerpt(String::from_utf8_lossy(&payload)),
            };
            self.inner.exhausted.fetch_add(1, Ordering::Relaxed);
            delivery.refuse_later(&error);
            return Err(error);
        }
        match decode(&payload) {
            Ok(value) => Ok(Job::new(value, delivery)),
            Err(reason) => {
                let error = Error::Decode {
                    place: link.place(),
                    sequence: delivered.sequence,
                    type_name: std::any::type_name::<T>(),
                    reason,
                };
                self.inner.refused.fetch_add(1, Ordering::Relaxed);
                delivery.refuse_later(&error);
                Err(error)
            }
        }
    }
}

/// Reads the same text as in a local channel.
fn decode<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(text).map_err(excerpt)?;
    let message = Raw::from_parts(text.to_owned(), Vec::new());
    match message.and_then(Raw::decode) {
        Ok(value) => Ok(value),
        Err(wormhole::Error::Encode { reason, .. } | wormhole::Error::Decode { reason, .. }) => {
            Err(reason)
        }
        Err(error) => Err(format!("{error:#}")),
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Receiver {
            inner: Arc::clone(&self.inner),
            types: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver")
            .field(&self.inner.inboxes.link.name)
            .finish()
    }
}
