//! A queue: a stream and its consumer, made or found.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::inboxes::Inboxes;
use crate::link::{CONSUMER, CONSUMER_NOT_FOUND, Fault, Link, NAME_IN_USE, STREAM_NOT_FOUND};
use crate::options::{ACK_WAIT, DUPLICATE_WINDOW, MAX_BYTES, MAX_DELIVERIES, Options, Storage};
use crate::receiver::Receiver;
use crate::rules::{MAX_REQUESTS, check_name};
use crate::sender::Sender;

/// A queue of jobs of type `T`, kept by NATS servers.
///
/// Any number of programs on any number of machines open it by its name, to send and to receive. Each job goes to one
/// receiver, and stays in the queue until that says that it is done.
///
/// At the server it is a stream with the name of the queue, with one subject of that name, and a durable pull consumer
/// named `workers`. A job is stored as plain JSON, so any client of NATS can publish one, or work in the queue.
///
/// Dropping it closes nothing. [`delete`](Self::delete) removes it with all its jobs.
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use wormhole_nats::{Options, Queue, async_nats};
///
/// let client = async_nats::connect("nats://127.0.0.1:4222").await?;
/// let queue = Queue::<String>::open(client, "jobs", Options::new()).await?;
/// queue.sender().send("hello".to_owned()).await?;
///
/// let job = queue.receiver().recv().await?;
/// assert_eq!(*job, "hello");
/// job.done().await?;
/// assert_eq!(queue.len().await?, 0);
/// # Ok(())
/// # }
/// ```
pub struct Queue<T> {
    link: Arc<Link>,
    inboxes: Arc<Inboxes>,
    limits: Limits,
    types: PhantomData<fn(T) -> T>,
}

/// What the ends of a queue have to know of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) ack_wait: Duration,
    pub(crate) max_deliveries: u64,
    /// Of the whole stream; `None` without limit.
    pub(crate) max_bytes: Option<u64>,
    /// Of one message, headers included; `None` without limit.
    pub(crate) max_message: Option<u64>,
    /// How many bytes of the stream a job takes up besides its subject, its headers and its text.
    pub(crate) overhead: u64,
}

impl<T> Queue<T> {
    /// Opens a queue by its name, and makes it if it does not exist.
    ///
    /// A name is 1 to 64 characters, each an ASCII letter, a digit, `-` or `_`. Waits while the server is away, also for a
    /// client that has not connected yet.
    ///
    /// # Errors
    ///
    /// - [`Error::Invalid`]: the name or an option breaks a rule, or this is not called in a runtime of tokio.
    /// - [`Error::Mismatch`]: it exists with other settings than those that `options` sets, or is no work queue. Nothing was
    ///   changed.
    /// - [`Error::Full`]: the server has no room for another queue of that many bytes.
    /// - [`Error::Server`]: the server refused, say because JetStream is not enabled, or does not answer although the server
    ///   does, as when the user lacks permissions.
    /// - [`Error::Disconnected`]: the client is closed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the queue may have been made.
    pub async fn open(client: Client, name: &str, options: Options) -> Result<Self> {
        check_name(name)?;
        options.check()?;
        let link = Arc::new(Link::new(client, name)?);
        tokio::select! {
            opened = Self::open_at(Arc::clone(&link), options) => opened,
            () = link.mute() => {
                let source = "the server answers, but JetStream does not: perhaps this user may not publish to `$JS.API.>`";
                Err(Error::server(link.place(), "open", source))
            }
        }
    }

    async fn open_at(link: Arc<Link>, options: Options) -> Result<Self> {
        let stream = find_or_make_stream(&link, &options).await?;
        let consumer = find_or_make_consumer(&link, &options).await?;
        let differences = [
            differences(&stream, &wanted_stream(&link, &options, false)),
            differences(&consumer, &wanted_consumer(&options, false)),
        ]
        .concat();
        if !differences.is_empty() {
            return Err(Error::Mismatch {
                place: link.place(),
                differences,
            });
        }
        let ack_wait = consumer.get("ack_wait").and_then(Value::as_u64);
        let max_bytes = stream.get("max_bytes").and_then(Value::as_u64);
        let limits = Limits {
            ack_wait: ack_wait.map_or(ACK_WAIT, Duration::from_nanos),
            max_deliveries: options.max_deliveries.unwrap_or(MAX_DELIVERIES),
            max_bytes,
            max_message: max_message(&stream),
            overhead: overhead(&stream),
        };
        Ok(Queue {
            inboxes: Arc::new(Inboxes::new(Arc::clone(&link))),
            link,
            limits,
            types: PhantomData,
        })
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.link.name
    }

