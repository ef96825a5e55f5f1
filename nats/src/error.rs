//! The one error type, and where it happened.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use crate::excerpt::excerpt;

/// Which queue an error is about, and at which server.
///
/// Its [`Display`](fmt::Display) has all three: ``stream `jobs` (subject `jobs`) at 127.0.0.1:4222``.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Place {
    server: Arc<str>,
    stream: Arc<str>,
}

impl Place {
    pub(crate) fn new(server: &str, stream: Arc<str>) -> Self {
        Place {
            server: excerpt(server).into(),
            stream,
        }
    }

    /// Returns the server that the client was last connected to: host and port, and its name if it has been given one.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Returns the name of the stream, which is that of the queue.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Returns the subject that jobs are published to, which is the name of the queue as well.
    pub fn subject(&self) -> &str {
        &self.stream
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { server, stream } = self;
        write!(f, "stream `{stream}` (subject `{stream}`) at {server}")
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What queues and bridges can fail with.
///
/// Each variant is a decision for the caller: stop ([`Disconnected`](Error::Disconnected)), try again later
/// ([`Empty`](Error::Empty), [`Full`](Error::Full), [`TimedOut`](Error::TimedOut)), go on with the next job
/// ([`Decode`](Error::Decode), [`Exhausted`](Error::Exhausted)), or find out what is wrong (the others). All but the
/// first leave the queue as it was.
///
/// As is the custom, the text of an error does not repeat its [`source`](StdError::source). The alternate form,
/// `{error:#}`, has both on one line. What other programs have a part in is escaped and cut.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The stream or its consumer was deleted, or the client was closed. Nothing can change that: stop using the queue.
    ///
    /// A server that is away is not this: calls wait until it is back.
    Disconnected {
        /// Which queue.
        place: Place,
        /// Which of these it is.
        reason: String,
    },
    /// [`Receiver::try_recv`](crate::Receiver::try_recv): no job is waiting.
    Empty {
        /// Which queue.
        place: Place,
    },
    /// The stream has as many bytes or messages as it may have. The job was not stored.
    Full {
        /// Which queue.
        place: Place,
        /// Which limit, as the server says it.
        reason: String,
    },
    /// The time that the caller has set was over first.
    ///
    /// A job that was to be sent may have been stored nevertheless: to send it again with the same id
    /// ([`Sender::send_with_id`](crate::Sender::send_with_id)) stores it once. No job was received.
    TimedOut {
        /// Which queue.
        place: Place,
        /// What was waited for.
        operation: &'static str,
        /// For how long.
        after: Duration,
    },
    /// The job cannot be written as JSON, or holds descriptors or channel ends, which do not leave their machine. Nothing
    /// was sent.
    Encode {
        /// Which queue.
        place: Place,
        /// The job's type.
        type_name: &'static str,
        /// What its serialization reported.
        reason: String,
    },
    /// What was received is not a job of the expected type. It was refused for good: no receiver gets it again.
    Decode {
        /// Which queue.
        place: Place,
        /// The message's number in the stream.
        sequence: u64,
        /// The expected type.
        type_name: &'static str,
        /// What is wrong, and at which line and column of the text.
        reason: String,
    },
    /// A job was delivered more often than [`Options::max_deliveries`](crate::Options::max_deliveries) allows, and was
    /// never done. It was refused for good: no receiver gets it again.
    Exhausted {
        /// Which queue.
        place: Place,
        /// The message's number in the stream.
        sequence: u64,
        /// The job's id.
        id: String,
        /// How often it was delivered, this time not counted.
        deliveries: u64,
        /// Its text, or why a pool failed it the last time. Cut, if it is long.
        text: String,
    },
    /// The job is longer than the server or the stream takes. Nothing was stored.
    TooLarge {
        /// Which queue.
        place: Place,
        /// Its length in bytes, with everything that counts for that limit: the headers, and for that of the whole stream also
        /// what the server stores with each job.
        len: u64,
        /// The most that is allowed, in bytes.
        limit: u64,
    },
    /// An argument breaks a rule. Nothing was done.
    Invalid {
        /// Which argument.
        what: &'static str,
        /// Its value.
        value: String,
        /// The rule.
        rule: &'static str,
    },
    /// The stream or its consumer exists, with other settings than those asked for. Nothing was changed.
    Mismatch {
        /// Which queue.
        place: Place,
        /// A text for each setting: its name, what it is, and what was asked for.
        differences: Vec<String>,
    },
    /// The server refused something for another reason: no permission, no JetStream, no room for another stream.
    Server {
        /// Which queue.
        place: Place,
        /// What was attempted.
        operation: &'static str,
        /// What the server, or the client, has said.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A bridge: the local channel or the pool failed. If the source is a
    /// [`wormhole::Error::Disconnected`], the workers are gone.
    Local {
        /// Which queue the bridge joins to it.
        place: Place,
        /// What was attempted.
        operation: &'static str,
        /// The error of the channel, a [`wormhole::Error`].
        source: Box<dyn StdError + Send + Sync>,
    },
}

/// A [`Result`](std::result::Result) whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Which queue it is about. `None` for [`Invalid`](Error::Invalid).
    pub fn place(&self) -> Option<&Place> {
        match self {
            Error::Disconnected { place, .. }
            | Error::Empty { place }
            | Error::Full { place, .. }
            | Error::TimedOut { place, .. }
            | Error::Encode { place, .. }
            | Error::Decode { place, .. }
            | Error::Exhausted { place, .. }
            | Error::TooLarge { place, .. }
            | Error::Mismatch { place, .. }
            | Error::Server { place, .. }
            | Error::Local { place, .. } => Some(place),
            Error::Invalid { .. } => None,
        }
    }

    pub(crate) fn disconnected(place: Place, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Error::Disconnected { place, reason }
    }

    pub(crate) fn server(
        place: Place,
        operation: &'static str,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Error::Server {
            place,
            operation,
            source: source.into(),
        }
    }

