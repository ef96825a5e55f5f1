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
    let receives = events == PollFlags::IN;
    // KERNEL: blocked receivers of one socket are woken one by one, polling ones all at once, so a receive
    // that may wait for ever blocks by itself.
    let may_block = receives && matches!(wait, Wait::Forever);
    let mut patience = FIRST_RETRY;
    loop {
        match attempt(may_block) {
            Err(Errno::INTR) => continue,
            // Also comes to a call that may block, when some other process has set `O_NONBLOCK` or a
            // timeout on the socket they share.
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(Stop::Failed(errno)),
            Ok(result) => return Ok(result),
        }
        let deadline = match wait {
            Wait::Never => return Err(Stop::WouldBlock),
            Wait::Until(deadline) => Some(deadline),
            Wait::Forever => None,
        };
        if receives {
            sleep(socket.as_fd(), events, deadline, None)?;
        } else {
            sleep(socket.as_fd(), events, deadline, Some(patience))?;
            patience = (patience * 2).min(LAST_RETRY);
        }
    }
}

// KERNEL: a full socket wakes its senders, blocked or polling, only once three quarters of its buffer are
// free (unix_writable), while a send succeeds as soon as any of it is. If the receiver takes a few messages
// and then waits for something that the sender does next, nobody would ever wake up
// (`a_waiting_sender_goes_on_as_soon_as_there_is_room`). So senders look for themselves, now and then.
const FIRST_RETRY: Duration = Duration::from_millis(1);
const LAST_RETRY: Duration = Duration::from_millis(64);

/// Sleeps until one of `events`, or a hang-up, is there, but not longer than `at_most`. A signal ends it
/// early, which does no harm.
fn sleep(
    socket: BorrowedFd<'_>,
    events: PollFlags,
    deadline: Option<Instant>,
    at_most: Option<Duration>,
) -> Result<(), Stop> {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    if left.is_some_and(|left| left.is_zero()) {
        return Err(Stop::TimedOut);
    }
    let timeout = match (left, at_most) {
        (Some(left), Some(at_most)) => Some(left.min(at_most)),
        (left, at_most) => left.or(at_most),
    };
    // Only a time of billions of years does not convert: that is for ever.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(&mut [PollFd::new(&socket, events)], timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(Stop::Failed(errno)),
    }
}