    /// Makes a sender. Never blocks.
    #[must_use]
    pub fn sender(&self) -> Sender<T> {
        Sender::new(Arc::clone(&self.link), self.limits)
    }

    /// Makes a receiver. Never blocks, and asks for nothing until it is told to receive.
    #[must_use]
    pub fn receiver(&self) -> Receiver<T> {
        Receiver::new(Arc::clone(&self.inboxes), self.limits)
    }

    /// Returns how many jobs there are that are not done: those that wait, and those in hand. Waits while the server is
    /// away.
    ///
    /// A server that was killed may count jobs that are done, as it has forgotten that it has removed them. It delivers
    /// them to nobody.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`], [`Error::Server`], as [`open`](Self::open).
    pub async fn len(&self) -> Result<u64> {
        const OPERATION: &str = "count the jobs of";
        let verb = format!("STREAM.INFO.{}", self.link.name);
        let info = self.link.api(OPERATION, &verb, &Value::Null).await?;
        let info = info.map_err(|fault| self.link.fault(OPERATION, fault))?;
        let messages = info.pointer("/state/messages").and_then(Value::as_u64);
        Ok(messages.unwrap_or_default())
    }

    /// Returns whether all jobs are done. Waits while the server is away.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub async fn is_empty(&self) -> Result<bool> {
        Ok(self.len().await? == 0)
    }

    /// Removes the queue and all its jobs from the server. Waits while the server is away.
    ///
    /// Its senders and receivers, in all programs, then say [`Error::Disconnected`]. That it was removed already is no
    /// error.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`]: the client is closed. [`Error::Server`]: the server refused.
    pub async fn delete(self) -> Result<()> {
        const OPERATION: &str = "delete";
        let verb = format!("STREAM.DELETE.{}", self.link.name);
        match self.link.api(OPERATION, &verb, &Value::Null).await? {
            Err(fault) if fault.kind != STREAM_NOT_FOUND => Err(self.link.fault(OPERATION, fault)),
            _ => Ok(()),
        }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("name", &self.link.name)
            .field("limits", &self.limits)
            .finish()
    }
}

/// The settings of a stream: those that must be so, those that the caller has set, and with `defaults` the others as well.
fn wanted_stream(link: &Link, options: &Options, defaults: bool) -> Value {
    let mut settings = json!({
        "name": &*link.name,
        "subjects": [&*link.name],
        "retention": "workqueue",
        "discard": "new",
    });
    let number = |set: Option<u64>, default: i64| match set {
        Some(number) => Some(json!(number)),
        None => defaults.then(|| json!(default)),
    };
    let storage = options.storage.or(defaults.then_some(Storage::File));
    let storage = storage.map(|storage| match storage {
        Storage::File => json!("file"),
        Storage::Memory => json!("memory"),
    });
    let window = options
        .duplicate_window
        .or(defaults.then_some(DUPLICATE_WINDOW));
    let replicas = options.replicas.map(|replicas| replicas as u64);
    let bytes = i64::try_from(MAX_BYTES).unwrap_or(i64::MAX);
    put(&mut settings, "storage", storage);
    put(&mut settings, "max_bytes", number(options.max_bytes, bytes));
    put(&mut settings, "max_msgs", number(options.max_messages, -1));
    put(&mut settings, "num_replicas", number(replicas, 1));
    put(&mut settings, "duplicate_window", window.map(nanoseconds));
    settings
}

/// The same for the consumer.
fn wanted_consumer(options: &Options, defaults: bool) -> Value {
    let mut settings = json!({
        "durable_name": CONSUMER,
        "ack_policy": "explicit",
    });
    let ack_wait = options.ack_wait.or(defaults.then_some(ACK_WAIT));
    put(&mut settings, "ack_wait", ack_wait.map(nanoseconds));
    if !defaults {
        // It is not there unless the consumer is one that jobs are pushed to.
        put(&mut settings, "deliver_subject", Some(Value::Null));
    }
    if defaults {
        put(&mut settings, "deliver_policy", Some(json!("all")));
        put(&mut settings, "replay_policy", Some(json!("instant")));
        // Receivers count the deliveries: what the server gives up it never delivers again, and keeps.
        put(&mut settings, "max_deliver", Some(json!(-1)));
        // Each worker has one job in hand, and asks for one: there may be many workers.
        put(&mut settings, "max_ack_pending", Some(json!(-1)));
        put(&mut settings, "max_waiting", Some(json!(MAX_REQUESTS)));
    }
    settings
}

