//! What the tests of other channels ask of theirs, asked of channels between processes.
//!
//! Each module names the tests that it follows. Where they start threads or goroutines, there are
//! processes here, and each of them drops the ends that it does not use.
//!
//! Not here, because it means nothing for these channels: capacities counted in messages (zero among
//! them), `len` and `is_full`, addresses and identity of values, and a `select` that looks at all its
//! channels in one instant.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::unistd::{ForkResult, fork};
use wormhole::Options;

use crate::support::Forked;

/// Forks a child that drops the ends in `without (…)`, runs the block, and ends with status 0, or 101
/// if it panics.
macro_rules! child {
    (without ($($end:expr),+) $body:block) => {
        match $crate::ported::fork_here() {
            Some(child) => child,
            None => {
                drop(($($end,)+));
                $crate::ported::end_after(|| $body)
            }
        }
    };
    ($body:block) => {
        match $crate::ported::fork_here() {
            Some(child) => child,
            None => $crate::ported::end_after(|| $body),
        }
    };
}

mod claims;
mod combinations;
mod crossbeam;
mod crossbeam_select;
mod crossbeam_stress;
mod go;
mod go_select;
mod mpsc;
mod oneshot;

/// `None` in the child.
fn fork_here() -> Option<Forked> {
    // SAFETY: the tests run in processes with one thread, so nothing that the child needs is locked.
    #[allow(unsafe_code, reason = "tests of processes need processes")]
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => Some(Forked { pid: child }),
        ForkResult::Child => None,
    }
}

fn end_after(body: impl FnOnce()) -> ! {
    let status = catch_unwind(AssertUnwindSafe(body)).map_or(101, |()| 0);
    std::process::exit(status);
}

fn join_all(children: impl IntoIterator<Item = Forked>) {
    children.into_iter().for_each(Forked::join);
}

/// Settings for a channel that a few messages fill.
fn small() -> Options {
    Options::new().buffer(4096)
}
