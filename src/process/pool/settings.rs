//! What a crew has to know of how its pool works.

use std::time::Duration;

use crate::process::settings::Settings;

/// The numbers of a pool.
#[derive(Clone, Debug)]
pub(super) struct PoolSettings {
    pub(super) workers: usize,
    pub(super) deadline: Option<Duration>,
    pub(super) jobs_per_worker: Option<u64>,
    /// How many jobs a worker may have beside the one that it does.
    pub(super) ahead: usize,
    /// How many outcomes are kept.
    pub(super) keep: usize,
    /// How its workers start.
    pub(super) process: Settings,
}
