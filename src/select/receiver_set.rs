//! Waiting for many receivers, on epoll.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFlags, Timespec, epoll};
use rustix::io::Errno;
use serde::de::DeserializeOwned;

use crate::channel::Receiver;
use crate::error::{Error, Result};
use crate::sys::registry::Registered;
use crate::wait::{Spin, Wait, until_ready};

/// How many receivers one look at the kernel's list tells of.
const BATCH: usize = 64;

/// Receivers of one type, thousands if need be, to receive from whichever has a message.
///
/// What an event costs does not grow with the number of receivers. Those that have messages take turns, so
/// none starves. A receiver whose channel is disconnected is reported once and removed.
///
/// The set is for one process: after a fork parent and child would change each other's. Receivers may be
/// shared with other processes as usual. For a few receivers, of different types or beside sends, see
/// [`select!`](crate::select!); the set itself is [`AsFd`] and can be one of its `ready` arms.
///
/// # Examples
///
/// ```
/// use wormhole::{Error, ReceiverSet, channel};
///
/// let mut set = ReceiverSet::new()?;
/// let (tx1, rx1) = channel::<u32>()?;
/// let (tx2, rx2) = channel::<u32>()?;
/// let first = set.add(rx1)?;
/// let second = set.add(rx2)?;
///
/// tx2.send(7)?;
/// let (key, message) = set.recv()?;
/// assert_eq!((key, message?), (second, 7));
///
/// drop(tx1);
/// let (key, message) = set.recv()?;
/// assert_eq!(key, first);
/// assert!(matches!(message, Err(Error::Disconnected)));
/// assert_eq!(set.len(), 1);
/// # Ok::<(), Error>(())
/// ```
pub struct ReceiverSet<T> {
    // Forked children share what it watches, so those that `spawn` makes must not have it.
    epoll: Registered,
    spin: Spin,
    receivers: HashMap<Key, Receiver<T>>,
    next_key: u64,
    /// Those that the kernel has told of and whose turn has not come.
    turns: VecDeque<Key>,
}

/// Names a receiver of a [`ReceiverSet`]. Keys are not used again within a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u64);

impl<T> ReceiverSet<T> {
    /// Makes an empty set, which takes one descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the process is out of descriptors or the kernel out of memory.
    pub fn new() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|errno| Error::io("create a set of receivers", errno))?;
        Ok(ReceiverSet {
            epoll: Registered::new(epoll),
            spin: Spin::new(Duration::ZERO),
            receivers: HashMap::new(),
            next_key: 0,
            turns: VecDeque::new(),
        })
    }

    /// Adds a receiver, and returns the key by which its messages are known. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], and the receiver is dropped:
    ///
    /// - of kind `AlreadyExists` when a clone of it is in the set;
    /// - of other kinds when the kernel is out of memory or `fs.epoll.max_user_watches` is reached.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, ReceiverSet, channel};
    ///
    /// let mut set = ReceiverSet::new()?;
    /// let (_tx, rx) = channel::<u32>()?;
    /// set.add(rx.clone())?;
    /// let Err(Error::Io { source, .. }) = set.add(rx) else { panic!() };
    /// assert_eq!(source.kind(), std::io::ErrorKind::AlreadyExists);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn add(&mut self, receiver: Receiver<T>) -> Result<Key> {
        let key = Key(self.next_key);
        let data = epoll::EventData::new_u64(key.0);
        epoll::add(&self.epoll, &receiver, data, epoll::EventFlags::IN)
            .map_err(|errno| Error::io("add a receiver to a set", errno))?;
        self.next_key += 1;
        let limit = receiver.parts().0.spin().limit();
        if limit > self.spin.limit() {
            self.spin = Spin::new(limit);
        }
        self.receivers.insert(key, receiver);
        Ok(key)
    }

    /// Takes a receiver out of the set. `None` if it is not in there (any more).
    pub fn remove(&mut self, key: Key) -> Option<Receiver<T>> {
        let receiver = self.receivers.remove(&key)?;
        // Other processes may keep the socket open, so it would not leave by itself.
        let _ = epoll::delete(&self.epoll, &receiver);
        Some(receiver)
    }

    /// The receiver of that key.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&Receiver<T>> {
        self.receivers.get(&key)
    }

    /// How many receivers are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.receivers.len()
    }

    /// Whether no receiver is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.receivers.is_empty()
    }
}

impl<T: DeserializeOwned> ReceiverSet<T> {
    /// Receives the next message of any receiver.
    ///
    /// Blocks until there is one. `Ok` has the key of the receiver and what [`Receiver::recv`] of it gives:
    /// a message, or an error. [`Error::Disconnected`] there means that this receiver has been removed.
    ///
    /// # Errors
    ///
    /// Of the set itself, when nothing was received:
    ///
    /// - [`Error::Disconnected`]: there is no receiver in the set.
    /// - [`Error::Io`]: the kernel refused.
    pub fn recv(&mut self) -> Result<(Key, Result<T>)> {
        self.recv_within(Wait::Forever)
    }

    /// Receives a message if one is waiting. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`] when none is waiting, otherwise as [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<(Key, Result<T>)> {
        self.recv_within(Wait::Never)
    }

    /// Receives the next message, waiting for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when none came in time, otherwise as [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<(Key, Result<T>)> {
        self.recv_within(Wait::at_most(timeout))
    }

    fn recv_within(&mut self, wait: Wait) -> Result<(Key, Result<T>)> {
        loop {
            while let Some(key) = self.turns.pop_front() {
                let Some(receiver) = self.receivers.get(&key) else {
                    continue; // removed since
                };
                match receiver.try_recv() {
                    Err(Error::Empty) => {} // another process was faster
                    Err(Error::Disconnected) => {
                        self.remove(key);
                        return Ok((key, Err(Error::Disconnected)));
                    }
                    received => return Ok((key, received)),
                }
            }
            if self.receivers.is_empty() {
                return Err(Error::Disconnected);
            }
            self.look(wait)?;
        }
    }

    /// Waits until the kernel knows of messages, and gives their receivers a turn.
    fn look(&mut self, wait: Wait) -> Result<()> {
        let turns = &mut self.turns;
        let looked = until_ready(
            &self.epoll,
            PollFlags::IN,
            Some(&self.spin),
            wait,
            |may_block| {
                let now = (!may_block).then_some(Timespec::default());
                let mut events = [MaybeUninit::uninit(); BATCH];
                let (events, _) = epoll::wait(&self.epoll, &mut events, now.as_ref())?;
                // KERNEL: what is still readable goes to the end of the kernel's list, so all get their
                // turn (`a_set_lets_all_receivers_take_turns`).
                turns.extend(events.iter().map(|event| Key(event.data.u64())));
                if events.is_empty() {
                    return Err(Errno::AGAIN);
                }
                Ok(())
            },
        );
        looked.map_err(|stop| stop.into_error("wait for a set of receivers", Error::Empty))
    }
}

impl<T> AsFd for ReceiverSet<T> {
    /// The epoll descriptor: readable while any receiver of the set has a message or is disconnected.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl<T> fmt::Debug for ReceiverSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverSet")
            .field("fd", &self.as_fd().as_raw_fd())
            .field("len", &self.receivers.len())
            .finish()
    }
}
