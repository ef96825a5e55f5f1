//! A timer signal that interrupts whatever a process does, and after which no system call goes on by itself.

#![allow(unsafe_code, reason = "a signal handler, and libc's timer")]

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{ITIMER_REAL, itimerval, setitimer, timeval};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::ledger::{Count, ledger};

static TICKS: AtomicU64 = AtomicU64::new(0);

extern "C" fn tick(_signal: i32) {
    TICKS.fetch_add(1, Ordering::Relaxed);
}

/// While it lives, this process is interrupted again and again.
#[derive(Debug)]
pub(crate) struct Ticking(());

impl Ticking {
    pub(crate) fn start(every: Duration) -> nix::Result<Self> {
        // Without SA_RESTART.
        let action = SigAction::new(SigHandler::Handler(tick), SaFlags::empty(), SigSet::empty());
        // SAFETY: all that the handler does is one atomic addition.
        unsafe { sigaction(Signal::SIGALRM, &action) }?;
        set(every)?;
        Ok(Ticking(()))
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        let _ = set(Duration::ZERO);
        ledger().add(Count::Ticks, TICKS.swap(0, Ordering::Relaxed));
    }
}

/// Sets the timer, or ends it with zero. The handler stays, for a signal that is on its way.
fn set(every: Duration) -> nix::Result<()> {
    let time = timeval {
        tv_sec: 0,
        tv_usec: every.subsec_micros().into(),
    };
    let timer = itimerval {
        it_interval: time,
        it_value: time,
    };
    // SAFETY: the timer is valid, and the old one is not asked for.
    Errno::result(unsafe { setitimer(ITIMER_REAL, &timer, ptr::null_mut()) }).map(drop)
}