fn put(settings: &mut Value, name: &str, value: Option<Value>) {
    if let (Value::Object(settings), Some(value)) = (settings, value) {
        settings.insert(name.to_owned(), value);
    }
}

fn nanoseconds(time: Duration) -> Value {
    json!(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

async fn find_or_make_stream(link: &Link, options: &Options) -> Result<Value> {
    const OPERATION: &str = "open";
    let wanted = wanted_stream(link, options, true);
    let found = format!("STREAM.INFO.{}", link.name);
    let made = format!("STREAM.CREATE.{}", link.name);
    loop {
        let info = link.api(OPERATION, &found, &Value::Null).await?;
        match config(info) {
            Ok(config) => return Ok(config),
            Err(fault) if fault.kind == STREAM_NOT_FOUND => {}
            Err(fault) => return Err(link.fault(OPERATION, fault)),
        }
        match config(link.api(OPERATION, &made, &wanted).await?) {
            Ok(config) => return Ok(config),
            // Another process was faster.
            Err(fault) if fault.kind == NAME_IN_USE => {}
            Err(fault) => return Err(link.fault(OPERATION, fault)),
        }
    }
}

async fn find_or_make_consumer(link: &Link, options: &Options) -> Result<Value> {
    const OPERATION: &str = "open the consumer of";
    let found = format!("CONSUMER.INFO.{}.{CONSUMER}", link.name);
    let info = link.api(OPERATION, &found, &Value::Null).await?;
    match config(info) {
        Ok(config) => return Ok(config),
        Err(fault) if fault.kind == CONSUMER_NOT_FOUND => {}
        Err(fault) => return Err(link.fault(OPERATION, fault)),
    }
    let wanted = json!({
        "stream_name": &*link.name,
        "config": wanted_consumer(options, true),
    });
    let made = format!("CONSUMER.DURABLE.CREATE.{}.{CONSUMER}", link.name);
    let made = link.api(OPERATION, &made, &wanted).await?;
    config(made).map_err(|fault| link.fault(OPERATION, fault))
}

fn config(info: Result<Value, Fault>) -> Result<Value, Fault> {
    let mut info = info?;
    let config = info.get_mut("config").map(Value::take);
    Ok(config.unwrap_or_default())
}

/// How long a message may be, by the settings of its stream.
pub(crate) fn max_message(stream: &Value) -> Option<u64> {
    stream.get("max_msg_size").and_then(Value::as_u64)
}

/// How many bytes the server counts for a message besides what is in it: `a_job_that_the_stream_has_no_room_for_is_too_large`.
fn overhead(stream: &Value) -> u64 {
    match stream.get("storage").and_then(Value::as_str) {
        Some("memory") => 16,
        _ => 34,
    }
}

/// A text for each setting that is not as it should be.
fn differences(found: &Value, wanted: &Value) -> Vec<String> {
    let wanted = wanted.as_object().into_iter().flatten();
    let differences = wanted.filter_map(|(name, wanted)| {
        let found = found.get(name).unwrap_or(&Value::Null);
        let text = |value: &Value| match (name.as_str(), value.as_u64()) {
            ("ack_wait" | "duplicate_window", Some(nanoseconds)) => {
                format!("{:?}", Duration::from_nanos(nanoseconds))
            }
            _ => crate::excerpt::excerpt(value),
        };
        let differ = || format!("`{name}` is {} and not {}", text(found), text(wanted));
        (found != wanted).then(differ)
    });
    differences.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_what_is_and_what_was_asked_for() {
        let found = json!({ "max_bytes": 5, "ack_wait": 2_000_000_000_u64, "storage": "file" });
        let wanted =
            json!({ "max_bytes": 6, "ack_wait": 500_000_000, "storage": "file", "discard": "new" });
        let expected = [
            "`ack_wait` is 2s and not 500ms",
            "`discard` is null and not \"new\"",
            "`max_bytes` is 5 and not 6",
        ];
        assert_eq!(differences(&found, &wanted), expected);
        assert_eq!(differences(&found, &found), [""; 0]);
    }
}
