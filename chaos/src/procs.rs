//! What `/proc` and `wait` say about processes.

use std::fs;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// Whether this process has no children, neither living ones nor dead ones that were not reaped.
pub(crate) fn children_are_gone() -> nix::Result<bool> {
    match ended_child() {
        Err(Errno::ECHILD) => Ok(true),
        Ok(_) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// A child that has ended and was not reaped, which it is not here either.
fn ended_child() -> nix::Result<Option<Pid>> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::All, flags).map(|status| status.pid())
}

/// Reaps the children of dead processes that have come to this one and have ended, and says how many they
/// were. `own` are its own children, which somebody else reaps.
pub(crate) fn reap_orphans(own: &[u32]) -> nix::Result<u64> {
    let mut count = 0;
    loop {
        match ended_child() {
            Ok(Some(pid)) if !own.contains(&pid.as_raw().unsigned_abs()) => {
                if let WaitStatus::StillAlive = waitpid(pid, Some(WaitPidFlag::WNOHANG))? {
                    return Ok(count);
                }
                count += 1;
            }
            Ok(_) | Err(Errno::ECHILD) => return Ok(count),
            Err(errno) => return Err(errno),
        }
    }
}

/// A process id as signals want it.
pub(crate) fn pid_of(number: u32) -> anyhow::Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(number)?))
}

/// The children of this process, dead or alive.
pub(crate) fn children() -> Vec<u32> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter(|pid: &u32| stat(*pid).is_some_and(|stat| stat.get(1) == Some(&own)))
        .collect()
}

/// The fields of `/proc/PID/stat` after the name: the state, the parent …
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

/// What a process is at, as the kernel sees it: its state, where it sleeps, and in which system call.
pub(crate) fn what_it_does(pid: u32) -> String {
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        text.trim().to_owned()
    };
    let state = stat(pid).and_then(|stat| stat.first().cloned());
    match state {
        None => "gone".to_owned(),
        Some(state) => format!(
            "state {state}, in {}, syscall {}",
            read("wchan"),
            read("syscall")
        ),
    }
}

/// The memory that a process has for itself, in bytes.
pub(crate) fn own_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse::<u64>().ok())
        .unwrap_or_default()
        * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_a_state() {
        let pid = std::process::id();
        assert!(own_memory(pid) > 10_000);
        assert!(what_it_does(pid).starts_with("state "));
        assert_eq!(what_it_does(0), "gone");
    }
}
