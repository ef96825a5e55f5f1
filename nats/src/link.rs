//! A queue's way to the server: requests that are made again until they are answered.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Message, Request, RequestErrorKind, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::error::{Error, Place, Result};
use crate::excerpt::excerpt;

/// The durable consumer that all receivers of a queue share.
pub(crate) const CONSUMER: &str = "workers";

/// How often a request that waits for its answer looks whether the connection is still its own.
const TICK: Duration = Duration::from_millis(100);

/// After that time without an answer a request is made again, on a connection that seems to work.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause before something that a server which starts or votes could not do is tried again.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// How long the answer of a request that was withdrawn is waited for.
pub(crate) const LATE: Duration = Duration::from_secs(10);

/// So often nothing may listen where JetStream should.
const UNHEARD: u32 = 20;

/// What all parts of a queue share.
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) name: Arc<str>,
    /// For what goes on after a value is dropped.
    pub(crate) runtime: Handle,
    /// How often JetStream has answered.
    answers: AtomicU64,
    /// How many tasks tell the server what it has to hear of dropped values.
    telling: watch::Sender<usize>,
}

/// A task that tells the server something.
struct Telling(watch::Sender<usize>);

impl Telling {
    fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Telling(count.clone())
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Why a request has no answer.
enum Unanswered {
    /// The connection was lost.
    Lost,
    /// Nothing came for a long time, on a connection that seems to work.
    Silent,
    /// Nothing listens at that subject.
    Nobody,
    /// The client was closed.
    Closed,
    /// The server's limit has become smaller since it was looked at.
    TooLarge,
}

impl Link {
    pub(crate) fn new(client: Client, name: &str) -> Result<Self> {
        let link = |runtime| Link {
            client,
            name: name.into(),
            runtime,
            answers: AtomicU64::new(0),
            telling: watch::Sender::new(0),
        };
        match Handle::try_current() {
            Ok(runtime) => Ok(link(runtime)),
            Err(_) => Err(Error::Invalid {
                what: "call outside of a runtime",
                value: name.to_owned(),
                rule: "a queue is opened in a task of tokio",
            }),
        }
    }

    /// Has a task of the runtime tell the server what it has to hear of a value that is dropped.
    pub(crate) fn tell(&self, task: impl Future<Output = ()> + Send + 'static) {
        let telling = Telling::new(&self.telling);
        self.runtime.spawn(async move {
            task.await;
            drop(telling);
        });
    }

    /// Waits until the server has heard all of that: while there is a connection, and for a limited time.
    pub(crate) async fn told(&self) {
        let mut telling = self.telling.subscribe();
        let is_away = async {
            while self.is_connected() {
                sleep(TICK).await;
            }
        };
        tokio::select! {
            biased;
            _ = telling.wait_for(|count| *count == 0) => {}
            () = is_away => {}
            () = sleep(LATE) => {}
        }
    }

    /// Where an error happened.
    pub(crate) fn place(&self) -> Place {
        let Some(info) = self.client.try_server_info() else {
            return Place::new("a server that was never reached", Arc::clone(&self.name));
        };
        let mut server = format!("{}:{}", info.host, info.port);
        // The name is the id, a long one, unless it was given one.
        if !info.server_name.is_empty() && info.server_name != info.server_id {
            server = format!("{server} ({})", info.server_name);
        }
        Place::new(&server, Arc::clone(&self.name))
    }

    pub(crate) fn closed(&self) -> Error {
        Error::disconnected(self.place(), "the client is closed")
    }

