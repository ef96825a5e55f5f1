//! How a call waits: try, and sleep in the kernel until another try is worth it.

mod deadline;
mod spin;

use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

pub(crate) use deadline::Wait;
pub(crate) use spin::{Spin, Spinning};

use crate::error::Error;

/// Why an operation gave up.
#[derive(Debug)]
pub(crate) enum Stop {
    WouldBlock,
    /// After that long.
    TimedOut(Duration),
    Failed(Errno),
}

impl Stop {
    /// The error of an operation of that name. `would_block` is what it calls having to wait.
    pub(crate) fn into_error(self, operation: &'static str, would_block: Error) -> Error {
        match self {
            Stop::WouldBlock => would_block,
            Stop::TimedOut(after) => Error::TimedOut { operation, after },
            Stop::Failed(errno) => Error::io(operation, errno),
        }
    }
}

/// Runs `attempt` until it has a result, waiting in between for one of `events`, spinning at first if `spin` says
/// so.
///
/// `attempt` is told whether it may block, and says `AGAIN` if it would have to and may not.
#[inline]
pub(crate) fn until_ready<R>(
    socket: impl AsFd,
    events: PollFlags,
    spin: Option<&Spin>,
    wait: Wait,
    mut attempt: impl FnMut(bool) -> Result<R, Errno>,
) -> Result<R, Stop> {
    // KERNEL: blocked receivers of one socket are woken one by one, polling ones all at once, so a receive
    // that may wait forever blocks by itself.
    let can_block = events != PollFlags::OUT && matches!(wait, Wait::Forever);
    let spin = spin.filter(|spin| spin.is_on());
    let may_block = can_block && spin.is_none_or(Spin::sleeps_at_once);
    match attempt(may_block) {
        Ok(result) => Ok(result),
        Err(errno) => {
            let refused = Refused {
                errno,
                may_block,
                can_block,
            };
            refused.retry(socket.as_fd(), events, spin, wait, attempt)
        }
    }
}

/// A first attempt that had no result.
struct Refused {
    errno: Errno,
    /// Whether it was allowed to block.
    may_block: bool,
    /// Whether the next ones may.
    can_block: bool,
}

impl Refused {
    #[cold]
    #[inline(never)]
    fn retry<R>(
        mut self,
        socket: BorrowedFd<'_>,
        events: PollFlags,
        spin: Option<&Spin>,
        wait: Wait,
        mut attempt: impl FnMut(bool) -> Result<R, Errno>,
    ) -> Result<R, Stop> {
        let mut spinning: Option<Spinning<'_>> = None;
        let mut pause = Pause::new(events == PollFlags::OUT);
        loop {
            match self.errno {
                Errno::INTR => {}
                // Also comes to a call that may block, when some other process has set `O_NONBLOCK` or a
                // timeout on the socket they share.
                Errno::AGAIN if matches!(wait, Wait::Never) => return Err(Stop::WouldBlock),
                Errno::AGAIN => {
                    let spins = spin.is_some_and(|spin| {
                        let spinning = spinning.get_or_insert_with(|| Spinning::new([spin]));
                        spinning.goes_on(wait)
                    });
                    if spins {
                        thread::yield_now();
                    } else if self.can_block && !self.may_block {
                        self.may_block = true;
                    } else {
                        let slept =
                            pause.sleep(&mut [PollFd::from_borrowed_fd(socket, events)], wait);
                        match slept {
                            // A sandbox denies poll, as an RLIMIT_NOFILE of 0 does.
                            Err(Stop::Failed(_))
                                if !self.may_block && matches!(wait, Wait::Forever) =>
                            {
                                self.may_block = true;
                            }
                            slept => slept?,
                        }
                    }
                }
                errno => return Err(Stop::Failed(errno)),
            }
            match attempt(self.may_block) {
                Ok(result) => {
                    if let (Some(spinning), Some(spin)) = (spinning, spin) {
                        spinning.learn(spin);
                    }
                    return Ok(result);
                }
                Err(errno) => self.errno = errno,
            }
        }
    }
}

/// The sleep between one attempt and the next.
#[derive(Debug)]
pub(crate) struct Pause {
    /// How long to sleep at most, for a call that waits to send.
    retry: Option<Duration>,
}

impl Pause {
    // KERNEL: a full socket wakes its senders, blocked or polling, only once three quarters of its buffer
    // are free (unix_writable), while a send succeeds as soon as any of it is. If the receiver takes a few
    // messages and then waits for something that the sender does next, neither would ever wake up
    // (`a_waiting_sender_goes_on_as_soon_as_there_is_room`). So senders look for themselves, now and then.
    const FIRST_RETRY: Duration = Duration::from_millis(1);
    const LAST_RETRY: Duration = Duration::from_millis(64);

    pub(crate) fn new(sends: bool) -> Self {
        Pause {
            retry: sends.then_some(Self::FIRST_RETRY),
        }
    }

    /// How long a sender sleeps at most, each time. Without end.
    #[cfg(any(feature = "tokio", feature = "async-io"))]
    pub(crate) fn retries() -> impl Iterator<Item = Duration> {
        std::iter::successors(Some(Self::FIRST_RETRY), |&retry| {
            Some((retry * 2).min(Self::LAST_RETRY))
        })
    }

    /// Sleeps until there is an event, or a hang-up, or it is time to try again; with `Wait::Never` it only
    /// looks for events. Says `TimedOut` if the deadline has passed already.
    ///
    /// A signal ends it early, without events, which does no harm.
    pub(crate) fn sleep(&mut self, fds: &mut [PollFd<'_>], wait: Wait) -> Result<(), Stop> {
        let left = match wait {
            Wait::Never => Some(Duration::ZERO),
            Wait::Until { deadline, .. } => match deadline.checked_duration_since(Instant::now()) {
                None | Some(Duration::ZERO) => return Err(Stop::TimedOut(wait.length())),
                left => left,
            },
            Wait::Forever => None,
        };
        let timeout = match (left, self.retry) {
            (Some(Duration::ZERO), _) => left,
            (left, Some(retry)) => {
                self.retry = Some((retry * 2).min(Self::LAST_RETRY));
                Some(left.map_or(retry, |left| left.min(retry)))
            }
            (left, None) => left,
        };
        // Only a time of billions of years does not convert: that is forever.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(fds, timeout.as_ref()) {
            Ok(_) => Ok(()),
            Err(Errno::INTR) => {
                fds.iter_mut().for_each(PollFd::clear_revents);
                Ok(())
            }
            Err(errno) => Err(Stop::Failed(errno)),
        }
    }
}
