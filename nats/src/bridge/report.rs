//! What becomes of the jobs of a bridge.

use std::sync::atomic::{AtomicU64, Ordering};

use super::options::BridgeOptions;
use crate::error::Error;

/// What has become of the jobs of a bridge: [`Bridge::report`](crate::Bridge::report).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Jobs that are done: confirmed by the server, or for an outbound bridge stored.
    pub done: u64,
    /// Jobs that were given back: their worker was killed, or dropped or failed them, or the bridge stopped.
    pub given_back: u64,
    /// Messages that were refused for good.
    pub refused: u64,
}

/// The counts behind a report, and whom to tell of problems.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) options: BridgeOptions,
    done: AtomicU64,
    given_back: AtomicU64,
    refused: AtomicU64,
}

impl Tally {
    pub(super) fn new(options: BridgeOptions) -> Self {
        Tally {
            options,
            done: AtomicU64::new(0),
            given_back: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    pub(super) fn done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn given_back(&self) {
        self.given_back.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, error: &Error) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.options.tell(error);
    }

    pub(super) fn report(&self) -> Report {
        Report {
            done: self.done.load(Ordering::Relaxed),
            given_back: self.given_back.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}
