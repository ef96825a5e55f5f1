//! Starting a program from a thread that has a descriptor table of its own.
//!
//! A program is given a numbered descriptor by being started while that is inheritable, which in this process it must
//! never be: another thread may be starting something else. Code that runs between fork and exec can make it so, but then
//! std forks, and to fork a process of much memory takes long. So a thread is started for the moment whose table of
//! descriptors is a copy of this process's. In that the descriptor is inheritable, and nothing else is started from there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use std::{io, thread};

use rustix::io::{FdFlags, fcntl_setfd};

use super::settings::block_signals;
use crate::channel::{Receiver, Sender, channel};
use crate::sys::registry::FIRST;

/// Enough for std's and the C library's ways to start a program.
const STACK: usize = 256 << 10;

/// Which of a program's standard streams are pipes to this process.
type Piped = [bool; 3];

/// Starts a program that inherits that descriptor and, if there is to be `nothing_else`, no other but the standard
/// streams. `None` where there can be no such thread: then nothing has happened.
pub(super) fn start(
    command: &mut Command,
    fd: BorrowedFd<'_>,
    nothing_else: bool,
) -> Option<io::Result<Child>> {
    // Pipes that are opened in the other table come to this one in a message.
    let (give, given) = channel::<()>().ok()?;
    let started = thread::scope(|scope| {
        let start = || in_own_table(command, fd, nothing_else, &give);
        let thread = thread::Builder::new().stack_size(STACK);
        let thread = thread.spawn_scoped(scope, start).ok()?;
        let panicked = |_| Some(Err(io::Error::other("starting it has panicked")));
        thread.join().unwrap_or_else(panicked)
    })?;
    Some(started.and_then(|(child, piped)| attach(child, piped, &given)))
}

/// All that the thread does.
fn in_own_table(
    command: &mut Command,
    fd: BorrowedFd<'_>,
    nothing_else: bool,
    give: &Sender<()>,
) -> Option<io::Result<(Child, Piped)>> {
    if !unshare_table() {
        return None;
    }
    if nothing_else {
        close_on_exec_from(FIRST);
    }
    let started = fcntl_setfd(fd, FdFlags::empty());
    let started = started.map_err(io::Error::from);
    let started = started.and_then(|()| command.spawn());
    let started = started.and_then(|child| detach(child, give));
    // The handler of one would find no descriptor that it knows.
    block_signals();
    // KERNEL: a thread wakes up what joins it before it gives up its table (`nothing_of_it_stays_open_in_this_process`).
    // Until then it would hold all ends that this process closes.
    close_all();
    Some(started)
}

/// Gives away the pipes to a program. Their numbers mean something in this table only.
fn detach(mut child: Child, give: &Sender<()>) -> io::Result<(Child, Piped)> {
    let stdin = child.stdin.take().map(OwnedFd::from);
    let stdout = child.stdout.take().map(OwnedFd::from);
    let stderr = child.stderr.take().map(OwnedFd::from);
    let pipes = [stdin, stdout, stderr];
    let piped = pipes.each_ref().map(Option::is_some);
    let pipes: Vec<_> = pipes.iter().flatten().map(AsFd::as_fd).collect();
    if pipes.is_empty() {
        return Ok((child, piped));
    }
    match give.send_with_fds((), &pipes) {
        Ok(()) => Ok((child, piped)),
        Err(error) => Err(given_up(child, error)),
    }
}

/// Takes the pipes to a program.
fn attach(mut child: Child, piped: Piped, given: &Receiver<()>) -> io::Result<Child> {
    if piped == [false; 3] {
        return Ok(child);
    }
    let mut pipes = match given.try_recv_with_fds() {
        Ok(((), pipes)) => pipes.into_iter(),
        Err(error) => return Err(given_up(child, error)),
    };
    let mut take = |is_pipe: bool| is_pipe.then(|| pipes.next()).flatten();
    let [stdin, stdout, stderr] = piped.map(&mut take);
    child.stdin = stdin.map(ChildStdin::from);
    child.stdout = stdout.map(ChildStdout::from);
    child.stderr = stderr.map(ChildStderr::from);
    Ok(child)
}

/// Ends a program to which there are no pipes, as std would not have started it.
fn given_up(mut child: Child, error: crate::error::Error) -> io::Error {
    let _ = child.kill();
    let _ = child.wait();
    io::Error::other(error)
}

/// Makes the table of this thread one of its own, a copy.
#[allow(unsafe_code, reason = "a system call that rustix calls unsafe as well")]
fn unshare_table() -> bool {
    // KERNEL: unshare(2): for the calling thread alone.
    // SAFETY: what this thread closes and opens from here on is its own affair: it owns nothing that others use.
    unsafe { libc::unshare(libc::CLONE_FILES) == 0 }
}

/// Makes all descriptors from that number on close-on-exec. Allocates nothing.
#[allow(unsafe_code, reason = "descriptors by their numbers")]
pub(super) fn close_on_exec_from(first: RawFd) {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    if !close_range(first, CLOSE_RANGE_CLOEXEC) {
        for number in first..limit() {
            // SAFETY: changes what an exec closes. That there is no such descriptor is an error without consequences.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// Closes all descriptors of a thread that has a table of its own.
#[allow(unsafe_code, reason = "descriptors by their numbers")]
fn close_all() {
    if !close_range(0, 0) {
        for number in 0..limit() {
            // SAFETY: nothing in this table is used any more.
            unsafe { libc::close(number) };
        }
    }
}

#[allow(unsafe_code, reason = "no safe way to call close_range")]
fn close_range(first: RawFd, flags: libc::c_uint) -> bool {
    let last = libc::c_uint::MAX;
    // SAFETY: as its callers say of each descriptor.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) == 0 }
}

/// The number that a new descriptor has at most, less one.
// KERNEL: Linux before 5.11 does not know the flag of close_range, and before 5.9 not the call. Numbers beyond a limit
// that was lowered are left.
#[allow(
    unsafe_code,
    reason = "between fork and exec, what the C library promises"
)]
fn limit() -> RawFd {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a `rlimit`.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    RawFd::try_from(limit.rlim_cur).unwrap_or(RawFd::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::sys::signal::{SigSet, Signal};

    use super::*;

    #[test]
    fn the_thread_takes_no_signals_once_its_descriptors_are_closed() {
        let (give, _given) = channel().unwrap();
        let null = File::open("/dev/null").unwrap();
        let (mut child, blocked) = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let mut program = Command::new("true");
                let started = in_own_table(&mut program, null.as_fd(), false, &give);
                (started, SigSet::thread_get_mask())
            });
            let (started, blocked) = thread.join().unwrap();
            let (child, _) = started.unwrap().unwrap(); // there can be such a thread
            (child, blocked.unwrap())
        });
        assert!(child.wait().unwrap().success());
        for signal in Signal::iterator() {
            let cannot_be = matches!(signal, Signal::SIGKILL | Signal::SIGSTOP);
            assert_ne!(blocked.contains(signal), cannot_be, "{signal}");
        }
    }
}
