//! async-io, without an executor: tasks are futures of one.

use std::future::Future;
use std::time::Duration;

use futures_util::future::join_all;

pub(super) use wormhole::async_io as ends;

#[path = "cases.rs"]
mod cases;

pub(super) const MESSAGES: u64 = 100_000;

/// Whether tasks run only while others let them.
pub(super) const ONE_THREAD: bool = true;

pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    async_io::block_on(future)
}

pub(super) async fn sleep(time: Duration) {
    async_io::Timer::after(time).await;
}

pub(super) async fn all<F: Future>(tasks: Vec<F>) -> Vec<F::Output> {
    join_all(tasks).await
}
