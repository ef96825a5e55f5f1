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
        if Instant::now() > patience {
            return Ok(false);
        }
        thread::yield_now();
    }
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
