//! What a pool waits for: one descriptor for its workers, its next deadline, and the outcomes that it has already.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use crate::error::{Error, Result};
use crate::sys::registry::Registered;

/// How many events one look at the kernel's list tells of.
const BATCH: usize = 64;

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The worker in that place has said something, or will not any more.
    Answer(usize),
    /// The worker in that place has ended.
    End(usize),
    /// A moment has come that was asked for.
    Alarm,
}

const TIMER: u64 = u64::MAX;
const OUTCOMES: u64 = u64::MAX - 1;

#[derive(Debug)]
pub(super) struct Watch {
    epoll: Registered,
    timer: Registered,
    /// When it goes off.
    alarm: Option<Instant>,
    /// Readable while there are outcomes that have not been received.
    outcomes: Registered,
    has_outcomes: bool,
}

impl Watch {
    pub(super) fn new() -> Result<Self> {
        let failed = |errno| Error::io("make the descriptors of a pool", errno);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(failed)?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let outcomes = eventfd(0, flags).map_err(failed)?;
        let watch = Watch {
            epoll: Registered::new(epoll),
            timer: Registered::new(timer),
            alarm: None,
            outcomes: Registered::new(outcomes),
            has_outcomes: false,
        };
        watch.add(watch.timer.as_fd(), TIMER)?;
        watch.add(watch.outcomes.as_fd(), OUTCOMES)?;
        Ok(watch)
    }

    fn add(&self, fd: BorrowedFd<'_>, number: u64) -> Result<()> {
        let data = epoll::EventData::new_u64(number);
        epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN)
            .map_err(|errno| Error::io("wait for a worker", errno))
    }

    /// Watches for the answers and the end of the worker in that place.
    pub(super) fn add_worker(
        &self,
        place: usize,
        answers: impl AsFd,
        pidfd: impl AsFd,
    ) -> Result<()> {
        self.add(answers.as_fd(), place as u64 * 2)?;
        self.add(pidfd.as_fd(), place as u64 * 2 + 1)
    }

    /// Forgets a descriptor before it is closed: copies of it elsewhere would keep it in the list.
    pub(super) fn forget(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Says when to wake up at the latest.
    pub(super) fn set_alarm(&mut self, at: Option<Instant>) -> Result<()> {
        let Some(at) = at else {
            return Ok(()); // one that goes off in vain does no harm
        };
        if self.alarm.is_some_and(|alarm| alarm <= at) {
            return Ok(());
        }
        let nothing = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // None at all would turn it off.
        let left = at.saturating_duration_since(Instant::now());
        let left = left.max(std::time::Duration::from_nanos(1));
        let timer = Itimerspec {
            it_interval: nothing,
            it_value: Timespec::try_from(left).unwrap_or(nothing), // in billions of years
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer)
            .map_err(|errno| Error::io("set the timer of a pool", errno))?;
        self.alarm = Some(at);
        Ok(())
    }

    /// Says whether there are outcomes that have not been received.
    pub(super) fn set_outcomes(&mut self, some: bool) {
        if self.has_outcomes != some {
            self.has_outcomes = some;
            let _ = match some {
                true => write(&self.outcomes, &1_u64.to_ne_bytes()),
                false => read(&self.outcomes, &mut [0_u8; 8]),
            };
        }
    }

    /// Sleeps for at most so long, and adds what has happened to `events`.
    pub(super) fn wait(
        &mut self,
        timeout: Option<Timespec>,
        events: &mut Vec<Event>,
    ) -> Result<(), Errno> {
        let mut space = [const { MaybeUninit::<epoll::Event>::uninit() }; BATCH];
        let (happened, _) = epoll::wait(&self.epoll, &mut space, timeout.as_ref())?;
        for event in happened {
            events.push(match event.data.u64() {
                OUTCOMES => continue,
                TIMER => {
                    self.alarm = None;
                    let _ = retry_on_intr(|| read(&self.timer, &mut [0_u8; 8]));
                    Event::Alarm
                }
                number => {
                    let place = usize::try_from(number / 2).unwrap_or(usize::MAX);
                    match number % 2 {
                        0 => Event::Answer(place),
                        _ => Event::End(place),
                    }
                }
            });
        }
        Ok(())
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
