//! Why a command failed: a sentence for people, and an exit status for scripts.

use std::fmt;
use std::io::{self, Write};

use wormhole::Error;

use crate::address::Address;

/// The exit statuses that say what kind of failure it was. Those of commands that were run come beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// The kernel refused something, or nobody listens at the address.
    System = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The other side left before all was done.
    Disconnected = 3,
    /// Nothing happened in the time given.
    TimedOut = 4,
    /// With `--no-wait`: there is no room, or no message.
    FullOrEmpty = 5,
    /// What should be sent is not JSON, or too long.
    BadLine = 6,
    /// What was received cannot be used.
    BadMessage = 7,
}

/// A failure: what the program ends with, and what it says.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    sentence: String,
}

/// What a command comes to: the exit status that is not a failure of this program, mostly 0.
pub(crate) type Outcome<T = u8> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(status: Status, sentence: impl Into<String>) -> Self {
        Self::with_status(status as u8, sentence)
    }

    /// With the status of a command that was run.
    pub(crate) fn with_status(status: u8, sentence: impl Into<String>) -> Self {
        Failure {
            status,
            sentence: sentence.into(),
        }
    }

    /// `what` completes "cannot".
    pub(crate) fn system(what: impl fmt::Display, error: impl Into<io::Error>) -> Self {
        Self::new(Status::System, format!("cannot {what}: {}", error.into()))
    }

    /// Of listening or connecting.
    pub(crate) fn at(address: &Address, error: Error) -> Self {
        match error {
            Error::Address {
                operation, source, ..
            } => {
                let nobody = matches!(
                    source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                );
                let hint = if operation == "connect to" && nobody {
                    "nobody listens there: "
                } else {
                    ""
                };
                let sentence = format!("cannot {operation} {address}: {hint}{source}");
                Self::new(Status::System, sentence)
            }
            error => Self::from(error).of(address),
        }
    }

    /// Says where it happened.
    pub(crate) fn of(self, place: impl fmt::Display) -> Self {
        Self::with_status(self.status, format!("{place}: {}", self.sentence))
    }

    /// Prints the sentence. If it cannot be printed, the status has to do.
    pub(crate) fn report(&self) {
        complain(&self.sentence);
    }
}

/// Prints a sentence to standard error, as one write.
pub(crate) fn complain(sentence: &str) {
    let line = format!("wormholectl: {sentence}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error {
            Error::Disconnected => Status::Disconnected,
            Error::TimedOut { .. } => Status::TimedOut,
            Error::Full | Error::Empty => Status::FullOrEmpty,
            Error::Encode { .. } => Status::BadLine,
            Error::Decode { .. } | Error::Malformed { .. } | Error::UnexpectedFds { .. } => {
                Status::BadMessage
            }
            _ => Status::System,
        };
        let sentence = match &error {
            // The name of the type means nothing here.
            Error::Encode { reason, .. } | Error::Decode { reason, .. } => {
                format!("not JSON: {}", without_line(reason))
            }
            error => format!("{error:#}"),
        };
        Self::new(status, sentence)
    }
}

/// The place in a text of one line: its line number would only be mistaken for that of the input.
fn without_line(reason: &str) -> String {
    reason.replace(" at line 1 column ", " at column ")
}
