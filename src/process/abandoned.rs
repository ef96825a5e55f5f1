//! Children whose handles were dropped while they ran: reaped, a few at a time, when others are started.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::fstat;
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

/// By their ids, as a descriptor each would run out.
static ABANDONED: Mutex<VecDeque<Abandoned>> = Mutex::new(VecDeque::new());

/// How many are looked at for each that is started: so the cost does not grow, and each one's turn comes.
const AT_ONCE: usize = 16;

#[derive(Debug)]
pub(super) struct Abandoned {
    pid: Pid,
    // KERNEL: since Linux 6.9 the inode of a pidfd is that of one process and no other. Before, all are the same. Then
    // nothing tells a child whose id was used again, after something else has reaped it.
    inode: Option<u64>,
}

/// Locks the list, which a forked child must clear: they are not its children.
pub(super) fn abandoned() -> MutexGuard<'static, VecDeque<Abandoned>> {
    ABANDONED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Leaves a child to be reaped later.
pub(super) fn abandon(pid: Pid, pidfd: impl AsFd) {
    let inode = inode(pidfd);
    abandoned().push_back(Abandoned { pid, inode });
}

/// Reaps some of those that have ended.
pub(super) fn reap_some(list: &mut VecDeque<Abandoned>) {
    for _ in 0..AT_ONCE.min(list.len()) {
        if let Some(child) = list.pop_front() {
            if !child.is_gone() {
                list.push_back(child);
            }
        }
    }
}

impl Abandoned {
    /// Reaps it if it has ended. Never touches another child that got the same id.
    fn is_gone(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match retry_on_intr(|| waitid(WaitId::Pid(self.pid), look)) {
            Ok(None) => return false,
            Err(Errno::CHILD) => return true, // something else has reaped it
            Ok(Some(_)) | Err(_) => {}
        }
        let Ok(pidfd) = pidfd_open(self.pid, PidfdFlags::empty()) else {
            return false;
        };
        if inode(&pidfd) == self.inode {
            let take = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            let _ = retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), take));
        }
        true
    }
}

fn inode(pidfd: impl AsFd) -> Option<u64> {
    #[allow(clippy::useless_conversion, reason = "the type depends on the machine")]
    fstat(pidfd).ok().map(|stat| stat.st_ino.into())
}
