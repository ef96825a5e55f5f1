//! Processes that get signals, and no others that have their numbers afterwards.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process that can be signalled, also when it has ended meanwhile.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// The process that has this number now.
    pub(crate) fn open(pid: u32) -> anyhow::Result<Process> {
        let number = Pid::from_raw(i32::try_from(pid)?);
        let number = number.ok_or_else(|| anyhow::anyhow!("process 0"))?;
        let pidfd = pidfd_open(number, PidfdFlags::empty())?;
        Ok(Process { pid, pidfd })
    }

    pub(crate) fn try_clone(&self) -> std::io::Result<Process> {
        let pidfd = self.pidfd.try_clone()?;
        Ok(Process {
            pid: self.pid,
            pidfd,
        })
    }

    /// `false`: it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        pidfd_send_signal(&self.pidfd, signal).is_ok()
    }

    /// The children of a child.
    pub(crate) fn children(&self) -> Vec<Process> {
        let pids = children(self.pid).into_iter();
        let processes = pids.filter_map(|pid| Process::open(pid).ok());
        // Its own, if they are its own after they were opened.
        let own: Vec<Process> = processes.collect();
        let still = children(self.pid);
        own.into_iter()
            .filter(|process| still.contains(&process.pid))
            .collect()
    }
}

/// The children of a process, of all its threads.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten(); // none: it has ended
    let mut children = Vec::new();
    for thread in threads {
        let list = fs::read_to_string(thread.path().join("children"));
        let list = list.unwrap_or_default();
        children.extend(
            list.split_whitespace()
                .flat_map(str::parse::<u32>)
                .collect::<Vec<_>>(),
        );
    }
    children
}
