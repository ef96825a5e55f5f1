//! Ends for tasks of smol, and of every other executor: the event loop is that of [async-io](::async_io).
//!
//! An end of a channel becomes one that is awaited: [`Receiver::new`] and [`Sender::new`] take it, `into_inner` gives
//! it back. The other end is whatever the other process likes: it blocks, runs in another event loop, or is written in
//! another language.
//!
//! ```
//! use wormhole::{Error, channel};
//!
//! async_io::block_on(async {
//!     let (tx, rx) = channel::<String>()?;
//!     let (tx, rx) = (wormhole::async_io::Sender::new(tx)?, wormhole::async_io::Receiver::new(rx)?);
//!     tx.send("hello".to_owned()).await?;
//!     assert_eq!(rx.recv().await?, "hello");
//!     drop(tx);
//!     assert!(matches!(rx.recv().await, Err(Error::Disconnected)));
//!     Ok::<(), Error>(())
//! })?;
//! # Ok::<(), Error>(())
//! ```
//!
//! # Dropping a future loses nothing
//!
//! **Every method here is cancel safe.** A message is one packet, which one system call sends or receives, and nothing is
//! awaited between that call and its result. So a receive that loses a race has taken no message, and a send has sent
//! either nothing or, if it is done, everything. There are no forms with a timeout, as a race of any of them against a
//! [`Timer`] is safe.
//!
//! # What they need
//!
//! Any executor. async-io has a thread of its own, `async-io`, which waits for the descriptors of the whole process
//! while no call of [`block_on`](::async_io::block_on) does.
//!
//! The socket stays blocking for the other processes that share it; `O_NONBLOCK` is never set. Clones share one
//! registration. One message in 128 lets other tasks run first, even if there is no need to wait for it.
//!
//! An end whose answers come within microseconds looks for them while other tasks run, before its task sleeps, as long as
//! that pays off: [`Options::spin`](crate::Options::spin) turns it off.
//!
//! [`spawn`](crate::spawn) forks, which it refuses to do where there are other threads, that of async-io included.
//! [`spawn_command`](crate::spawn_command) works from everywhere, and waits for the program to be loaded.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ::async_io::{Async, Timer};

use crate::runtime::{Interest, Reactor, Source, runtime_types};

/// A descriptor that is registered with async-io, which asks it for one direction only while a call waits.
#[derive(Debug)]
struct Registration {
    source: Async<Source>,
    /// How many attempts had no result.
    failures: AtomicUsize,
}

impl Registration {
    fn attempt<T>(&self, attempt: impl FnOnce() -> Option<T>) -> Option<T> {
        let result = attempt();
        if result.is_none() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// How many there have been, for a wait that begins.
    // ORDERING: an estimate, see `is_worth_it`.
    fn failures(&self) -> usize {
        self.failures.load(Ordering::Relaxed)
    }

    /// Whether to make an attempt after a wait that began with so many failures.
    ///
    /// All tasks that wait for one descriptor are woken together. What the first of them finds empty the others need not
    /// ask the kernel for. If it was another event that it found empty, theirs is still there, and ends the next wait at
    /// once.
    fn is_worth_it(&self, failures: usize) -> bool {
        self.failures() == failures
    }
}

impl Reactor for Registration {
    fn register(source: Source, _: Interest) -> io::Result<Self> {
        let source = Async::new_nonblocking(source)?; // that is, without setting O_NONBLOCK
        let failures = AtomicUsize::new(0);
        Ok(Registration { source, failures })
    }

    fn try_now<T>(&self, _: Interest, attempt: impl FnMut() -> Option<T>) -> Option<T> {
        self.attempt(attempt)
    }

    async fn read_with<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> io::Result<T> {
        loop {
            let failures = self.failures();
            self.source.readable().await?;
            if self.is_worth_it(failures) {
                if let Some(result) = self.attempt(&mut attempt) {
                    return Ok(result);
                }
            }
        }
    }

    async fn write_with<T>(
        &self,
        time: Duration,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> io::Result<Option<T>> {
        let mut timer = Timer::after(time);
        loop {
            let failures = self.failures();
            let mut writable = pin!(self.source.writable());
            let is_writable = poll_fn(|context| match writable.as_mut().poll(context) {
                Poll::Ready(writable) => Poll::Ready(writable.map(|()| true)),
                Poll::Pending => Pin::new(&mut timer).poll(context).map(|_| Ok(false)),
            });
            if !is_writable.await? {
                return Ok(None);
            }
            if self.is_worth_it(failures) {
                if let Some(result) = self.attempt(&mut attempt) {
                    return Ok(Some(result));
                }
            }
        }
    }

    fn poll_budget(context: &mut Context<'_>) -> Poll<()> {
        const MESSAGES: u32 = 128;
        thread_local! {
            static LEFT: Cell<u32> = const { Cell::new(MESSAGES) };
        }
        let left = LEFT.get();
        if left > 0 {
            LEFT.set(left - 1);
            return Poll::Ready(());
        }
        LEFT.set(MESSAGES);
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn yield_now() -> impl Future<Output = ()> {
        let mut has_yielded = false;
        poll_fn(move |context| {
            if std::mem::replace(&mut has_yielded, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
    }

    async fn sleep(time: Duration) {
        Timer::after(time).await;
    }
}

runtime_types! {
    Registration,
    "use wormhole::async_io::{Child, Listener, Pool, Receiver, ReceiverSet, Sender};
# fn main() -> Result<(), Box<dyn std::error::Error>> {
# async_io::block_on(async {",
    "# Ok(()) }) }"
}
