//! A spawned child, as its parent sees it.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid,
};
use serde::de::DeserializeOwned;

use super::outcome::Delivery;
use crate::channel::Receiver;
use crate::error::{ChildEnd, Error, Result};
use crate::sys::registry::Registered;
use crate::wait::{Wait, until_ready};

/// A child process that [`spawn`](crate::spawn) started, and that returns an `R`.
///
/// **Dropping it leaves the process running**, as dropping a thread's handle does. Once it has ended, the next
/// [`spawn`](crate::spawn) of this process reaps it; until then it is a zombie.
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
/// let Err(Error::Child { end }) = child.join() else { panic!() };
/// assert_eq!(end, ChildEnd::Exited { code: 3 });
/// # Ok::<(), Error>(())
/// ```
#[must_use = "the result of a child that is not joined is lost"]
pub struct Child<R> {
    process: Process,
    results: Receiver<Delivery<R>>,
    delivered: bool,
}

impl<R> Child<R> {
    pub(super) fn new(pid: Pid, pidfd: OwnedFd, results: Receiver<Delivery<R>>) -> Self {
        Child {
            process: Process {
                pid,
                pidfd: Arc::new(Registered::new(pidfd)),
                end: None,
            },
            results,
            delivered: false,
        }
    }

    /// Returns the child's process id. After the child has been joined it may belong to another process.
    pub fn pid(&self) -> u32 {
        self.process.pid.as_raw_pid().unsigned_abs()
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
    /// let Err(Error::Child { end }) = child.join() else { panic!() };
    /// assert_eq!(end, ChildEnd::Killed { signal: 9, core_dumped: false });
    /// # Ok::<(), Error>(())
    /// ```
    pub fn kill(&self) -> Result<()> {
        match pidfd_send_signal(self.as_fd(), Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::io("kill a child", errno)),
        }
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
    /// - [`Error::Child`]: it ended without returning a value; [`ChildEnd`] says how.
    /// - [`Error::Decode`], [`Error::TooLarge`], [`Error::FdsLost`], [`Error::UnexpectedFds`],
    ///   [`Error::Malformed`]: the value cannot be received, as in [`Receiver::recv`].
    /// - [`Error::Disconnected`]: the result was taken before.
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
    /// assert_eq!(
    ///     child.join().unwrap_err().to_string(),
    ///     "child process panicked: no idea"
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
        if std::mem::replace(&mut self.delivered, true) {
            return Err(Error::Disconnected);
        }
        let end = match self.results.try_recv() {
            Ok(Delivery::Value(value)) => return Ok(value),
            Ok(Delivery::Panicked(message)) => ChildEnd::Panicked { message },
            Ok(Delivery::Undelivered(reason)) => ChildEnd::Undelivered { reason },
            Err(Error::Empty | Error::Disconnected) => end,
            Err(error) => return Err(error),
        };
        Err(Error::Child { end })
    }
}

impl<R> AsFd for Child<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.pidfd.as_fd()
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

impl From<WaitIdStatus> for ChildEnd {
    fn from(status: WaitIdStatus) -> Self {
        if let Some(code) = status.exit_status() {
            return ChildEnd::Exited { code };
        }
        let core_dumped = status.dumped();
        match status.terminating_signal() {
            Some(signal) => ChildEnd::Killed {
                signal,
                core_dumped,
            },
            None => ChildEnd::Unknown,
        }
    }
}

/// The process, reaped at most once.
struct Process {
    pid: Pid,
    pidfd: Arc<Registered>,
    end: Option<ChildEnd>,
}

impl Process {
    /// How it ended, once it has.
    fn ended(&mut self, wait: Wait) -> Result<ChildEnd> {
        if let Some(end) = &self.end {
            return Ok(end.clone());
        }
        let reaped = until_ready(&*self.pidfd, PollFlags::IN, None, wait, |may_block| {
            reap(&self.pidfd, may_block)?.ok_or(Errno::AGAIN)
        });
        match reaped {
            Ok(end) => Ok(self.end.insert(end).clone()),
            Err(stop) => Err(stop.into_error("wait for a child", Error::Empty)),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.end.is_none() && matches!(reap(&self.pidfd, false), Ok(None)) {
            abandoned().push(Arc::clone(&self.pidfd));
        }
    }
}

/// Takes the exit status of a child that has ended, and waits for the end if it `may_block`.
fn reap(pidfd: &Registered, may_block: bool) -> Result<Option<ChildEnd>, Errno> {
    let mut options = WaitIdOptions::EXITED;
    options.set(WaitIdOptions::NOHANG, !may_block);
    match retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), options)) {
        Ok(status) => Ok(status.map(ChildEnd::from)),
        Err(Errno::CHILD) => Ok(Some(ChildEnd::Unknown)),
        Err(errno) => Err(errno),
    }
}

/// Children whose handles were dropped while they ran.
static ABANDONED: Mutex<Vec<Arc<Registered>>> = Mutex::new(Vec::new());

/// Locks the list of the abandoned, which a forked child must clear: they are not its children.
pub(super) fn abandoned() -> MutexGuard<'static, Vec<Arc<Registered>>> {
    ABANDONED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reaps those of the abandoned that have ended.
pub(super) fn reap_abandoned(abandoned: &mut Vec<Arc<Registered>>) {
    abandoned.retain(|pidfd| matches!(reap(pidfd, false), Ok(None)));
}
