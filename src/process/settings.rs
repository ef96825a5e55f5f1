//! What a child does to itself before its function runs.

use std::ffi::{CStr, CString};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::error::{Error, Result};

/// How a child starts, as a [`Builder`](super::Builder) has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) ends_with_parent: bool,
    pub(super) only_arguments: bool,
    pub(super) resets_signals: bool,
    pub(super) name: Option<CString>,
    pub(super) stdin: Option<Arc<OwnedFd>>,
    pub(super) stdout: Option<Arc<OwnedFd>>,
    pub(super) stderr: Option<Arc<OwnedFd>>,
}

/// Those that a fresh child has to be told.
pub(super) type Told = (bool, bool, Option<Vec<u8>>);

impl Settings {
    pub(super) fn told(&self) -> Told {
        let name = self.name.clone().map(CString::into_bytes);
        (self.ends_with_parent, self.resets_signals, name)
    }

    pub(super) fn from_told((ends_with_parent, resets_signals, name): Told) -> Self {
        Settings {
            ends_with_parent,
            resets_signals,
            name: name.and_then(|name| CString::new(name).ok()),
            ..Settings::default()
        }
    }

    /// Puts the standard streams in place.
    pub(super) fn redirect(&self) -> Result<(), Errno> {
        let stdin = self.stdin.as_deref();
        stdin.map_or(Ok(()), dup2_stdin)?;
        self.stdout.as_deref().map_or(Ok(()), dup2_stdout)?;
        self.stderr.as_deref().map_or(Ok(()), dup2_stderr)
    }

    /// Does the rest, in the child of that parent.
    pub(super) fn apply(&self, parent: Option<Pid>) -> Result<()> {
        if self.resets_signals {
            reset_signals();
        }
        if let Some(name) = &self.name {
            set_name(name);
        }
        match self.ends_with_parent {
            true => end_with(parent)
                .map_err(|errno| Error::io("ask for the end with the parent (prctl)", errno)),
            false => Ok(()),
        }
    }
}

/// Has the kernel kill this process when the thread that started it ends.
pub(super) fn end_with(parent: Option<Pid>) -> Result<(), Errno> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // If it is gone already, no signal comes any more. In another pid namespace it has no number, here or there.
    if getppid().is_some() && getppid() != parent {
        exit_at_once();
    }
    Ok(())
}

#[allow(unsafe_code, reason = "std has no exit that skips the exit handlers")]
fn exit_at_once() -> ! {
    // SAFETY: ends the process, and runs nothing of it any more.
    unsafe { libc::_exit(1) }
}

/// Gives all signals their default action, and blocks none. Allocates nothing.
///
/// Except for what Rust's runtime has set: SIGPIPE is an error of the write, and a stack overflow says so.
#[allow(unsafe_code, reason = "no safe way to change the action of a signal")]
pub(super) fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        if ![libc::SIGPIPE, libc::SIGSEGV, libc::SIGBUS].contains(&signal) {
            // SAFETY: the default action runs no code of this process. Those that cannot be changed are errors.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills in the set, to which the pointer is.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: the set was filled in, and the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) };
}

/// Whether a program has nothing to reset: this thread blocks no signal, and this process ignores none but SIGPIPE, for
/// which std gives programs the default action. Handlers do not outlive an exec.
#[allow(unsafe_code, reason = "no safe way to look at the action of a signal")]
pub(super) fn signals_are_default() -> bool {
    let mut blocked = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills in the set, and changes nothing.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), blocked.as_mut_ptr()) };
    (1..=libc::SIGRTMAX()).all(|signal| {
        // SAFETY: the set was filled in.
        let is_blocked = unsafe { libc::sigismember(blocked.as_ptr(), signal) } == 1;
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: changes nothing, and the pointer is to room for the answer. There is none for the C library's own.
        unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
        // SAFETY: zeros are an action as well: the default.
        let action = unsafe { action.assume_init() }.sa_sigaction;
        !is_blocked && (action != libc::SIG_IGN || signal == libc::SIGPIPE)
    })
}

/// Blocks all signals for this thread.
#[allow(unsafe_code, reason = "no safe way to block signals")]
pub(super) fn block_signals() {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills in the set, to which the pointer is.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set was filled in, and the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut()) };
}

#[allow(
    unsafe_code,
    reason = "rustix has this for threads, in a feature of its own"
)]
fn set_name(name: &CStr) {
    // SAFETY: the kernel copies at most 16 bytes of a string that ends with NUL.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Whether a write to a stream would not block, or fail at once.
pub(super) fn takes_output(stream: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut stream = [PollFd::from_borrowed_fd(stream, PollFlags::OUT)];
    poll(&mut stream, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Forgets what this process's standard output holds that was not written, which its parent will write.
pub(super) fn discard_output() {
    let discard = || -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        let saved = stdout.as_fd().try_clone_to_owned()?;
        let void = crate::sys::memfd::create("make a file", rustix::fs::MemfdFlags::empty())
            .map_err(|_| io::ErrorKind::Other)?;
        dup2_stdout(void)?;
        let flushed = stdout.flush();
        dup2_stdout(saved)?;
        flushed
    };
    let _ = discard(); // then it prints it a second time
}
