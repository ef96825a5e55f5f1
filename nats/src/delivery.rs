//! A job in hand: what the server waits for until it gives it to another receiver.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message, Subject};
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::answer::Delivered;
use crate::ask::GIVE_BACK;
use crate::error::{Place, Result};
use crate::excerpt::excerpt;
use crate::link::Link;
use crate::options::LONGEST;
use crate::queue::Limits;
use crate::rules::check_id;
use crate::sender::ID;

const DONE: &[u8] = b"+ACK";
const PROGRESS: &[u8] = b"+WPI";
const REFUSE: &[u8] = b"+TERM";

/// With an ack wait below that a job is reported when it is received, too: it may have waited in an inbox for as long as the
/// request of a dropped call is kept, which is a good part of it.
const SHORT: Duration = Duration::from_secs(1);

/// The acknowledgement of a job that is not given yet: [`Job::into_parts`](crate::Job::into_parts).
///
/// While it is there the server hears of it at a third of the [ack wait](crate::Options::ack_wait), from a task of the
/// runtime in which the queue was opened, and gives the job to no other receiver. **Dropping it gives the job back at
/// once**, by a task of that runtime, from any thread. When the runtime or the program ends before that task has run, the
/// job is with another receiver after the ack wait: at the end of a program, `retry(Duration::ZERO)` waits for it.
pub struct Delivery {
    link: Arc<Link>,
    reply: Subject,
    delivered: Delivered,
    id: String,
    progress: AbortHandle,
    is_settled: bool,
}

impl Delivery {
    /// Takes over a message that is a job.
    pub(crate) fn new(
        link: &Arc<Link>,
        limits: &Limits,
        message: Message,
        delivered: Delivered,
    ) -> Self {
        let reply = message.reply.unwrap_or_else(|| Subject::from_static(""));
        let id = message.headers.and_then(|headers| {
            let id = headers.get(ID)?.as_str();
            check_id(id).is_ok().then(|| id.to_owned())
        });
        let id = id.unwrap_or_else(|| format!("{}/{}", link.name, delivered.sequence));
        if limits.ack_wait < SHORT {
            // Not by a task: after the word that the job is given back it would count.
            let progress = Bytes::from_static(PROGRESS);
            let _ = link.client.publish(reply.clone(), progress).now_or_never();
        }
        let reporter = report(link.client.clone(), reply.clone(), limits.ack_wait / 3);
        Delivery {
            link: Arc::clone(link),
            reply,
            delivered,
            id,
            progress: link.runtime.spawn(reporter).abort_handle(),
            is_settled: false,
        }
    }

    /// Returns the id that the job was sent with, or its stream and number in that, `jobs/17`, if it was sent without an
    /// id, or with one that is not 1 to 255 visible ASCII characters.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the job's number in the stream.
    pub fn sequence(&self) -> u64 {
        self.delivered.sequence
    }

    /// Returns how often the job was delivered, this time included: 1 for the first time.
    pub fn deliveries(&self) -> u64 {
        self.delivered.deliveries
    }

    /// Returns how long ago the job was stored, by the clocks of the server and of this machine.
    pub fn age(&self) -> Duration {
        self.delivered.age()
    }

    pub(crate) fn place(&self) -> Place {
        self.link.place()
    }

    /// An id for what comes of the job, the same however often it is delivered, and no one else's.
    pub(crate) fn result_id(&self) -> String {
        // Not the job's own id, which its sender may have used before.
        let Delivered {
            sequence, stored, ..
        } = self.delivered;
        format!("{}/{sequence}/{}", self.link.name, stored.as_nanos())
    }

    /// Says that the job is done, and waits for the server to confirm that.
    ///
    /// `Ok` means that the job is out of the queue. If the job was held for longer than the
    /// [ack wait](crate::Options::ack_wait) without a sign of life, say because this process was stopped or the server
    /// away, another receiver may have it by now, and do it once more. A server that was killed meanwhile may have forgotten
    /// that it has delivered the job, and deliver it again.
    ///
    /// Waits while the server is away, without end.
    ///
    /// # Errors
    ///
    /// - [`Error::Disconnected`](crate::Error::Disconnected): the stream was deleted, or the client closed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the job is done or given back.
    pub async fn done(self) -> Result<()> {
        self.settle("confirm a job of", Bytes::from_static(DONE))
            .await
    }

    /// Gives the job back, for another receiver to have it after that time, at most 2^32 seconds, and waits for the server to
    /// confirm that.
    ///
    /// # Errors
    ///
    /// As [`done`](Self::done).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the job is given back, after that time or at once.
    pub async fn retry(self, after: Duration) -> Result<()> {
        let word = match after.min(LONGEST).as_nanos() {
            0 => Bytes::from_static(GIVE_BACK),
            delay => format!("-NAK {{\"delay\":{delay}}}").into(),
        };
        self.settle("give back a job of", word).await
    }

    /// Refuses the job for good, and waits for the server to confirm that: no receiver gets it again.
    ///
    /// The server tells the reason to those who listen to its advisories (since 2.10).
    ///
    /// # Errors
    ///
    /// As [`done`](Self::done).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the job is refused or given back.
    pub async fn refuse(self, reason: &str) -> Result<()> {
        self.give_reason(reason).await;
        self.settle("refuse a job of", Bytes::from_static(REFUSE))
            .await
    }

    /// Refuses the job, by a task of the runtime.
    pub(crate) fn refuse_later(self, reason: impl fmt::Display) {
        let reason = reason.to_string();
        let link = Arc::clone(&self.link);
        link.tell(async move {
            let _ = self.refuse(&reason).await;
        });
    }

    /// Refuses with a reason, which servers before 2.10 do not understand, and so pass over.
    async fn give_reason(&self, reason: &str) {
        let word = format!("+TERM {}", excerpt(reason));
        let _ = self
            .link
            .client
            .publish(self.reply.clone(), word.into())
            .await;
    }

    async fn settle(mut self, operation: &'static str, word: Bytes) -> Result<()> {
        // A sign of life that comes after the word would be one of a job in hand: the server would give it on too soon.
        self.progress.abort();
        self.link.settle(operation, &self.reply, &word).await?;
        self.is_settled = true;
        Ok(())
    }
}

/// Says that a job is worked on, again and again.
async fn report(client: Client, reply: Subject, every: Duration) {
    loop {
        sleep(every).await;
        let progress = Bytes::from_static(PROGRESS);
        if client.publish(reply.clone(), progress).await.is_err() {
            return;
        }
    }
}

async fn give_back(client: Client, reply: Subject) {
    let word = Bytes::from_static(GIVE_BACK);
    if client.publish(reply, word).await.is_ok() {
        // With its last handle, which this may be, the client forgets what it has not written.
        let _ = client.flush().await;
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.progress.abort();
        if !self.is_settled {
            let client = self.link.client.clone();
            let reply = self.reply.clone();
            self.link.tell(give_back(client, reply));
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("stream", &self.link.name)
            .field("sequence", &self.delivered.sequence)
            .field("id", &self.id)
            .field("deliveries", &self.delivered.deliveries)
            .finish_non_exhaustive()
    }
}
