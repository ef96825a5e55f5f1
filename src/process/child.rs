//! A spawned child, as its parent sees it.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::handle::Process;
use super::outcome::Delivery;
use crate::channel::Receiver;
use crate::error::{ChildEnd, Error, Result};
use crate::wait::Wait;

/// A child process that returns an `R`: [`spawn`](crate::spawn), [`spawn_fresh`](crate::spawn_fresh) and
/// [`process::Builder`](crate::process::Builder) start them.
///
/// **Dropping it leaves the process running**, as dropping a thread's handle does. Once it has ended, one of the next
/// spawns of this process reaps it; until then it is a zombie. It takes up no descriptor.
///
/// It is [`AsFd`]: the descriptor is a
/// [pidfd](https://man7.org/linux/man-pages/man2/pidfd_open.2.html), readable as soon as the child has ended.
/// Then none of the methods waits any more.
///
/// # Examples
///
/// ```
/// use wormhole::{ChildEnd, Error, spawn};
///
/// let child = spawn((20, 22), |(a, b): (u32, u32)| a + b)?;
/// assert_eq!(child.join()?, 42);
///
/// let child = spawn((), |()| -> u32 { std::process::exit(3) })?;
/// let Err(Error::Child { end, .. }) = child.join() else { panic!() };
/// assert_eq!(end, ChildEnd::Exited { code: 3 });
/// # Ok::<(), Error>(())
/// ```
#[must_use = "the result of a child that is not joined is lost"]
pub struct Child<R> {
    process: Process,
    outcome: Outcome<R>,
    delivered: bool,
    streams: Option<Box<Streams>>,
}

/// Where the value of a child comes from.
enum Outcome<R> {
    /// Its function sends it.
    Sent(Receiver<Delivery<R>>),
    /// An exit status of 0 stands for it.
    Success(fn() -> R),
}

/// The pipes to a program's standard streams.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
}

impl Child<()> {
    /// One whose exit status is all that it returns.
    pub(super) fn with_status(process: Process, streams: Option<Box<Streams>>) -> Self {
        Child {
            process,
            outcome: Outcome::Success(|| ()),
            delivered: false,
            streams,
        }
    }
}

impl<R> Child<R> {
    pub(super) fn new(process: Process, results: Receiver<Delivery<R>>) -> Self {
        Child {
            process,
            outcome: Outcome::Sent(results),
            delivered: false,
            streams: None,
        }
    }

    /// Takes the writing end of the pipe that is the child's standard input, if it is one: of a
    /// [command](crate::process::Builder::spawn_command) with [`Stdio::piped`](std::process::Stdio::piped). `None`
    /// otherwise, and from the second time on.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.streams.as_mut()?.stdin.take()
    }

    /// Takes the reading end of the pipe that is the child's standard output, as [`take_stdin`](Self::take_stdin) does
    /// for the input.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.streams.as_mut()?.stdout.take()
    }

    /// Takes the reading end of the pipe that is the child's standard error, as [`take_stdin`](Self::take_stdin) does
    /// for the input.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.streams.as_mut()?.stderr.take()
    }

    /// Returns the child's process id. After the child has been joined it may belong to another process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Kills the child, with `SIGKILL`. Never blocks.
    ///
    /// `Ok` means that the signal was sent, or that the child had ended before. It never hits another process
    /// that got the same id. It is still to be [joined](Self::join): if its result was faster than the
    /// signal, that is what `join` gives.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the child has become another user by then, or a sandbox denies the system call.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{ChildEnd, Error, spawn};
    ///
    /// let child = spawn((), |()| -> () { loop { std::thread::park() } })?;
    /// child.kill()?;
    /// let Err(Error::Child { end, .. }) = child.join() else { panic!() };
    /// assert_eq!(end, ChildEnd::Killed { signal: 9, core_dumped: false });
    /// # Ok::<(), Error>(())
    /// ```
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }
}

