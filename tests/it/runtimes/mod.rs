//! Ends that are awaited: what `cases.rs` says holds in each event loop.
//!
//! Only with the features: `cargo test --all-features --test it runtimes`.

#![allow(clippy::duplicate_mod, reason = "the same cases in each event loop")]

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

#[cfg(feature = "async-io")]
mod async_io;
#[cfg(feature = "tokio")]
mod tokio_current_thread;
#[cfg(feature = "tokio")]
mod tokio_multi_thread;

/// Is ready when it is polled for the n-th time, and asks to be polled until then.
struct Polls(usize);

impl Future for Polls {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.0.checked_sub(1) {
            None | Some(0) => Poll::Ready(()),
            Some(left) => {
                self.0 = left;
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

/// Drops a future that is not ready after so many polls; with 0 before the first one. Gives what it gave.
async fn impatiently<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    use futures_util::future::{Either, select};
    if polls == 0 {
        drop(future);
        return None;
    }
    // The future is polled first each time.
    match select(pin!(future), pin!(Polls(polls))).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}
