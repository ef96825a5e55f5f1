//! How a queue is made.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::error::{Error, Result};

/// How a queue is made, and how jobs are delivered from it.
///
/// What is set here is checked against a queue that exists already; [`Queue::open`](crate::Queue::open) says
/// [`Error::Mismatch`] and names what differs. What is left alone has its default when the queue is made, and is taken as it
/// is when it exists.
///
/// Servers, TLS and credentials are options of the client: [`async_nats::ConnectOptions`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use wormhole_nats::Options;
///
/// let options = Options::new().ack_wait(Duration::from_secs(10)).max_messages(100_000).replicas(3);
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Options {
    pub(crate) ack_wait: Option<Duration>,
    pub(crate) max_deliveries: Option<u64>,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) max_messages: Option<u64>,
    pub(crate) storage: Option<Storage>,
    pub(crate) replicas: Option<usize>,
    pub(crate) duplicate_window: Option<Duration>,
}

/// Where the server keeps the jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Storage {
    /// In files: a server that is started again has them.
    File,
    /// In memory: a server that ends loses them, also those whose send was `Ok`.
    Memory,
}

pub(crate) const ACK_WAIT: Duration = Duration::from_secs(30);
pub(crate) const MAX_DELIVERIES: u64 = 10;
pub(crate) const MAX_BYTES: u64 = 1 << 30;
pub(crate) const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// The longest time that the server, which counts nanoseconds since 1970 in 63 bits, can add to now.
pub(crate) const LONGEST: Duration = Duration::from_secs(1 << 32);

impl Options {
    /// Starts from the defaults.
    pub fn new() -> Self {
        Options::default()
    }

    /// Sets after which time without a sign of life the server gives a job to another receiver. 30 seconds by default, at
    /// least 100 milliseconds.
    ///
    /// A job in hand is reported at a third of it, so it bounds how long a job is lost with the machine that has it, and
    /// not how long a job may take. A setting of the queue, which all receivers share.
    pub fn ack_wait(mut self, time: Duration) -> Self {
        self.ack_wait = Some(time);
        self
    }

    /// Sets how often a job may be delivered. 10 by default, at least 1; [`u64::MAX`] is without limit.
    ///
    /// A receiver that gets a job once more refuses it for good, says [`Error::Exhausted`] and counts it
    /// ([`Receiver::exhausted`](crate::Receiver::exhausted)). So a job that kills its worker every time is given up in the
    /// end. A job that was given back counts as delivered. A setting of these receivers, not of the queue.
    pub fn max_deliveries(mut self, times: u64) -> Self {
        self.max_deliveries = Some(times);
        self
    }

    /// Sets how many bytes the queue may have: 1 GiB by default. The server sets them aside when it makes the queue.
    ///
    /// A send that finds no room is [`Error::Full`].
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Sets how many jobs the queue may have, those in hand included. No limit by default.
    ///
    /// A send that finds no room is [`Error::Full`].
    pub fn max_messages(mut self, messages: u64) -> Self {
        self.max_messages = Some(messages);
        self
    }

    /// Sets where the server keeps the jobs. [`Storage::File`] by default.
    pub fn storage(mut self, storage: Storage) -> Self {
        self.storage = Some(storage);
        self
    }

    /// Sets on how many servers of a cluster each job is kept: 1 by default, 5 at most.
    pub fn replicas(mut self, servers: usize) -> Self {
        self.replicas = Some(servers);
        self
    }

    /// Sets for how long the server remembers the ids of jobs, to drop duplicates. 2 minutes by default, at least 100
    /// milliseconds.
    pub fn duplicate_window(mut self, time: Duration) -> Self {
        self.duplicate_window = Some(time);
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        const TIMES: RangeInclusive<Duration> = Duration::from_millis(100)..=LONGEST;
        const COUNTS: RangeInclusive<u64> = 1..=i64::MAX as u64;
        check("ack wait", "it is 100 ms to 2^32 s", self.ack_wait, TIMES)?;
        let window = self.duplicate_window;
        check("duplicate window", "it is 100 ms to 2^32 s", window, TIMES)?;
        check(
            "number of bytes",
            "it is 1 to 2^63-1",
            self.max_bytes,
            COUNTS,
        )?;
        check(
            "number of messages",
            "it is 1 to 2^63-1",
            self.max_messages,
            COUNTS,
        )?;
        let deliveries = self.max_deliveries;
        check(
            "number of deliveries",
            "it is at least 1",
            deliveries,
            1..=u64::MAX,
        )?;
        check("number of replicas", "it is 1 to 5", self.replicas, 1..=5)
    }
}

/// Checks a setting, if it is set.
fn check<V: PartialOrd + fmt::Debug>(
    what: &'static str,
    rule: &'static str,
    value: Option<V>,
    range: RangeInclusive<V>,
) -> Result<()> {
    match value {
        Some(value) if !range.contains(&value) => Err(Error::Invalid {
            what,
            value: format!("{value:?}"),
            rule,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_a_rule_is_named_with_its_value() {
        let check = |options: Options| options.check().unwrap_err().to_string();
        assert_eq!(
            check(Options::new().ack_wait(Duration::from_millis(99))),
            "invalid ack wait `99ms`: it is 100 ms to 2^32 s"
        );
        assert_eq!(
            check(Options::new().replicas(6)),
            "invalid number of replicas `6`: it is 1 to 5"
        );
        Options::new().max_deliveries(u64::MAX).check().unwrap();
        Options::new().check().unwrap();
    }
}
