//! Starting processes: a function in one, a program, or a pool of workers.
//!
//! | | |
//! |---|---|
//! | [`spawn`] | a function in a forked child; for programs with one thread |
//! | [`spawn_fresh`] | a function in a fresh copy of the program; from threads, async runtimes and tests |
//! | [`spawn_command`] | another program, which takes what it is given with [`inherit`] |
//! | [`Pool`] | jobs for workers of any kind, which may die of them |
//! | [`Builder`] | settings for all of them, and a [`Child`] for programs |
//!
//! All of them hand the process its arguments, a value that may hold channel ends and other descriptors, and
//! take it by value, so **no copy of an end stays behind**. A stray copy is the classic mistake with
//! channels between processes: it keeps the channel open after all have left, and some process waits
//! forever for a message, or for the end, that cannot come.
//!
//! # A function
//!
//! [`spawn`] is to processes what [`std::thread::spawn`] is to threads:
//!
//! ```
//! use wormhole::{Error, Receiver, Sender, channel, spawn};
//!
//! fn square((numbers, squares): (Receiver<u64>, Sender<u64>)) -> usize {
//!     let mut count = 0;
//!     for number in &numbers {
//!         squares.send(number.unwrap().pow(2)).unwrap();
//!         count += 1;
//!     }
//!     count
//! }
//!
//! let (number, numbers) = channel()?;
//! let (square_of, squares) = channel()?;
//! let child = spawn((numbers, square_of), square)?;
//! number.send(6)?;
//! number.send(7)?;
//! assert_eq!(squares.recv()?, 36);
//! assert_eq!(squares.recv()?, 49);
//! drop(number); // the only sender of numbers: the child has none, although it was forked
//! assert_eq!(child.join()?, 2);
//! assert!(matches!(squares.recv(), Err(Error::Disconnected)));
//! # Ok::<(), Error>(())
//! ```
//!
//! # What a child has
//!
//! The child of a [`spawn`] is a fork. Of the channels of this process it has **the ends in its arguments,
//! and no others**, wherever these are: in a static, in a local variable of some caller, in a clone. Such a
//! value still exists in the child's memory, but its end is dead: all that it says is
//! [`Error::Disconnected`]. Its descriptor number stays taken, so that it cannot come to mean
//! something else. A [`Listener`](crate::Listener) is such an end, too. A [`Child`] is of no use in another
//! process than the one that spawned it.
//!
//! The ends are found by serializing the arguments, which is not sent anywhere. So an end
//! in a field that serde skips is not in the arguments, and its copy in the child is dead.
//! What this process gives away is what it drops with the arguments: a clone that it keeps lives on here. An end
//! in an [`Rc`](std::rc::Rc) or [`Arc`](std::sync::Arc) (serde's feature `rc`) that something else here holds as
//! well is not moved but shared: it stays open in both processes, in the child until that ends.
//! The numbers that are taken add up from each generation to the next: a child, its child, and so on for
//! hundreds of generations run into `RLIMIT_NOFILE`.
//!
//! Everything else is as with any fork, see [`fork(2)`](https://man7.org/linux/man-pages/man2/fork.2.html):
//!
//! - **Memory** is copied as it is: statics, the environment, whatever the arguments refer to. The arguments
//!   are dropped in both processes, so one that tidies up when it is dropped, as a temporary directory
//!   does, tidies up twice.
//! - **Other descriptors** are inherited: files, pipes, sockets, also the ends that were turned
//!   into an [`OwnedFd`](std::os::fd::OwnedFd), and those of a message that has not been
//!   received. A pipe that both processes hold is kept open by both. Pass a descriptor in the arguments
//!   (`#[serde(with = "wormhole::fd")]`) to have this process close its own; the child's is the same number.
//! - **Threads** do not exist in it, and neither do timers; locks that they held stay locked. For that reason
//!   [`spawn`] refuses to work in a process with several threads, see [`Error::MultiThreaded`].
//! - **Exit handlers** and destructors of this process do not run in it: it ends with
//!   [`_exit(2)`](https://man7.org/linux/man-pages/man2/_exit.2.html), as soon as its function
//!   has returned. Standard output is flushed before the fork and at the end.
//!
//! What hurts of that, and what [`spawn_fresh`] cures:
//!
//! - **Random generators** are copied with the rest: children that were forked one after the other draw the same numbers.
//! - **Signal masks and handlers** are those of the parent ([`Builder::reset_signals`] cures that by itself).
//! - **Buffers** are copied: what C's stdio has not written yet is written by both if the child writes it, and what
//!   [`std::io::stdin`] has read ahead is read by both. Rust's standard output is taken care of.
//! - **Exit handlers do not run**, so coverage (`-C instrument-coverage`) of a forked child is not written.
//! - **Connections**, files and pipes stay open in the child when the parent closes its own
//!   ([`Builder::only_arguments`] cures that by itself). So do their locks, see below.
//! - **The cost** grows with the memory that this process has written to: some 80 ms for each GB. A fresh child, and a
//!   program, cost the same whatever that is.
//!
//! A fresh child has nothing of this: it is started anew, with the standard streams, the environment and the
//! command line of its parent, and its arguments.
//!
//! A program started by [`spawn_command`] has its standard streams, its arguments, and the descriptors
//! that are not close-on-exec. All that the standard library or this crate opens is close-on-exec.
//!
//! # Locks on files
//!
//! A lock of [`flock(2)`](https://man7.org/linux/man-pages/man2/flock.2.html), as [`File::lock`](std::fs::File::lock)
//! takes it, and an open file description lock (`F_OFD_SETLK`) belong to the open file, whichever processes have it. It
//! is freed when the last of them has closed it, or one of them unlocks it:
//!
//! - A forked child ([`spawn`], a [`Builder`]'s or an own fork) has every file of this process, and holds their locks for as
//!   long as it runs, even if this process closes them. With [`Builder::only_arguments`], as workers of a [`Pool`] have it,
//!   it does not.
//! - A fresh child, and a program, do not have them, nor their locks.
//! - A file in the arguments goes to the child with its lock, and this process has neither any more, unless it keeps a
//!   duplicate. The same holds for files in messages.
//!
//! A record lock (`F_SETLK`) is one process's own. No child has it, and this process loses it as soon as it closes any
//! descriptor of that file, which it does when that goes to a child.
//!
//! # Forking by hand
//!
//! A fork that this crate does not make copies every end, and each of the two processes drops those that
//! it does not use. [`spawn`] may be used on either side of it afterwards: it knows the ends that its own process
//! has. Before an `exec` by hand, all ends close by themselves.

mod abandoned;
mod builder;
mod child;
mod code;
mod command;
mod detach;
mod failure;
mod fresh;
mod handle;
mod outcome;
mod pool;
mod run;
mod settings;
mod spawn;
mod table;
mod threads;

#[cfg(doc)]
use crate::error::{ChildEnd, Error};

pub use builder::Builder;
pub use child::Child;
pub use command::{inherit, spawn_command};
pub use failure::Failure;
#[doc(hidden)]
pub use fresh::__init_tests;
pub use fresh::{init, spawn_fresh};
pub use pool::{JobError, JobId, Map, Pool, PoolOptions};
pub use spawn::{spawn, spawn_unchecked};
