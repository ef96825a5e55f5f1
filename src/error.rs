//! The one error type.

mod child_end;
pub(crate) mod excerpt;

use std::time::Duration;
use std::{fmt, io};

use self::excerpt::excerpt;

pub use child_end::ChildEnd;

/// What sending, receiving or making a channel can fail with.
///
/// Each variant is a decision for the caller: stop ([`Disconnected`](Error::Disconnected)), try again
/// later ([`Empty`](Error::Empty), [`Full`](Error::Full), [`TimedOut`](Error::TimedOut),
/// [`TooManyFdsInFlight`](Error::TooManyFdsInFlight)), or find out which side is wrong (the others).
///
/// After any of them but [`Disconnected`](Error::Disconnected) the channel works as before: what failed
/// to be sent was not sent at all, what failed to be received is consumed, its descriptors are closed,
/// and the next call deals with the next message.
///
/// As is the custom, the text of an error does not repeat its [`source`](std::error::Error::source): a program that
/// prints errors should print that as well. The alternate form, `{error:#}`, has both on one line.
///
/// # Examples
///
/// ```
/// use wormhole::{Error, channel};
///
/// let (tx, rx) = channel::<u32>()?;
/// assert!(matches!(rx.try_recv(), Err(Error::Empty)));
/// drop(tx);
/// assert!(matches!(rx.try_recv(), Err(Error::Disconnected)));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Every copy of the other end, in every process, is gone. For a receiver the queue is empty as well.
    /// Nothing can change that: stop using the channel.
    Disconnected,
    /// `try_recv`: no message is waiting. Nothing was consumed. `try_accept`: no client is waiting.
    Empty,
    /// `try_send`: the kernel's buffer has no room. Nothing was sent.
    Full,
    /// The deadline passed before a message or a client came, or before there was room for one. Nothing
    /// was consumed or sent.
    TimedOut {
        /// What was waited for.
        operation: &'static str,
        /// How long, from the beginning of the call to its deadline.
        after: Duration,
    },
    /// The message cannot be written as JSON, say because its map has keys that are neither strings nor
    /// numbers, or because its own `Serialize` failed. Nothing was sent.
    Encode {
        /// The message's type.
        type_name: &'static str,
        /// What its serialization reported.
        reason: String,
    },
    /// A message was received and is not a value of the expected type. It is consumed.
    Decode {
        /// The expected type.
        type_name: &'static str,
        /// What is wrong, and at which line and column of the text.
        reason: String,
    },
    /// The message's text is longer than the channel end allows (`max_message_len`). A message to be
    /// sent was not sent; a received one is consumed, without having been read.
    TooLarge {
        /// Length of the message's text in bytes.
        size: u64,
        /// The longest allowed, in bytes.
        limit: u64,
    },
    /// The message carries more descriptors than one packet can. Nothing was sent.
    TooManyFds {
        /// Descriptors of the message: those of its fields, those given to `send_with_fds`, and one
        /// more if its text does not fit one packet.
        count: usize,
        /// The most that a packet carries.
        limit: usize,
    },
    /// Too many descriptors that this user sent are still in flight, not yet received
    /// (`ETOOMANYREFS`; the bound is the sender's `RLIMIT_NOFILE`). Nothing was sent; it works again as
    /// soon as some of them have been received.
    TooManyFdsInFlight,
    /// The message came, but not all of its descriptors: this process is out of descriptors
    /// (`RLIMIT_NOFILE`), or a security module refused them. The message is consumed and those that did
    /// come are closed.
    FdsLost,
    /// The message carries descriptors which nothing claims: neither its fields nor
    /// [`recv_with_fds`](crate::Receiver::recv_with_fds). It is consumed and the descriptors are closed.
    UnexpectedFds {
        /// How many descriptors nothing claimed.
        count: usize,
    },
    /// What came is no wormhole packet, so a foreign or broken program is at the other end. It is
    /// consumed.
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// A descriptor that was to become a [`Sender`](crate::Sender) or [`Receiver`](crate::Receiver) is
    /// not a connected unix `SOCK_SEQPACKET` socket. It is closed.
    NotAChannel {
        /// What it is instead.
        reason: String,
    },
    /// [`spawn`](crate::spawn): this process has more than one thread, and a fork would leave the others,
    /// and the locks that they hold, behind. Nothing happened. [`spawn_fresh`](crate::spawn_fresh) works in every
    /// process.
    MultiThreaded,
    /// [`spawn_fresh`](crate::spawn_fresh): a fresh copy of this program could not run the function. Nothing
    /// was started.
    FreshCopy {
        /// What is missing, most of all [`process::init`](crate::process::init) in `main`.
        reason: String,
    },
    /// A child process ended without returning a value, or its value was taken before.
    Child {
        /// Its process id, which may belong to another process by now.
        pid: u32,
        /// How it ended.
        end: ChildEnd,
    },
    /// [`inherit`](crate::inherit): this program was not handed anything by
    /// [`spawn_command`](crate::spawn_command), or it has been taken. Nothing was changed.
    NotInherited {
        /// What is wrong, for instance with the environment variable that names the descriptor.
        reason: String,
    },
    /// A descriptor that was to become a [`Blob`](crate::Blob) is not a sealed memfd. It is closed.
    NotABlob {
        /// What it is instead.
        reason: String,
    },
    /// Listening at a name, or connecting to it, failed. What the `source`'s
    /// [`kind`](io::Error::kind) says to a process that wants to listen:
    ///
    /// - `AddrInUse`: a process listens there already, or is about to.
    /// - `AlreadyExists`: a file is there which is not a socket. It is left alone.
    ///
    /// and to one that wants to connect:
    ///
    /// - `NotFound`: no process has listened there yet, or the listener is closed.
    /// - `ConnectionRefused`: none listens there any more.
    ///
    /// and to both:
    ///
    /// - `PermissionDenied`: the permissions of the file or of its directory.
    /// - `InvalidInput`: there can be no socket of that name, for example because it is too long.
    Address {
        /// What was attempted.
        operation: &'static str,
        /// The path; or the abstract name, after `\0`.
        address: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel refused an operation for a reason that has nothing to do with the channel's state,
    /// such as a lack of memory or of descriptors, or a sandbox that denies a system call.
    Io {
        /// What was attempted.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// A [`Result`](std::result::Result) whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(operation: &'static str, source: impl Into<io::Error>) -> Self {
        Error::Io {
            operation,
            source: source.into(),
        }
    }

    pub(crate) fn malformed(reason: impl Into<String>) -> Self {
        Error::Malformed {
            reason: reason.into(),
        }
    }

    pub(crate) fn encode<T>(reason: impl fmt::Display) -> Self {
        Error::Encode {
            type_name: std::any::type_name::<T>(),
            reason: excerpt(reason),
        }
    }

    pub(crate) fn decode<T>(reason: impl fmt::Display) -> Self {
        Error::Decode {
            type_name: std::any::type_name::<T>(),
            reason: excerpt(reason),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(f)?;
        match std::error::Error::source(self) {
            Some(source) if f.alternate() => write!(f, ": {source}"),
            _ => Ok(()),
        }
    }
}

impl Error {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Disconnected => {
                f.write_str("channel is disconnected: every copy of its other end is gone")
            }
            Error::Empty => f.write_str("cannot receive now: nothing is waiting"),
            Error::Full => f.write_str("cannot send now: the channel is full"),
            Error::TimedOut { operation, after } => {
                write!(f, "cannot {operation}: timed out after {after:?}")
            }
            Error::Encode { type_name, reason } => {
                write!(f, "cannot encode a message of type `{type_name}`: {reason}")
            }
            Error::Decode { type_name, reason } => {
                write!(f, "cannot decode a message as `{type_name}`: {reason}")
            }
            Error::TooLarge { size, limit } => write!(
                f,
                "message of {size} bytes is longer than the limit of {limit} bytes"
            ),
            Error::TooManyFds { count, limit } => write!(
                f,
                "cannot send {count} descriptors in one message: the limit is {limit}"
            ),
            Error::TooManyFdsInFlight => f.write_str(
                "cannot send descriptors now: too many that this user sent have not been received yet",
            ),
            Error::FdsLost => f.write_str(
                "descriptors of a received message were lost: this process is out of descriptors, \
                 or a security module refused them",
            ),
            Error::UnexpectedFds { count } => write!(
                f,
                "received a message with {count} descriptors that nothing claims"
            ),
            Error::Malformed { reason } => write!(f, "received a malformed packet: {reason}"),
            Error::NotAChannel { reason } => {
                write!(f, "descriptor is not an end of a channel: {reason}")
            }
            Error::MultiThreaded => f.write_str(
                "cannot fork: this process has more than one thread, which a fork would leave behind: \
                 use `spawn_fresh` (for a pool, `PoolOptions::fresh`), or the unsafe `spawn_unchecked`",
            ),
            Error::FreshCopy { reason } => {
                write!(f, "cannot start a fresh copy of this program: {reason}")
            }
            Error::Child { pid, end } => end.write(f, Some(*pid)),
            Error::NotInherited { reason } => write!(f, "nothing to inherit: {reason}"),
            Error::NotABlob { reason } => write!(f, "descriptor is not a blob: {reason}"),
            Error::Address {
                operation, address, ..
            } => write!(f, "cannot {operation} `{address}`"),
            Error::Io { operation, .. } => write!(f, "cannot {operation}"),
        }
    }
}

