//! Typed channels between Linux processes: what [`std::sync::mpsc`] is to threads.
//!
//! A channel is an anonymous unix domain socket. A message is one packet: its JSON text, with the text's
//! length before it. There are four verbs, [`send`](Sender::send),
//! [`send_with_fds`](Sender::send_with_fds), [`recv`](Receiver::recv) and
//! [`recv_with_fds`](Receiver::recv_with_fds), and they never hang, never leak and never tear a message.
//!
//! # Hello, world
//!
//! Any type that serde can serialize is a message.
//!
//! ```
//! use wormhole::channel;
//!
//! let (tx, rx) = channel::<String>()?;
//! tx.send("hello, world".to_owned())?;
//! assert_eq!(rx.recv()?, "hello, world");
//! # Ok::<(), wormhole::Error>(())
//! ```
//!
//! # Processes
//!
//! [`spawn`] runs a function in a child process and hands it its arguments, channel ends included;
//! [`Child::join`] gives back what it returned. The ends move: this process keeps no copy of those that
//! it gave away, and the child has no others. So no process waits forever because of a
//! forgotten copy. [`spawn_fresh`] starts a fresh copy of the program instead of forking, from any thread.
//! [`spawn_command`] and [`inherit`] do the same for another program, and a [`Pool`] has workers of each kind: see
//! [`process`].
//!
//! ```
//! use wormhole::{Error, Sender, channel, spawn};
//!
//! let (tx, rx) = channel::<String>()?;
//! let child = spawn(tx, |tx: Sender<String>| tx.send("hello from the child".to_owned()).is_ok())?;
//! assert_eq!(rx.recv()?, "hello from the child");
//! assert!(matches!(rx.recv(), Err(Error::Disconnected))); // the child is gone, or has dropped `tx`
//! assert!(child.join()?);
//! # Ok::<(), Error>(())
//! ```
//!
//! # Forking by hand
//!
//! A channel that exists before a `fork` reaches from one process to the other. Both then have both ends:
//! **each process drops the end that it does not use**, or neither will ever be told that the other
//! side is gone.
//!
//! ```
//! use nix::sys::wait::waitpid;
//! use nix::unistd::{ForkResult, fork};
//! use wormhole::{Error, channel};
//!
//! let (tx, rx) = channel::<(u32, Vec<f64>)>()?;
//! match unsafe { fork()? } {
//!     ForkResult::Child => {
//!         drop(rx);
//!         let sent = tx.send((7, vec![0.1, 0.2]));
//!         std::process::exit(sent.is_err().into());
//!     }
//!     ForkResult::Parent { child } => {
//!         drop(tx);
//!         assert_eq!(rx.recv()?, (7, vec![0.1, 0.2]));
//!         // The child is gone, and with it the last sender: an error, not a wait that never ends.
//!         assert!(matches!(rx.recv(), Err(Error::Disconnected)));
//!         waitpid(child, None)?;
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Many senders, many receivers
//!
//! Both ends can be cloned, and inherited by any number of processes. Each message reaches exactly one
//! receiver, so workers can share one channel of jobs, and send to one of results. When one dies, it is unknown which job it
//! had: a [`Pool`] does.
//!
//! # Descriptors and channels inside messages
//!
//! An open file, a socket or a pipe travels as a field of a message, see [`fd`], or beside it with the
//! `_with_fds` verbs. [`Sender`] and [`Receiver`] are fields like any others: a request can carry the
//! channel for its reply.
//!
//! Bulk data goes into a [`Blob`]: memory that is filled once, can never change again, and is mapped by each
//! process that receives it, without JSON and without a copy.
//!
//! # Unrelated processes
//!
//! A [`Listener`] has a name, usually a path, and [`Sender::connect`] is all that a client needs. Each client
//! is a channel of its own, of which [`accept`](Listener::accept) gives the receiver, and the pid, uid and gid
//! of the process that connected. Several processes can share a listener, as the workers of a pre-fork server do.
//!
//! # Not waiting
//!
//! [`try_send`](Sender::try_send) and [`try_recv`](Receiver::try_recv) never block,
//! [`send_timeout`](Sender::send_timeout) and [`recv_timeout`](Receiver::recv_timeout) give up at a
//! deadline. A listener has [`try_accept`](Listener::try_accept) and [`accept_timeout`](Listener::accept_timeout).
//!
//! # Async
//!
//! With the feature `tokio` there is a module `wormhole::tokio`, with `async-io` (smol and others) `wormhole::async_io`.
//! Both have a `Receiver`, a `Sender` (with a `connect`) and a `Listener` to be awaited, streams, and a way to await a
//! [`Child`], a [`Pool`] and a [`ReceiverSet`]. **Dropping a future loses nothing**: a message is received as a whole or
//! not at all, and a send that was cancelled has sent nothing.
//!
//! For other event loops everything is [`AsFd`](std::os::fd::AsFd). The descriptors stay blocking; nothing that this crate
//! does sets a flag on a socket which another process shares, and nothing else should.
//!
//! - A receiver: poll for readable, then [`try_recv`](Receiver::try_recv) until it says [`Error::Empty`].
//! - A sender: [`try_send`](Sender::try_send) first. When it says [`Error::Full`], wait for writable, **but for no longer
//!   than 1 ms**, try again, then 2, 4, 8 ... 64 ms. The kernel says writable only when three quarters of the buffer are
//!   free, so a sender that relied on it would stall. Do not poll it for readable, which it always is.
//!
//! The page `docs/async.md` of the repository has recipes.
//!
//! # Tracing
//!
//! With the feature `tracing` each message that is sent or received is an event at the level `trace`, with the number of
//! the end's descriptor, the bytes of the text and the number of descriptors, and nothing of its contents. Children that
//! are started or have ended, workers that a pool replaces, and clients that are accepted are events at the level `debug`.
//! All have the target `wormhole`. They are in the caller's spans. A subscriber must work in forked children, or leave
//! `wormhole` out. Without the feature it costs nothing: a small message sent and received takes 3,830 instructions in user
//! space, as many as with these calls taken out of the source. With it and no subscriber it takes 28 more.
//!
//! # More
//!
//! Small programs made of several processes are in [`recipes`](_documentation::recipes);
//! [`coming_from`](_documentation::coming_from) says how the operations of Go's
//! channels, of [`std::sync::mpsc`] and of crossbeam-channel are called here. Which system calls there are, for authors of
//! seccomp filters, is in [`sandboxing`](_documentation::sandboxing).
//!
//! # Guarantees
//!
//! 1. A message reaches exactly one receiver, whole, or none.
//! 2. Messages through one channel arrive in the order in which the kernel accepted them.
//! 3. `send` returning `Ok` means that the kernel has the whole message. It outlives its sender.
//! 4. `recv` never waits in the middle of a message. The `try_` forms never block, a timeout is a deadline.
//! 5. After any error but [`Error::Disconnected`] the next `recv` gives the next message.
//! 6. Received descriptors are close-on-exec from the first moment, and closed on every error. Descriptors
//!    that got lost, or that were not asked for, are errors.
//! 7. [`Error::Disconnected`] means that every copy of the other end, in every process, is gone; for a
//!    receiver also that no message is left.
//! 8. Nothing that the other side sends can cause a panic, a hang, memory use beyond the limit, or damage.
//! 9. No `SIGPIPE`, no `EINTR`, and no flag is set on the socket that other processes share.
//! 10. Every finite float, every integer up to 128 bits and every string arrives exactly as it left, in a field of
//!     its type.
//!
//! # Limits
//!
//! - A channel is bounded by bytes: about 200 KB, or 278 messages of up to 184 bytes, by default
//!   ([`Options::buffer`]). There is no unbounded channel, and no way to know how much is queued.
//! - A message is at most 64 MiB of text unless set otherwise ([`Options::max_message_len`]), and its blobs are at most
//!   1 GiB together ([`Options::max_blob_len`]). What does not fit the socket's buffer, or 256 KiB, goes through a
//!   memfd beside the packet.
//! - A message carries at most 253 descriptors, or 252 beside text that needs a memfd.
//! - A message nests at most 127 levels deep: a deeper one is an [`Error::Encode`]. So does the result of a child; the
//!   arguments of a [fresh one](spawn_fresh) and the result of a [pool's job](Pool) nest at most 126, as they lie in
//!   something else.
//! - Each thread that receives has a buffer of 256 KiB, of which only what messages have filled takes up
//!   memory, and one for long messages. Each one that sends has one, too. They are kept while they are at
//!   most 4 MiB; up to 32 MiB between messages of more than 2 MiB that come one after the other, until a shorter
//!   one comes.
//! - A decoded message may take up many times the memory of its text: its type decides. A `Vec<u8>` takes up
//!   half of it, a `serde_json::Value` up to 129 times.
//! - A process that holds a copy of an end is trusted with it: it can take the messages of the others, and close or
//!   change the socket. To close a received descriptor may take as long as its sender has arranged (`SO_LINGER`,
//!   FUSE).
//!
//! What was tried, up to these limits, is in `docs/limits.md` of the repository; what a hostile peer can do and what it
//! cannot, in `SECURITY.md`.
//!
//! What JSON cannot carry:
//!
//! | value | what happens |
//! |---|---|
//! | NaN, infinities | [`Error::Encode`] |
//! | `Some(None)`, `Some(())`, `Some` of a unit struct, `Some(serde_json::Value::Null)`: they would arrive as `None` | [`Error::Encode`] |
//! | map whose keys are neither strings nor numbers, booleans, chars or enum variants without fields | [`Error::Encode`] |
//! | map whose keys are numbers or booleans, inside `untagged`, internally tagged or `flatten`ed types | [`Error::Decode`]: serde buffers these types, and keeps the keys as the strings that they are in JSON |
//! | 128-bit integers, of any value, inside such types | [`Error::Decode`]: serde's buffer has 64 bits |
//! | integers beyond 64 bits, received as a [`serde_json::Value`] | the nearest float, **changed, without an error** |
//! | two keys of a map that are written alike, such as those of an `untagged` enum | the last one arrives |
//! | an `untagged` enum that tries a float before an integer | every integer arrives as the float, and one beyond 2^53 **changed, without an error**: put the integer first |
//! | paths that are not UTF-8, `SystemTime` before 1970 | [`Error::Encode`] |
//! | floats inside `untagged`, internally tagged or `flatten`ed types, if any crate of the program switches on serde_json's `arbitrary_precision` | [`Error::Decode`] |
//! | borrowed data such as `&str` | does not compile: a message must own what it holds to be received |
//! | bytes (`Vec<u8>`) | correct, as a list of numbers, so some 4 bytes of text for each, and 64 MiB of text hold 17 to 32 MB of them: a few kilobytes are better sent as base64 (`serde_with`), more as a [`Blob`] |
//!
//! # What it is not
//!
//! No Windows, no macOS, no second encoding, no broker, no threads of its own, no files but the sockets of
//! listeners, no environment but `WORMHOLE_FD` and `WORMHOLE_FRESH`.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a unit test that is surprised should panic"
    )
)]

