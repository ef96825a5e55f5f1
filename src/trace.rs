//! Events for the feature `tracing`. Without it, nothing at all.
//!
//! What a message holds is in no event.

#[cfg(feature = "tracing")]
mod events {
    use std::fmt::Debug;
    use std::os::fd::{AsFd, AsRawFd};

    #[inline]
    pub(crate) fn sent(end: impl AsFd, bytes: usize, descriptors: usize) {
        let end = end.as_fd().as_raw_fd();
        tracing::trace!(target: "wormhole", end, bytes, descriptors, "message sent");
    }

    #[inline]
    pub(crate) fn received(end: impl AsFd, bytes: usize, descriptors: usize) {
        let end = end.as_fd().as_raw_fd();
        tracing::trace!(target: "wormhole", end, bytes, descriptors, "message received");
    }

    pub(crate) fn accepted(end: impl AsFd, pid: Option<u32>) {
        let end = end.as_fd().as_raw_fd();
        tracing::debug!(target: "wormhole", end, pid, "client accepted");
    }

    pub(crate) fn child_started(pid: u32) {
        tracing::debug!(target: "wormhole", pid, "child started");
    }

    pub(crate) fn child_ended(pid: u32, end: &impl Debug) {
        tracing::debug!(target: "wormhole", pid, ?end, "child ended");
    }

    pub(crate) fn worker_lost(pid: u32) {
        tracing::debug!(target: "wormhole", pid, "worker of a pool to be replaced");
    }
}

#[cfg(not(feature = "tracing"))]
mod events {
    #[inline(always)]
    pub(crate) fn sent<F>(_: F, _: usize, _: usize) {}

    #[inline(always)]
    pub(crate) fn received<F>(_: F, _: usize, _: usize) {}

    #[inline(always)]
    pub(crate) fn accepted<F>(_: F, _: Option<u32>) {}

    #[inline(always)]
    pub(crate) fn child_started(_: u32) {}

    #[inline(always)]
    pub(crate) fn child_ended<E>(_: u32, _: &E) {}

    #[inline(always)]
    pub(crate) fn worker_lost(_: u32) {}
}

pub(crate) use events::{accepted, child_ended, child_started, received, sent, worker_lost};
