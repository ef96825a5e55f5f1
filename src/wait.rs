//! How a call waits: try, and sleep in the kernel until another try is worth it.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// How long a call may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// Not at all.
    Never,
    /// Until the deadline.
    Until(Instant),
    /// For as long as it takes.
    Forever,
}

impl Wait {
    /// Waits that long from now. A time beyond what the clock can express is for ever.
    pub(crate) fn at_most(timeout: Duration) -> Self {
        Instant::now()
            .checked_add(timeout)
            .map_or(Wait::Forever, Wait::Until)
    }
}

/// Why an operation gave up.
#[derive(Debug)]
pub(crate) enum Stop {
    WouldBlock,
    TimedOut,
    Failed(Errno),
}

/// Runs `attempt` until it has a result, waiting in between for one of `events`.
///
/// `attempt` is told whether it may block, and says `AGAIN` if it would have to and may not.
pub(crate) fn until_ready<R>(
    socket: impl AsFd,
    events: PollFlags,
    wait: Wait,
    mut attempt: impl FnMut(bool) -> Result<R, Errno>,
) -> Result<R, Stop> {
    // KERNEL: blocked receivers of one socket are woken one by one, polling ones all at once, so an
    // attempt that may wait for ever blocks by itself.
    let may_block = matches!(wait, Wait::Forever);
    loop {
        match attempt(may_block) {
            Err(Errno::INTR) => continue,
            // Also comes to a call that may block, when some other process has set `O_NONBLOCK` or a
            // timeout on the socket they share.
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(Stop::Failed(errno)),
            Ok(result) => return Ok(result),
        }
        match wait {
            Wait::Never => return Err(Stop::WouldBlock),
            Wait::Until(deadline) => sleep(socket.as_fd(), events, Some(deadline))?,
            Wait::Forever => sleep(socket.as_fd(), events, None)?,
        }
    }
}

/// Sleeps until one of `events`, or a hang-up, is there. A signal ends it early, which does no harm.
fn sleep(socket: BorrowedFd<'_>, events: PollFlags, deadline: Option<Instant>) -> Result<(), Stop> {
    let timeout = match deadline {
        None => None,
        Some(deadline) => {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Stop::TimedOut);
            }
            // Only a time of billions of years does not convert: that is for ever.
            Timespec::try_from(left).ok()
        }
    };
    match poll(&mut [PollFd::new(&socket, events)], timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(Stop::Failed(errno)),
    }
}
