//! How a call waits: try, and sleep in the kernel until another try is worth it.

mod deadline;
mod spin;

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

pub(crate) use deadline::Wait;
pub(crate) use spin::{Spin, Waited};

/// Why an operation gave up.
#[derive(Debug)]
pub(crate) enum Stop {
    WouldBlock,
    TimedOut,
    Failed(Errno),
}

/// Runs `attempt` until it has a result, waiting in between for one of `events`, awake at first if `spin` says
/// so.
///
/// `attempt` is told whether it may block, and says `AGAIN` if it would have to and may not.
pub(crate) fn until_ready<R>(
    socket: impl AsFd,
    events: PollFlags,
    spin: Option<&Spin>,
    wait: Wait,
    mut attempt: impl FnMut(bool) -> Result<R, Errno>,
) -> Result<R, Stop> {
    let spin = spin.filter(|spin| !spin.limit().is_zero());
    let sends = events == PollFlags::OUT;
    // KERNEL: blocked receivers of one socket are woken one by one, polling ones all at once, so a receive
    // that may wait for ever blocks by itself.
    let can_block = !sends && matches!(wait, Wait::Forever);
    let mut may_block = can_block && spin.is_none();
    let mut waited: Option<Waited<'_>> = None;
    let mut pause = Pause::new(sends);
    loop {
        match attempt(may_block) {
            Err(Errno::INTR) => continue,
            // Also comes to a call that may block, when some other process has set `O_NONBLOCK` or a
            // timeout on the socket they share.
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(Stop::Failed(errno)),
            Ok(result) => {
                if let (Some(waited), Some(spin)) = (waited, spin) {
                    waited.learn(spin);
                }
                return Ok(result);
            }
        }
        if matches!(wait, Wait::Never) {
            return Err(Stop::WouldBlock);
        }
        if let Some(spin) = spin {
            if waited
                .get_or_insert_with(|| Waited::new([spin]))
                .goes_on(wait)
            {
                thread::yield_now();
                continue;
            }
            if can_block && !may_block {
                may_block = true;
                continue;
            }
        }
        match pause.sleep(&mut [PollFd::new(&socket, events)], wait) {
            // A sandbox denies poll, as an RLIMIT_NOFILE of 0 does.
            Err(Stop::Failed(_)) if !may_block && matches!(wait, Wait::Forever) => may_block = true,
            slept => slept?,
        }
    }
}

/// The sleep between one attempt and the next.
#[derive(Debug)]
pub(crate) struct Pause {
    /// How long to sleep at most, if somebody waits to send.
    retry: Option<Duration>,
}

impl Pause {
    // KERNEL: a full socket wakes its senders, blocked or polling, only once three quarters of its buffer
    // are free (unix_writable), while a send succeeds as soon as any of it is. If the receiver takes a few
    // messages and then waits for something that the sender does next, nobody would ever wake up
    // (`a_waiting_sender_goes_on_as_soon_as_there_is_room`). So senders look for themselves, now and then.
    const FIRST_RETRY: Duration = Duration::from_millis(1);
    const LAST_RETRY: Duration = Duration::from_millis(64);

    pub(crate) fn new(sends: bool) -> Self {
        Pause {
            retry: sends.then_some(Self::FIRST_RETRY),
        }
    }

    /// Sleeps until there is an event, or a hang-up, or it is time to try again; with `Wait::Never` it only
    /// looks for events. Says `TimedOut` if the deadline has passed already.
    ///
    /// A signal ends it early, without events, which does no harm.
    pub(crate) fn sleep(&mut self, fds: &mut [PollFd<'_>], wait: Wait) -> Result<(), Stop> {
        let left = match wait {
            Wait::Never => Some(Duration::ZERO),
            Wait::Until(deadline) => match deadline.checked_duration_since(Instant::now()) {
                None | Some(Duration::ZERO) => return Err(Stop::TimedOut),
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
        // Only a time of billions of years does not convert: that is for ever.
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
