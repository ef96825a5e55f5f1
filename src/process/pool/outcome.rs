//! What becomes of a job: its id, and why there is no result.

use std::error::Error as StdError;
use std::fmt;

use crate::error::{ChildEnd, Error, excerpt::excerpt};

/// Which job an outcome belongs to: [`Pool::submit`](crate::Pool::submit) gives it. Later jobs have larger ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub(super) u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a job of a [`Pool`](crate::Pool) has no result.
///
/// The pool itself goes on. It never tries a job again, which may have had its effects already: the caller has the job, and can
/// submit it once more.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobError {
    /// The work panicked, or a worker in another language raised an exception. The worker lives on.
    Panicked {
        /// The message.
        message: String,
        /// Where: file, line and column.
        place: Option<String>,
        /// The calls that led there, where the worker has them: for Rust, if `RUST_BACKTRACE` is set.
        backtrace: Option<String>,
    },
    /// The worker died while it had the job. Another one takes its place.
    Died {
        /// The worker's process id, which may belong to another process by now.
        pid: u32,
        /// How it ended.
        end: ChildEnd,
    },
    /// The job took longer than [`PoolOptions::deadline`](crate::PoolOptions::deadline) allows. Its worker was killed.
    TimedOut,
    /// [`Pool::cancel`](crate::Pool::cancel): its worker, if it had one, was killed.
    Cancelled,
    /// The job did not reach a worker whole, or the result did not come back whole.
    Undelivered {
        /// The error of the send or the receive.
        reason: String,
    },
}

impl JobError {
    pub(super) fn undelivered(error: &Error) -> Self {
        JobError::Undelivered {
            reason: format!("{error:#}"),
        }
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobError::Panicked { message, place, .. } => {
                write!(f, "job panicked: {}", excerpt(message))?;
                match place {
                    Some(place) => write!(f, " ({})", excerpt(place)),
                    None => Ok(()),
                }
            }
            JobError::Died { pid, end } => {
                write!(f, "job died with its worker: ")?;
                end.write(f, Some(*pid))
            }
            JobError::TimedOut => f.write_str("job took longer than its deadline allows"),
            JobError::Cancelled => f.write_str("job was cancelled"),
            JobError::Undelivered { reason } => {
                write!(
                    f,
                    "job or its result was not delivered: {}",
                    excerpt(reason)
                )
            }
        }
    }
}

// By hand, as a panic may have any length.
impl fmt::Debug for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobError::Panicked {
                message,
                place,
                backtrace,
            } => f
                .debug_struct("Panicked")
                .field("message", &excerpt(message))
                .field("place", place)
                .field("backtrace", &backtrace.as_ref().map(|_| ".."))
                .finish(),
            JobError::Died { pid, end } => f
                .debug_struct("Died")
                .field("pid", pid)
                .field("end", end)
                .finish(),
            JobError::TimedOut => f.write_str("TimedOut"),
            JobError::Cancelled => f.write_str("Cancelled"),
            JobError::Undelivered { reason } => f
                .debug_struct("Undelivered")
                .field("reason", &excerpt(reason))
                .finish(),
        }
    }
}

impl StdError for JobError {}