#[cfg(feature = "async-io")]
pub mod async_io;
mod blob;
mod channel;
mod error;
pub mod fd;
mod limits;
mod listener;
mod message;
mod options;
pub mod process;
mod raw;
#[cfg(any(feature = "async-io", feature = "tokio"))]
mod runtime;
mod select;
mod sys;
#[cfg(feature = "tokio")]
pub mod tokio;
mod trace;
mod wait;

pub use blob::{Blob, BlobWriter};
pub use channel::{IntoIter, Iter, Receiver, Sender, TryIter, channel};
pub use error::{ChildEnd, Error, Result};
pub use listener::{Incoming, Listener};
pub use options::Options;
#[doc(inline)]
pub use process::{
    Child, JobError, JobId, Pool, PoolOptions, inherit, spawn, spawn_command, spawn_fresh,
    spawn_unchecked,
};
pub use raw::Raw;
pub use select::{Key, ReceiverSet, Select, Selected};
pub use sys::peer::Peer;

/// What macros of this crate expand to. Not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use crate::select::{
        FdArm, OptionFdArm, RecvArm, SendArm, add_closed, add_ready, add_recv, add_writable,
        decide, off, only_if, take_received,
    };
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Pages of the repository: recipes, names for those who come from Go, mpsc or crossbeam, and system calls.
#[cfg(any(doc, doctest))]
pub mod _documentation {
    #[doc = include_str!("../docs/recipes.md")]
    pub mod recipes {}

    #[doc = include_str!("../docs/sandboxing.md")]
    pub mod sandboxing {}

    #[cfg(feature = "tokio")]
    #[doc = include_str!("../docs/async.md")]
    pub mod async_recipes {}

    #[doc = "[recipes]: crate::_documentation::recipes\n\n"] // instead of the file, for readers of the repository
    #[doc = include_str!("../docs/coming-from.md")]
    pub mod coming_from {}
}
