//! Ends for tasks of [tokio].
//!
//! An end of a channel becomes one that is awaited: [`Receiver::new`] and [`Sender::new`] take it, `into_inner` gives
//! it back. The other end is whatever the other process likes: it blocks, runs in another event loop, or is written in
//! another language.
//!
//! ```
//! use wormhole::{Error, channel};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Error> {
//!     let (tx, rx) = channel::<String>()?;
//!     let (tx, rx) = (wormhole::tokio::Sender::new(tx)?, wormhole::tokio::Receiver::new(rx)?);
//!     tx.send("hello".to_owned()).await?;
//!     assert_eq!(rx.recv().await?, "hello");
//!     drop(tx);
//!     assert!(matches!(rx.recv().await, Err(Error::Disconnected)));
//!     Ok(())
//! }
//! ```
//!
//! # Dropping a future loses nothing
//!
//! **Every method here is cancel safe.** A message is one packet, which one system call sends or receives, and nothing is
//! awaited between that call and its result. So a receive that loses a `tokio::select!` has taken no message,
//! and a send has sent either nothing or, if it is done, everything. There are no forms with a timeout, as
//! [`tokio::time::timeout`] around any of them is safe.
//!
//! # What they need
//!
//! A runtime of either flavour whose I/O and time are enabled, as with `#[tokio::main]` or
//! [`Builder::enable_all`](::tokio::runtime::Builder::enable_all). An end belongs to the runtime in which it was made,
//! whose shutdown ends every wait with [`Error::Io`].
//!
//! The socket stays blocking for the other processes that share it; `O_NONBLOCK` is never set. Clones share one
//! registration. A message spends the task's
//! [cooperative budget](::tokio::task::coop), so that an endless flow of them lets other tasks run.
//!
//! An end whose answers come within microseconds looks for them while other tasks run, before its task sleeps, as long as
//! that pays off: [`Options::spin`](crate::Options::spin) turns it off.
//!
//! [`spawn`](crate::spawn) forks, which it refuses to do where there are other threads, those of a runtime included.
//! [`spawn_command`](crate::spawn_command) works from everywhere. Call it in
//! [`spawn_blocking`](::tokio::task::spawn_blocking) if the program is large: it waits for the program to be loaded.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use ::tokio::io::Interest as TokioInterest;
use ::tokio::io::unix::AsyncFd;
use ::tokio::runtime::Handle;
use ::tokio::task::coop;
use ::tokio::time;

use crate::runtime::{Interest, Reactor, Source, runtime_types};

/// A descriptor that is registered with a runtime of tokio.
#[derive(Debug)]
struct Registration(AsyncFd<Source>);

impl Reactor for Registration {
    fn register(source: Source, interest: Interest) -> io::Result<Self> {
        // Otherwise it would panic.
        Handle::try_current().map_err(io::Error::other)?;
        // A `Source` stays open and keeps its number, which is what the successor of this function, unsafe and not in
        // older versions, wants to be promised.
        #[allow(deprecated, reason = "works in all versions, and without unsafe")]
        let registered = AsyncFd::with_interest(source, interest.into());
        Ok(Registration(registered?))
    }

    fn try_now<T>(&self, interest: Interest, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
        let mut is_tried = false;
        let result = self.try_if_ready(interest, || {
            is_tried = true;
            attempt()
        });
        match result {
            // The runtime may not have looked yet.
            None if !is_tried => attempt(),
            result => result,
        }
    }

    async fn read_with<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> io::Result<T> {
        loop {
            drop(self.0.readable().await?);
            if let Some(result) = self.try_if_ready(Interest::Readable, &mut attempt) {
                return Ok(result);
            }
        }
    }

    async fn write_with<T>(
        &self,
        time: Duration,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> io::Result<Option<T>> {
        let attempts = async {
            loop {
                drop(self.0.writable().await?);
                if let Some(result) = self.try_if_ready(Interest::Writable, &mut attempt) {
                    return Ok(result);
                }
            }
        };
        let attempts = time::timeout(time, attempts).await;
        attempts.map_or(Ok(None), |written| written.map(Some))
    }

    fn poll_budget(context: &mut Context<'_>) -> Poll<()> {
        pin!(coop::consume_budget()).poll(context)
    }

    fn yield_now() -> impl Future<Output = ()> {
        ::tokio::task::yield_now()
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> + Send {
        time::sleep(time)
    }
}

impl Registration {
    /// Makes an attempt if the descriptor is ready as far as the runtime knows, which learns from it if it is not.
    ///
    /// All tasks that wait for one descriptor are woken together. What the first of them finds empty the others do not ask
    /// the kernel for.
    fn try_if_ready<T>(
        &self,
        interest: Interest,
        attempt: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        let attempt = |_: &Source| attempt().ok_or_else(|| io::ErrorKind::WouldBlock.into());
        self.0.try_io(interest.into(), attempt).ok()
    }
}

impl From<Interest> for TokioInterest {
    fn from(interest: Interest) -> Self {
        match interest {
            Interest::Readable => TokioInterest::READABLE,
            Interest::Writable => TokioInterest::WRITABLE,
        }
    }
}

runtime_types! {
    Registration,
    "use wormhole::tokio::{Child, Listener, Pool, Receiver, ReceiverSet, Sender};
# fn main() -> Result<(), Box<dyn std::error::Error>> {
# tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {",
    "# Ok(()) }) }"
}
