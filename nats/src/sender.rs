//! The sending side of a queue.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;
use wormhole::Raw;

use crate::error::{Error, Place, Result};
use crate::excerpt::excerpt;
use crate::link::{Fault, Link, MESSAGE_TOO_LONG, PAUSE};
use crate::queue::{Limits, max_message};
use crate::rules::check_id;

/// The header by which the server knows a job again.
pub(crate) const ID: &str = "Nats-Msg-Id";

/// The header by which the server refuses a job if the subject belongs to another stream.
const STREAM: &str = "Nats-Expected-Stream";

/// Sends jobs to a queue, from any number of tasks. [`Queue::sender`](crate::Queue::sender) makes one.
///
/// A send is **at least once**: it is made again, with the same id, until the server has answered, and the server drops
/// what it knows by its id. It forgets ids after the [duplicate window](crate::Options::duplicate_window), and, when it is
/// started again, those of jobs that are done. So an outage that is longer, or a restart at the wrong moment, can store a
/// job twice.
pub struct Sender<T> {
    link: Arc<Link>,
    limits: Limits,
    types: PhantomData<fn(T)>,
}

/// What the server says of a job that it has stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Stored {
    /// The job's number in the stream.
    pub sequence: u64,
    /// Whether a job of the same id was there already, so that this one was dropped: `sequence` is that of the other.
    ///
    /// If the server's answer was lost, the other one may be this very job.
    pub is_duplicate: bool,
}

impl<T> Sender<T> {
    pub(crate) fn new(link: Arc<Link>, limits: Limits) -> Self {
        let types = PhantomData;
        Sender {
            link,
            limits,
            types,
        }
    }

    pub(crate) fn place(&self) -> Place {
        self.link.place()
    }
}

impl<T: Serialize> Sender<T> {
    /// Sends a job under a new id. `Ok` means that the server has stored it.
    ///
    /// Waits while the server is away, without end: see [`send_timeout`](Self::send_timeout). To have the job when it
    /// fails, send a reference: a `Sender<&T>` comes from [`by_ref`](Self::by_ref).
    ///
    /// # Errors
    ///
    /// - [`Error::Full`]: the stream has as many jobs or bytes as it may. Nothing was stored.
    /// - [`Error::TooLarge`]: with its headers the job is longer than the server's `max_payload`, than the stream's
    ///   `max_msg_size`, or than the whole stream. Nothing was stored.
    /// - [`Error::Encode`]: it cannot be written as JSON, or holds descriptors or channel ends. Nothing was sent.
    /// - [`Error::Disconnected`]: the stream was deleted, or the client closed.
    /// - [`Error::Server`]: the server refused it for another reason.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the job may have been stored or not.
    pub async fn send(&self, job: T) -> Result<Stored> {
        let id = new_id();
        let (stored, attempts) = self.deliver(&job, &id).await?;
        Ok(Stored {
            // Another attempt of this call was there before.
            is_duplicate: stored.is_duplicate && attempts == 1,
            ..stored
        })
    }

    /// Sends a job under an id, and says whether a job with that id was there already.
    ///
    /// An id is 1 to 255 visible ASCII characters. The server knows it for the
    /// [duplicate window](crate::Options::duplicate_window), also when the job is done by then.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); [`Error::Invalid`] for an id that breaks the rule.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the job may have been stored or not. To send it again with the same
    /// id is safe.
    pub async fn send_with_id(&self, id: &str, job: T) -> Result<Stored> {
        check_id(id)?;
        Ok(self.deliver(&job, id).await?.0)
    }

    /// As [`send`](Self::send), and waits for at most `time`.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and [`Error::TimedOut`]: the job may have been stored or not.
    pub async fn send_timeout(&self, job: T, time: Duration) -> Result<Stored> {
        self.within(time, self.send(job)).await
    }

    /// As [`send_with_id`](Self::send_with_id), and waits for at most `time`.
    ///
    /// # Errors
    ///
    /// As [`send_with_id`](Self::send_with_id), and [`Error::TimedOut`]: the job may have been stored or not. To send it
    /// again with the same id is safe.
    pub async fn send_with_id_timeout(&self, id: &str, job: T, time: Duration) -> Result<Stored> {
        self.within(time, self.send_with_id(id, job)).await
    }

    async fn within(
        &self,
        time: Duration,
        send: impl Future<Output = Result<Stored>>,
    ) -> Result<Stored> {
        timeout(time, send).await.unwrap_or_else(|_| {
            Err(Error::TimedOut {
                place: self.place(),
                operation: OPERATION,
                after: time,
            })
        })
    }

    /// Makes a sender of the same queue that sends borrowed jobs: `tx.by_ref().send(&job)`.
    #[must_use]
    pub fn by_ref<'a>(&self) -> Sender<&'a T> {
        Sender::new(Arc::clone(&self.link), self.limits)
    }