impl<R: DeserializeOwned> Child<R> {
    /// Waits until the child has ended, and returns what its function returned.
    ///
    /// Blocks for as long as the process lives, and not for whatever children of its own it leaves behind. `Ok`
    /// means that the function returned, the whole value is here, and the process is gone.
    ///
    /// # Errors
    ///
    /// The process is gone, but for the last case, and nothing of its result is left:
    ///
    /// - [`Error::Child`]: it ended without returning a value; [`ChildEnd`] says how. A program that was started as a
    ///   [command](crate::process::Builder::spawn_command) returns `()` with an exit status of 0, and nothing with
    ///   any other. [`ChildEnd::Joined`]: its value was taken before.
    /// - [`Error::Decode`], [`Error::TooLarge`], [`Error::FdsLost`], [`Error::UnexpectedFds`],
    ///   [`Error::Malformed`]: the value cannot be received, as in [`Receiver::recv`].
    /// - [`Error::Io`]: the kernel refused to receive the value, or to wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{ChildEnd, Error, spawn};
    ///
    /// let child = spawn(vec![3, 1, 2], |mut numbers: Vec<u8>| {
    ///     numbers.sort();
    ///     numbers
    /// })?;
    /// assert_eq!(child.join()?, [1, 2, 3]);
    ///
    /// let child = spawn((), |()| -> u8 { panic!("no idea") })?;
    /// let pid = child.pid();
    /// assert_eq!(
    ///     child.join().unwrap_err().to_string(),
    ///     format!("child process {pid} panicked: no idea")
    /// );
    /// # Ok::<(), Error>(())
    /// ```
    pub fn join(mut self) -> Result<R> {
        self.join_within(Wait::Forever)
    }

    /// Returns what the child's function returned, if the child has ended. Never blocks.
    ///
    /// `None` means that it is still running.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, Receiver, channel, spawn};
    ///
    /// let (go, wait) = channel::<u32>()?;
    /// let mut child = spawn(wait, |wait: Receiver<u32>| wait.recv().unwrap() + 1)?;
    /// assert_eq!(child.try_join()?, None);
    /// go.send(1)?;
    /// assert_eq!(child.join()?, 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn try_join(&mut self) -> Result<Option<R>> {
        match self.join_within(Wait::Never) {
            Err(Error::Empty) => Ok(None),
            joined => joined.map(Some),
        }
    }

    /// Waits for at most `timeout` until the child has ended, and returns what its function returned.
    ///
    /// The timeout is a deadline, counted from the call: signals do not prolong it.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when the child is still running, otherwise as [`join`](Self::join). It goes
    /// on running: join it again later, or [`kill`](Self::kill) it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use wormhole::{Error, Receiver, channel, spawn};
    ///
    /// let (go, wait) = channel::<u32>()?;
    /// let mut child = spawn(wait, |wait: Receiver<u32>| wait.recv().unwrap() + 1)?;
    /// let late = child.join_timeout(Duration::from_millis(10));
    /// assert!(matches!(late, Err(Error::TimedOut { .. })));
    /// go.send(1)?;
    /// assert_eq!(child.join_timeout(Duration::from_secs(60))?, 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn join_timeout(&mut self, timeout: Duration) -> Result<R> {
        self.join_within(Wait::at_most(timeout))
    }

    fn join_within(&mut self, wait: Wait) -> Result<R> {
        // KERNEL: one packet fits an empty channel at once, however long the message, so the child's
        // end does not wait for us (`a_result_of_any_length_arrives`). Nor do we wait for the end of the
        // channel, of which a child of the child may hold a copy.
        let end = self.process.ended(wait)?;
        let end = match &self.outcome {
            _ if std::mem::replace(&mut self.delivered, true) => ChildEnd::Joined,
            Outcome::Success(value) if end == (ChildEnd::Exited { code: 0 }) => return Ok(value()),
            Outcome::Success(_) => end,
            Outcome::Sent(results) => match results.try_recv() {
                Ok(Delivery::Value(value)) => return Ok(value),
                Ok(Delivery::Panicked(message)) => ChildEnd::Panicked { message },
                Ok(Delivery::Undelivered(reason)) => ChildEnd::Undelivered { reason },
                Err(Error::Empty | Error::Disconnected) => end,
                // Of the type that the caller knows.
                Err(Error::Decode { reason, .. }) => return Err(Error::decode::<R>(reason)),
                Err(error) => {
                    self.delivered = !matches!(error, Error::Io { .. }); // it may still be there
                    return Err(error);
                }
            },
        };
        let pid = self.pid();
        Err(Error::Child { pid, end })
    }
}

impl<R> AsFd for Child<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

impl<R> fmt::Debug for Child<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("pid", &self.pid())
            .field("pidfd", &self.as_fd().as_raw_fd())
            .finish()
    }
}
