//! What the tests of other channels ask of theirs, asked of channels between processes.
//!
//! Each module names the tests that it follows. Where they start threads or goroutines, there are
//! processes here, and each of them drops the ends that it does not use.
//!
//! Not here, because it means nothing for these channels: capacities counted in messages (zero among
//! them), `len` and `is_full`, addresses and identity of values, and a `select` that looks at all its
//! channels in one instant.

use wormhole::Options;

use crate::support::Forked;

/// Forks a child that drops the ends in `without (…)`, runs the block, and ends with status 0, or 101
/// if it panics.
macro_rules! child {
    (without ($($end:expr),+) $body:block) => {
        match $crate::support::fork_here() {
            Some(child) => child,
            None => {
                drop(($($end,)+));
                $crate::support::end_after(|| $body)
            }
        }
    };
    ($body:block) => {
        match $crate::support::fork_here() {
            Some(child) => child,
            None => $crate::support::end_after(|| $body),
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

fn join_all(children: impl IntoIterator<Item = Forked>) {
    children.into_iter().for_each(Forked::join);
}

/// Settings for a channel that a few messages fill.
fn small() -> Options {
    Options::new().buffer(4096)
}
