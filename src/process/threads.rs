//! How many threads this process has.

use std::time::{Duration, Instant};
use std::{fs, io, thread};

use crate::error::{Error, Result};

/// Whether this process has one thread.
pub(super) fn is_single_threaded() -> Result<bool> {
    // KERNEL: a thread that has been joined may still be listed for a moment: pthread_join returns on
    // CLONE_CHILD_CLEARTID, before the kernel has released the task. Measured: once in 600 joins.
    let patience = Instant::now() + Duration::from_millis(50);
    loop {
        if has_one_task()? {
            return Ok(true);
        }
        if another_stays() || Instant::now() > patience {
            return Ok(false);
        }
        thread::yield_now();
    }
}

/// Whether there is a thread beside this one that is not about to be gone, as far as that can be told.
fn another_stays() -> bool {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return false;
    };
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    // One of them is this one.
    stats.filter(|stat| !is_ending(stat)).take(2).count() == 2
}

/// Whether a thread with that `stat`, see proc_pid_stat(5), has begun to end.
fn is_ending(stat: &str) -> bool {
    // KERNEL: include/linux/sched.h. It is set (exit_signals) before whoever joins the thread is woken up (exit_mm).
    const PF_EXITING: u32 = 4;
    // The name, in parentheses, may have some in it. Behind it are the state, five numbers, and the flags.
    let numbers = stat.rsplit(')').next().unwrap_or_default();
    let flags = numbers.split_ascii_whitespace().nth(6);
    let flags = flags.and_then(|flags| flags.parse::<u32>().ok());
    flags.is_some_and(|flags| flags & PF_EXITING != 0)
}

/// Whether this process has one thread at this moment.
pub(super) fn has_one_task() -> Result<bool> {
    if let Some(answer) = can_unshare() {
        return Ok(answer);
    }
    match fs::read_dir("/proc/self/task") {
        Ok(tasks) => Ok(tasks.take(2).count() == 1),
        Err(error) => Err(Error::io("count the threads", error)),
    }
}

/// Asks the kernel itself. Some sandboxes do not permit it.
#[allow(unsafe_code, reason = "a system call that rustix calls unsafe as well")]
fn can_unshare() -> Option<bool> {
    // KERNEL: unshare(2): in a process with one thread CLONE_THREAD has no effect, in others it is EINVAL.
    // SAFETY: so it changes nothing.
    if unsafe { libc::unshare(libc::CLONE_THREAD) } == 0 {
        return Some(true);
    }
    (io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_ends_is_told_by_its_flags() {
        let stat = |flags| format!("77 (a) S (b) R 1 2 3 0 -1 {flags} 5 6 7");
        assert!(is_ending(&stat("4227084")));
        assert!(!is_ending(&stat("4227080")));
        assert!(!is_ending("77 (a) R 1 2") && !is_ending(""));
    }

    #[test]
    fn a_thread_that_stays_is_found() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let waits = thread::spawn(move || ended.recv());
        assert!(another_stays()); // that one, and those of other tests
        drop(end);
        waits.join().unwrap().unwrap_err();
    }
}
