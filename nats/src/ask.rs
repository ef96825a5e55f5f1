//! A request for one job: an inbox of its own, and what has come of it.

use std::time::{Duration, Instant};

use async_nats::{Client, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{sleep, timeout};

use crate::answer::{Answer, Arrived};
use crate::error::Result;
use crate::link::{CONSUMER, LATE, Link};

/// How long the server keeps a request. Then it says so, and it is made again.
const EXPIRES: Duration = Duration::from_secs(5);

/// After that time without an answer a request is taken for lost.
const SILENCE: Duration = Duration::from_secs(8);

/// How often a wait looks whether the connection is still that of the request.
const LOOK: Duration = Duration::from_millis(250);

/// Gives a job back at once.
pub(crate) const GIVE_BACK: &[u8] = b"-NAK";

/// An inbox, and perhaps a request that is not answered yet. A request has exactly one answer, a job or a status.
#[derive(Debug)]
pub(crate) struct Ask {
    inbox: Subject,
    subscriber: Subscriber,
    /// How many messages have come.
    received: u64,
    /// Whether a request is open, which a job may be on its way for.
    pub(crate) is_open: bool,
    /// Which connection the request was made on.
    connects: u64,
    since: Instant,
}

/// What a request came to.
pub(crate) enum Came {
    Job(Box<Arrived>),
    /// No job, and none will come.
    Over,
    /// The same, and the next request should wait a little.
    Busy,
    /// The server says that there is no consumer.
    Gone,
    /// The server says that it has no job for such a request, and why.
    Refused(String),
    /// Nothing was heard for a long time, or the connection is another one: a job may still come, or be lost.
    Lost,
    Closed,
}

impl Ask {
    /// Makes an inbox.
    pub(crate) async fn new(link: &Link) -> Result<Self> {
        let inbox = Subject::from(link.client.new_inbox());
        let subscriber = link.client.subscribe(inbox.clone()).await;
        Ok(Ask {
            subscriber: subscriber.map_err(|_| link.closed())?,
            inbox,
            received: 0,
            is_open: false,
            connects: 0,
            since: Instant::now(),
        })
    }

    /// Asks for one job. `waits`: until there is one.
    ///
    /// If the future is dropped before it is ready, nothing was asked.
    pub(crate) async fn request(&mut self, link: &Link, waits: bool) -> Result<()> {
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{CONSUMER}", link.name);
        let question = match waits {
            true => format!(r#"{{"batch":1,"expires":{}}}"#, EXPIRES.as_nanos()),
            false => r#"{"batch":1,"no_wait":true}"#.to_owned(),
        };
        let connects = link.connects();
        let client = &link.client;
        let asked = client.publish_with_reply(subject, self.inbox.clone(), question.into());
        asked.await.map_err(|_| link.closed())?;
        self.is_open = true;
        self.connects = connects;
        self.since = Instant::now();
        Ok(())
    }

    /// Waits for what the open request comes to. If the future is dropped before it is ready, nothing was taken.
    pub(crate) async fn came(&mut self, link: &Link) -> Came {
        loop {
            let message = tokio::select! {
                biased;
                message = self.subscriber.next() => message,
                () = sleep(LOOK) => {
                    let is_lost = link.is_connected() && link.connects() != self.connects;
                    if is_lost || self.since.elapsed() > SILENCE {
                        return Came::Lost;
                    }
                    continue;
                }
            };
            let Some(message) = message else {
                return Came::Closed;
            };
            self.received += 1;
            let came = match Answer::of(&message, &link.name, CONSUMER) {
                Answer::Job(delivered) => Came::Job(Box::new((message, delivered))),
                Answer::Over => Came::Over,
                Answer::Busy => Came::Busy,
                Answer::Gone => Came::Gone,
                Answer::Refused(reason) => Came::Refused(reason),
                Answer::Heartbeat | Answer::Foreign => continue,
            };
            self.is_open = false;
            return came;
        }
    }

    /// A job that has come for the open request already.
    pub(crate) fn waiting(&mut self, link: &Link) -> Option<Arrived> {
        match self.came(link).now_or_never()? {
            Came::Job(arrived) => Some(*arrived),
            _ => None,
        }
    }

    /// Withdraws the request.
    ///
    /// The server forgets a request with nobody to answer to. To unsubscribe would do that, but then the client throws away
    /// a job that is on its way, and it would be nobody's until the ack wait is over. So both sides are told that the inbox
    /// ends with one more message, and an empty one is sent there: what comes first, that or an answer, is the last.
    async fn withdraw(&mut self, client: &Client) -> bool {
        let last = self.received + 1;
        self.subscriber.unsubscribe_after(last).await.is_ok()
            && client
                .publish(self.inbox.clone(), Bytes::new())
                .await
                .is_ok()
    }
}

/// Withdraws requests, and gives back what jobs have come for them.
///
/// All of them first: otherwise a job that is given back comes to the next one.
pub(crate) async fn withdraw(client: Client, name: &str, mut asks: Vec<Ask>) {
    let mut are_withdrawn = true;
    for ask in &mut asks {
        are_withdrawn &= ask.withdraw(&client).await;
    }
    if !are_withdrawn {
        return; // the client is closed
    }
    for mut ask in asks {
        let give_back = async {
            while let Some(message) = ask.subscriber.next().await {
                let answer = Answer::of(&message, name, CONSUMER);
                if let (Answer::Job(_), Some(reply)) = (answer, message.reply) {
                    let word = Bytes::from_static(GIVE_BACK);
                    let _ = client.publish(reply, word).await;
                }
            }
        };
        let _ = timeout(LATE, give_back).await;
    }
    // With its last handle, which this may be, the client forgets what it has not written.
    let _ = client.flush().await;
}