    pub(crate) fn local(place: Place, operation: &'static str, source: wormhole::Error) -> Self {
        Error::Local {
            place,
            operation,
            source: Box::new(source),
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Disconnected { place, reason } => {
                write!(f, "{place} is disconnected: {reason}")
            }
            Error::Empty { place } => write!(f, "cannot receive now: no job is waiting in {place}"),
            Error::Full { place, reason } => write!(f, "{place} is full: {reason}"),
            Error::TimedOut {
                place,
                operation,
                after,
            } => write!(f, "cannot {operation} {place}: timed out after {after:?}"),
            Error::Encode {
                place,
                type_name,
                reason,
            } => write!(
                f,
                "cannot encode a job of type `{type_name}` for {place}: {reason}"
            ),
            Error::Decode {
                place,
                sequence,
                type_name,
                reason,
            } => write!(
                f,
                "cannot decode message {sequence} of {place} as `{type_name}`, and refused it: {reason}"
            ),
            Error::Exhausted {
                place,
                sequence,
                id,
                deliveries,
                text,
            } => write!(
                f,
                "message {sequence} of {place}, job `{id}`, was delivered {deliveries} times, never done, and is \
                 refused: {text}"
            ),
            Error::TooLarge { place, len, limit } => write!(
                f,
                "job of {len} bytes is longer than the limit of {limit} bytes of {place}"
            ),
            Error::Invalid { what, value, rule } => {
                write!(f, "invalid {what} `{value}`: {rule}")
            }
            Error::Mismatch { place, differences } => {
                write!(f, "{place} exists with other settings: ")?;
                f.write_str(&differences.join("; "))
            }
            Error::Server {
                place, operation, ..
            } => write!(f, "cannot {operation} {place}"),
            Error::Local {
                place, operation, ..
            } => write!(f, "cannot {operation} on the way from or to {place}"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(f)?;
        match self.source() {
            Some(source) if f.alternate() => write!(f, ": {source}"),
            _ => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Server { source, .. } | Error::Local { source, .. } => Some(&**source),
            _ => None,
        }
    }
}

/// For functions that return [`io::Result`]: an error of the fitting kind, with this one as its cause. `Disconnected` is
/// `BrokenPipe`, `Empty` and `Full` are `WouldBlock`, `TimedOut` is `TimedOut`; what is wrong with a job to be sent, or with
/// an argument, is `InvalidInput`, with a received one `InvalidData`, too long a job `FileTooLarge`.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        use io::ErrorKind;

        let kind = match &error {
            Error::Disconnected { .. } => ErrorKind::BrokenPipe,
            Error::Empty { .. } | Error::Full { .. } => ErrorKind::WouldBlock,
            Error::TimedOut { .. } => ErrorKind::TimedOut,
            Error::Encode { .. } | Error::Invalid { .. } => ErrorKind::InvalidInput,
            Error::Decode { .. } | Error::Exhausted { .. } => ErrorKind::InvalidData,
            Error::TooLarge { .. } => ErrorKind::FileTooLarge,
            Error::Mismatch { .. } => ErrorKind::AlreadyExists,
            Error::Server { .. } | Error::Local { .. } => ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