    /// Sends until there is an answer, and says how often it took.
    async fn deliver(&self, job: &T, id: &str) -> Result<(Stored, u32)> {
        let text = self.encode(job)?;
        let mut headers = HeaderMap::new();
        headers.insert(ID, id);
        headers.insert(STREAM, &*self.link.name);
        let subject = Subject::from(&*self.link.name);
        let len = self.message_len(&text, id);
        let mut attempts = 0;
        loop {
            self.check_len(len)?;
            let exchange = self
                .link
                .exchange(OPERATION, &subject, Some(&headers), &text);
            let (answer, tries) = exchange.await?;
            attempts += tries;
            match Fault::of(&answer.payload) {
                Ok(answer) => {
                    let stored = self.stored(&answer);
                    return stored.map(|stored| (stored, attempts));
                }
                Err(fault) if fault.is_passing() => tokio::time::sleep(PAUSE).await,
                Err(fault) if fault.kind == MESSAGE_TOO_LONG => {
                    // The limit is another one since the queue was opened.
                    let verb = format!("STREAM.INFO.{}", self.link.name);
                    let info = self.link.api(OPERATION, &verb, &Value::Null).await?;
                    let limit = info.ok().and_then(|info| max_message(info.get("config")?));
                    return Err(self.too_large(len, limit.unwrap_or_default()));
                }
                Err(fault) => return Err(self.link.fault(OPERATION, fault)),
            }
        }
    }

    /// Reads the answer of JetStream, which any other subscriber of the subject could be faster than.
    fn stored(&self, answer: &Value) -> Result<Stored> {
        let sequence = answer.get("seq").and_then(Value::as_u64);
        let is_of_stream = answer.get("stream").and_then(Value::as_str) == Some(&self.link.name);
        let is_duplicate = answer.get("duplicate").and_then(Value::as_bool);
        match sequence {
            Some(sequence) if is_of_stream => Ok(Stored {
                sequence,
                is_duplicate: is_duplicate.unwrap_or_default(),
            }),
            _ => {
                let source = format!("the answer is not that of JetStream: {}", excerpt(answer));
                Err(Error::server(self.place(), OPERATION, source))
            }
        }
    }

    /// The same text as in a local channel.
    fn encode(&self, job: &T) -> Result<Bytes> {
        let failed = |reason| Error::Encode {
            place: self.place(),
            type_name: std::any::type_name::<T>(),
            reason,
        };
        match Raw::encode(job) {
            Ok(message) if message.fds().is_empty() => Ok(message.text().to_owned().into()),
            Ok(message) => {
                let count = message.fds().len();
                Err(failed(format!(
                    "it holds descriptors or channel ends, {count} of them, which do not leave their machine"
                )))
            }
            Err(wormhole::Error::Encode { reason, .. }) => Err(failed(reason)),
            Err(wormhole::Error::TooLarge { size, .. }) => {
                Err(self.too_large(size, self.max_payload()))
            }
            Err(error) => Err(failed(format!("{error:#}"))),
        }
    }

    fn too_large(&self, len: u64, limit: u64) -> Error {
        Error::TooLarge {
            place: self.place(),
            len,
            limit,
        }
    }

    fn max_payload(&self) -> u64 {
        self.link.client.max_payload() as u64
    }

    /// The length of a message as the server counts it.
    fn message_len(&self, text: &Bytes, id: &str) -> u64 {
        // "NATS/1.0", a line for each header, and an empty one, each with two characters at its end.
        let lines = [
            "NATS/1.0".len(),
            ID.len() + ": ".len() + id.len(),
            STREAM.len() + ": ".len() + self.link.name.len(),
            0,
        ];
        let headers: usize = lines.iter().map(|line| line + "\r\n".len()).sum();
        (headers + text.len()) as u64
    }

    /// Checks the length of a message. The server disconnects a client that sends too long a one, and would never have room
    /// for one that takes up more than the whole stream may.
    fn check_len(&self, len: u64) -> Result<()> {
        let in_stream = len + self.limits.overhead + self.link.name.len() as u64;
        let limits = [
            (len, Some(self.max_payload())),
            (len, self.limits.max_message),
            (in_stream, self.limits.max_bytes),
        ];
        for (len, limit) in limits {
            if let Some(limit) = limit.filter(|limit| len > *limit) {
                return Err(self.too_large(len, limit));
            }
        }
        Ok(())
    }
}

const OPERATION: &str = "send to";

pub(crate) fn new_id() -> String {
    nuid::next().to_string()
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender::new(Arc::clone(&self.link), self.limits)
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&self.link.name).finish()
    }
}