/// For functions that return [`io::Result`]: an error of the fitting kind, with this one as its cause.
///
/// `Disconnected` is `BrokenPipe`, `Empty` and `Full` are `WouldBlock`, `TimedOut` is `TimedOut`; what is wrong with a
/// message to be sent, or with an argument, is `InvalidInput`, with a received one `InvalidData`, too long a message
/// `FileTooLarge`. [`Error::Io`] and [`Error::Address`] keep the kind of their source.
///
/// # Examples
///
/// ```
/// use std::io::{self, ErrorKind};
/// use wormhole::channel;
///
/// fn first_word() -> io::Result<String> {
///     let (tx, rx) = channel::<String>()?;
///     drop(tx);
///     Ok(rx.recv()?)
/// }
///
/// let error = first_word().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::BrokenPipe);
/// assert!(error.to_string().starts_with("channel is disconnected"));
/// ```
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        use io::ErrorKind;

        let kind = match &error {
            Error::Disconnected => ErrorKind::BrokenPipe,
            Error::Empty | Error::Full => ErrorKind::WouldBlock,
            Error::TimedOut { .. } => ErrorKind::TimedOut,
            Error::Encode { .. }
            | Error::TooManyFds { .. }
            | Error::NotAChannel { .. }
            | Error::NotABlob { .. } => ErrorKind::InvalidInput,
            Error::Decode { .. } | Error::UnexpectedFds { .. } | Error::Malformed { .. } => {
                ErrorKind::InvalidData
            }
            Error::TooLarge { .. } => ErrorKind::FileTooLarge,
            Error::TooManyFdsInFlight => ErrorKind::ResourceBusy,
            Error::MultiThreaded | Error::FreshCopy { .. } => ErrorKind::Unsupported,
            Error::NotInherited { .. } => ErrorKind::NotFound,
            Error::FdsLost | Error::Child { .. } => ErrorKind::Other,
            Error::Address { source, .. } | Error::Io { source, .. } => source.kind(),
        };
        io::Error::new(kind, error)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Address { source, .. } | Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
