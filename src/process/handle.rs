//! A process that was started: signalled and reaped by its pidfd.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, WaitOptions, kill_process,
    pidfd_open, pidfd_send_signal, waitid, waitpid,
};

use super::abandoned;
use crate::error::{ChildEnd, Error, Result};
use crate::sys::registry::Registered;
use crate::sys::socket;
use crate::trace;
use crate::wait::{Wait, until_ready};

/// A child of this process, reaped at most once.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    pidfd: Registered,
    end: Option<ChildEnd>,
    /// When it was seen to have ended without being there to be reaped.
    over: Option<Instant>,
}

/// How long a tracer of a child that has ended may take to let go of it.
const PATIENCE: Duration = Duration::from_millis(50);

impl Process {
    /// Takes charge of a child that was started just now. Without a descriptor for it there is no child: it is killed.
    pub(super) fn adopt(pid: Pid) -> Result<Self> {
        trace::child_started(pid.as_raw_pid().unsigned_abs());
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self::new(pid, pidfd, None)),
            // It is gone, with its number, because SIGCHLD is ignored. What stands for it is readable, as it would be.
            Err(Errno::SRCH) => Ok(Self::new(pid, socket::dead()?, Some(ChildEnd::Unknown))),
            Err(errno) => {
                let _ = kill_process(pid, Signal::KILL);
                let _ = retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
                let operation = "open a descriptor (pidfd_open) for a child";
                Err(Error::io(operation, errno))
            }
        }
    }

    fn new(pid: Pid, pidfd: OwnedFd, end: Option<ChildEnd>) -> Self {
        let pidfd = Registered::new(pidfd);
        let over = None;
        Process {
            pid,
            pidfd,
            end,
            over,
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    pub(super) fn kill(&self) -> Result<()> {
        if self.end.is_some() {
            return Ok(());
        }
        match pidfd_send_signal(self.as_fd(), Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::io("kill a child", errno)),
        }
    }

    /// How it ended, once it has.
    pub(super) fn ended(&mut self, wait: Wait) -> Result<ChildEnd> {
        if let Some(end) = &self.end {
            return Ok(end.clone());
        }
        let mut over = self.over;
        let ended = until_ready(&self.pidfd, PollFlags::IN, None, wait, |may_block| {
            self.look(may_block, &mut over)?.ok_or(Errno::AGAIN)
        });
        self.over = over;
        let end = ended.map_err(|stop| stop.into_error("wait for a child", Error::Empty))?;
        trace::child_ended(self.pid(), &end);
        Ok(self.end.insert(end).clone())
    }

    /// Reaps it if it has ended.
    fn look(&self, may_block: bool, over: &mut Option<Instant>) -> Result<Option<ChildEnd>, Errno> {
        if let Some(end) = reap(&self.pidfd, false)? {
            return Ok(Some(end));
        }
        let mut pidfd = [PollFd::new(&self.pidfd, PollFlags::IN)];
        match poll(&mut pidfd, Some(&Timespec::default())) {
            Ok(0) => Ok(None),
            Ok(_) => {
                let end = reap(&self.pidfd, false)?;
                // KERNEL: ptrace(2): a child that is traced is not its parent's to reap before the tracer lets go,
                // although it has ended (`a_child_that_its_own_child_traces_delays_nobody`). strace does at once.
                if end.is_none() && over.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    abandoned::abandon(self.pid, &self.pidfd);
                    return Ok(Some(ChildEnd::Unknown));
                }
                if end.is_none() {
                    thread::yield_now();
                }
                Ok(end)
            }
            // A sandbox denies poll, as an RLIMIT_NOFILE of 0 does.
            Err(_) if may_block => reap(&self.pidfd, true),
            Err(_) => Ok(None),
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.end.is_none() && matches!(reap(&self.pidfd, false), Ok(None)) {
            abandoned::abandon(self.pid, &self.pidfd);
        }
    }
}

/// Takes the exit status of a child that has ended, and waits for the end if it `may_block`.
fn reap(pidfd: &Registered, may_block: bool) -> Result<Option<ChildEnd>, Errno> {
    let mut options = WaitIdOptions::EXITED;
    options.set(WaitIdOptions::NOHANG, !may_block);
    match retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), options)) {
        Ok(status) => Ok(status.map(child_end)),
        Err(Errno::CHILD) => Ok(Some(ChildEnd::Unknown)),
        Err(errno) => Err(errno),
    }
}

/// How a child has ended.
fn child_end(status: WaitIdStatus) -> ChildEnd {
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