    /// How often the client has connected: another number means another connection.
    pub(crate) fn connects(&self) -> u64 {
        let statistics = self.client.statistics();
        statistics.connects.load(Ordering::Relaxed)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Waits until there is a connection.
    pub(crate) async fn connected(&self) -> Result<()> {
        while !self.is_connected() {
            // It is done when the client has connected again, and fails when that is closed.
            self.client.flush().await.map_err(|_| self.closed())?;
            if !self.is_connected() {
                sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// Makes a request until it is answered, and says how often it took.
    ///
    /// It must do no harm twice.
    pub(crate) async fn exchange(
        &self,
        operation: &'static str,
        subject: &Subject,
        headers: Option<&HeaderMap>,
        payload: &Bytes,
    ) -> Result<(Message, u32)> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let answer = self.try_exchange(operation, subject, headers, payload);
            if let Some(answer) = answer.await? {
                return Ok((answer, attempts));
            }
        }
    }

    /// Settles a delivery with a word.
    ///
    /// Newer servers do not answer about a delivery that they do not know, because they were killed before they had
    /// written it down. They deliver the job again.
    pub(crate) async fn settle(
        &self,
        operation: &'static str,
        reply: &Subject,
        word: &Bytes,
    ) -> Result<()> {
        let mut silences = 0;
        while silences < 2 {
            let connects = self.connects();
            if self
                .try_exchange(operation, reply, None, word)
                .await?
                .is_some()
            {
                return Ok(());
            }
            // It answers, and not to this.
            let is_same = self.connects() == connects;
            silences += u32::from(is_same);
        }
        Ok(())
    }

    /// Makes a request once, when there is a connection. `None`: there is no answer, although the queue is there.
    async fn try_exchange(
        &self,
        operation: &'static str,
        subject: &Subject,
        headers: Option<&HeaderMap>,
        payload: &Bytes,
    ) -> Result<Option<Message>> {
        self.connected().await?;
        match self.attempt(subject, headers, payload).await {
            Ok(answer) => Ok(Some(answer)),
            Err(Unanswered::Closed) => Err(self.closed()),
            Err(Unanswered::TooLarge) => Err(Error::TooLarge {
                place: self.place(),
                len: payload.len() as u64,
                limit: self.client.max_payload() as u64,
            }),
            Err(Unanswered::Lost) => Ok(None),
            Err(Unanswered::Silent | Unanswered::Nobody) => {
                self.check_alive(operation).await?;
                sleep(PAUSE).await;
                Ok(None)
            }
        }
    }

    /// Waits until it is plain that JetStream does not answer, although the server does: on a connection that has been the
    /// same for a while, a message to an inbox of this client comes back.
    pub(crate) async fn mute(&self) {
        loop {
            let heard = || (self.connects(), self.answers.load(Ordering::Relaxed));
            let before = heard();
            sleep(2 * PATIENCE).await;
            if self.is_connected() && heard() == before && self.echoes().await {
                return;
            }
        }
    }

    async fn echoes(&self) -> bool {
        let inbox = Subject::from(self.client.new_inbox());
        let echo = async {
            let mut inbox_messages = self.client.subscribe(inbox.clone()).await.ok()?;
            self.client.publish(inbox, Bytes::new()).await.ok()?;
            inbox_messages.next().await
        };
        matches!(timeout(PATIENCE, echo).await, Ok(Some(_)))
    }

    /// Fails if the stream or its consumer was deleted.
    pub(crate) async fn check_alive(&self, operation: &'static str) -> Result<()> {
        let verb = format!("CONSUMER.INFO.{}.{CONSUMER}", self.name);
        match self.api(operation, &verb, &Value::Null).await? {
            Ok(_) => Ok(()),
            Err(fault) => Err(self.fault(operation, fault)),
        }
    }

    /// Asks the server something about streams and consumers.
    pub(crate) async fn api(
        &self,
        operation: &'static str,
        verb: &str,
        question: &Value,
    ) -> Result<Result<Value, Fault>> {
        let subject = Subject::from(format!("$JS.API.{verb}"));
        let payload = match question {
            Value::Null => Bytes::new(),
            question => question.to_string().into(),
        };
        let mut unheard = 0;
        loop {
            self.connected().await?;
            match self.attempt(&subject, None, &payload).await {
                Ok(answer) => {
                    self.answers.fetch_add(1, Ordering::Relaxed);
                    match Fault::of(&answer.payload) {
                        Ok(answer) => return Ok(Ok(answer)),
                        Err(fault) if fault.is_passing() => {}
                        Err(fault) => return Ok(Err(fault)),
                    }
                }
                Err(Unanswered::Closed) => return Err(self.closed()),
                Err(Unanswered::Lost | Unanswered::Silent | Unanswered::TooLarge) => {}
                Err(Unanswered::Nobody) if unheard < UNHEARD => unheard += 1,
                Err(Unanswered::Nobody) => {
                    let source = "JetStream is not enabled at this server, or not for this account";
                    return Err(Error::server(self.place(), operation, source));
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// What a fault means to a caller.
    pub(crate) fn fault(&self, operation: &'static str, fault: Fault) -> Error {
        let place = self.place();
        match fault.kind {
            STREAM_NOT_FOUND | STREAM_NOT_MATCH => {
                Error::disconnected(place, "the stream was deleted")
            }
            CONSUMER_NOT_FOUND => Error::disconnected(place, "the consumer was deleted"),
            STORE_FAILED if fault.description.contains("maximum") => Error::Full {
                place,
                reason: fault.description,
            },
            NO_RESOURCES | NO_STORAGE | NO_MEMORY => Error::Full {
                place,
                reason: fault.description,
            },
            _ => Error::server(place, operation, fault),
        }
    }

    /// Makes a request once.
    async fn attempt(
        &self,
        subject: &Subject,
        headers: Option<&HeaderMap>,
        payload: &Bytes,
    ) -> Result<Message, Unanswered> {
        let connects = self.connects();
        let mut request = Request::new().payload(payload.clone()).timeout(None);
        if let Some(headers) = headers {
            request = request.headers(headers.clone());
        }
        let answer = self.client.send_request(subject.clone(), request);
        tokio::select! {
            biased;
            answer = answer => answer.map_err(|error| match error.kind() {
                RequestErrorKind::NoResponders => Unanswered::Nobody,
                RequestErrorKind::TimedOut => Unanswered::Silent,
                RequestErrorKind::MaxPayloadExceeded => Unanswered::TooLarge,
                _ => Unanswered::Closed,
            }),
            why = self.unanswered(connects) => Err(why),
        }
    }

    /// Waits until the connection is another one, or patience is at its end.
    async fn unanswered(&self, connects: u64) -> Unanswered {
        let since = Instant::now();
        loop {
            sleep(TICK).await;
            if !self.is_connected() || self.connects() != connects {
                return Unanswered::Lost;
            }
            if since.elapsed() > PATIENCE {
                return Unanswered::Silent;
            }
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

// Errors of JetStream, by their numbers.
pub(crate) const STREAM_NOT_FOUND: u64 = 10_059;
/// Another stream takes messages of this subject.
const STREAM_NOT_MATCH: u64 = 10_060;
pub(crate) const CONSUMER_NOT_FOUND: u64 = 10_014;
pub(crate) const NAME_IN_USE: u64 = 10_058;
/// A message was not stored, for the reason in the text.
const STORE_FAILED: u64 = 10_077;
/// A message is longer than its stream takes.
pub(crate) const MESSAGE_TOO_LONG: u64 = 10_054;
const NO_RESOURCES: u64 = 10_023;
const NO_STORAGE: u64 = 10_047;
const NO_MEMORY: u64 = 10_028;

/// An error that the server has answered with.
#[derive(Debug)]
pub(crate) struct Fault {
    /// As in HTTP.
    code: u64,
    /// One of the numbers above, or another one.
    pub(crate) kind: u64,
    description: String,
}

impl Fault {
    /// Takes an answer apart.
    pub(crate) fn of(answer: &[u8]) -> Result<Value, Self> {
        let answer = match serde_json::from_slice(answer) {
            Ok(Value::Object(answer)) => Value::Object(answer),
            _ => {
                return Err(Fault {
                    code: 0,
                    kind: 0,
                    description: format!(
                        "the answer is not that of JetStream: {}",
                        excerpt(String::from_utf8_lossy(answer))
                    ),
                });
            }
        };
        let Some(error) = answer.get("error") else {
            return Ok(answer);
        };
        let number = |name| error.get(name).and_then(Value::as_u64).unwrap_or_default();
        let description = error.get("description").and_then(Value::as_str);
        Err(Fault {
            code: number("code"),
            kind: number("err_code"),
            description: excerpt(description.unwrap_or("no description")),
        })
    }

    /// Whether it may be answered otherwise soon: a server starts, or a cluster votes.
    pub(crate) fn is_passing(&self) -> bool {
        const UNAVAILABLE: u64 = 10_008;
        const NO_LEADER: u64 = 10_009;
        self.code == 503 && matches!(self.kind, UNAVAILABLE | NO_LEADER)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault {
            code,
            kind,
            description,
        } = self;
        write!(f, "{description} (code {code}, error {kind})")
    }
}

impl std::error::Error for Fault {}
