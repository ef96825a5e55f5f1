//! Waiting for many receivers, on epoll.

use std::collections::VecDeque;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFlags, Timespec, epoll};
use rustix::io::Errno;
use serde::de::DeserializeOwned;

use crate::channel::Receiver;
use crate::error::{Error, Result};
use crate::sys::registry::Registered;
use crate::sys::socket::Socket;
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
    /// By the index of their keys.
    places: Vec<Place<T>>,
    /// Places that are free.
    free: Vec<usize>,
    /// Those that the kernel has told of and whose turn has not come.
    turns: VecDeque<Key>,
}

struct Place<T> {
    /// How many receivers were here before.
    generation: u32,
    member: Option<Member<T>>,
}

struct Member<T> {
    receiver: Receiver<T>,
    /// What epoll watches: the receiver's socket when it was added. A receiver that is lent to
    /// [`spawn`](crate::spawn) goes on with another one.
    watched: Arc<Socket>,
}

/// Names a receiver of a [`ReceiverSet`].
///
/// Its [`index`](Self::index) is for keeping something beside the receiver, in a `Vec` for instance. A key is not used
/// again within a set (not before 2^32 receivers have had the same index); an index is, once its receiver has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// A small number, different for each receiver that is in the set: the lowest that was free when it was added.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, ReceiverSet, channel};
    ///
    /// let mut set = ReceiverSet::new()?;
    /// let mut names = Vec::new();
    /// let mut senders = Vec::new();
    /// for name in ["Ada", "Grace"] {
    ///     let (tx, rx) = channel::<u32>()?;
    ///     let key = set.add(rx)?;
    ///     assert_eq!(key.index(), names.len());
    ///     names.push(name);
    ///     senders.push(tx);
    /// }
    /// senders[1].send(9)?;
    /// let (key, message) = set.recv()?;
    /// assert_eq!((names[key.index()], message?), ("Grace", 9));
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn index(self) -> usize {
        self.index as usize
    }

    fn to_data(self) -> epoll::EventData {
        epoll::EventData::new_u64(u64::from(self.index) << 32 | u64::from(self.generation))
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "the lower half is the generation"
    )]
    fn from_data(data: epoll::EventData) -> Self {
        Key {
            index: (data.u64() >> 32) as u32,
            generation: data.u64() as u32,
        }
    }
}

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
            places: Vec::new(),
            free: Vec::new(),
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
        let failed = |errno| Error::io("add a receiver to a set", errno);
        let index = self.free.last().copied().unwrap_or(self.places.len());
        let generation = self.places.get(index).map_or(0, |place| place.generation);
        let key = Key {
            index: u32::try_from(index).map_err(|_| failed(Errno::NOSPC))?,
            generation,
        };
        let watched = Arc::clone(receiver.endpoint().socket());
        epoll::add(&self.epoll, &*watched, key.to_data(), epoll::EventFlags::IN).map_err(failed)?;
        let limit = watched.spin().limit();
        if limit > self.spin.limit() {
            self.spin = Spin::new(limit);
        }
        let member = Some(Member { receiver, watched });
        match self.places.get_mut(index) {
            Some(place) => {
                place.member = member;
                self.free.pop();
            }
            None => self.places.push(Place { generation, member }),
        }
        Ok(key)
    }

    /// Takes a receiver out of the set. `None` if it is not in there (any more).
    pub fn remove(&mut self, key: Key) -> Option<Receiver<T>> {
        let place = self.places.get_mut(key.index())?;
        if place.generation != key.generation {
            return None;
        }
        let member = place.member.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key.index());
        // Other processes may keep the socket open, so it would not leave by itself.
        let _ = epoll::delete(&self.epoll, &*member.watched);
        Some(member.receiver)
    }

    /// The receiver of that key.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&Receiver<T>> {
        let place = self.places.get(key.index())?;
        let member = place.member.as_ref()?;
        (place.generation == key.generation).then_some(&member.receiver)
    }

    /// How many receivers are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether no receiver is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a set has received: by which receiver, and what [`Receiver::recv`] of it gives.
type Received<M> = (Key, Result<M>);

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
    pub fn recv(&mut self) -> Result<Received<T>> {
        self.recv_within(Wait::Forever, Receiver::try_recv)
    }

    /// Receives a message if one is waiting. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`] when none is waiting, otherwise as [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<Received<T>> {
        self.recv_within(Wait::Never, Receiver::try_recv)
    }

    /// Receives the next message, waiting for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when none came in time, otherwise as [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Received<T>> {
        self.recv_within(Wait::at_most(timeout), Receiver::try_recv)
    }

    /// Receives the next message, waiting until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_deadline(&mut self, deadline: Instant) -> Result<Received<T>> {
        self.recv_within(Wait::until(deadline), Receiver::try_recv)
    }

    /// Receives the next message of any receiver, and the descriptors beside it, as
    /// [`Receiver::recv_with_fds`] does. Blocks and returns as [`recv`](Self::recv).
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::fd::AsFd;
    /// use wormhole::{Error, ReceiverSet, channel};
    ///
    /// let mut set = ReceiverSet::new()?;
    /// let (tx, rx) = channel::<u32>()?;
    /// set.add(rx)?;
    /// tx.send_with_fds(1, &[std::io::stdin().as_fd()])?;
    /// let (_, received) = set.recv_with_fds()?;
    /// let (message, fds) = received?;
    /// assert_eq!((message, fds.len()), (1, 1));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn recv_with_fds(&mut self) -> Result<Received<(T, Vec<OwnedFd>)>> {
        self.recv_within(Wait::Forever, Receiver::try_recv_with_fds)
    }

    /// Receives as [`recv_with_fds`](Self::recv_with_fds) does, if a message is waiting. Never blocks.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    pub fn try_recv_with_fds(&mut self) -> Result<Received<(T, Vec<OwnedFd>)>> {
        self.recv_within(Wait::Never, Receiver::try_recv_with_fds)
    }

    /// Receives as [`recv_with_fds`](Self::recv_with_fds) does, waiting for at most `timeout`.
    ///
    /// # Errors
    ///
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_with_fds_timeout(
        &mut self,
        timeout: Duration,
    ) -> Result<Received<(T, Vec<OwnedFd>)>> {
        self.recv_within(Wait::at_most(timeout), Receiver::try_recv_with_fds)
    }

    /// Receives as [`recv_with_fds`](Self::recv_with_fds) does, waiting until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_with_fds_deadline(
        &mut self,
        deadline: Instant,
    ) -> Result<Received<(T, Vec<OwnedFd>)>> {
        self.recv_within(Wait::until(deadline), Receiver::try_recv_with_fds)
    }

    fn recv_within<M>(
        &mut self,
        wait: Wait,
        try_recv: fn(&Receiver<T>) -> Result<M>,
    ) -> Result<Received<M>> {
        loop {
            while let Some(key) = self.turns.pop_front() {
                let Some(receiver) = self.get(key) else {
                    continue; // removed since
                };
                match try_recv(receiver) {
                    Err(Error::Empty) => {} // another receiver was faster
                    Err(Error::Disconnected) => {
                        self.remove(key);
                        return Ok((key, Err(Error::Disconnected)));
                    }
                    received => return Ok((key, received)),
                }
            }
            if self.is_empty() {
                return Err(Error::Disconnected);
            }
            self.look(wait)?;
        }
    }

    /// Waits until the kernel knows of messages, and gives their receivers a turn.
    fn look(&mut self, wait: Wait) -> Result<()> {
        let (turns, places) = (&mut self.turns, &self.places);
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
                turns.extend(events.iter().map(|event| Key::from_data(event.data)));
                turns.retain(|key| {
                    let place = places.get(key.index());
                    place.is_some_and(|place| place.generation == key.generation)
                });
                if turns.is_empty() {
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

/// For event loops that know descriptors by number.
impl<T> AsRawFd for ReceiverSet<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_fd().as_raw_fd()
    }
}

impl<T> fmt::Debug for ReceiverSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverSet")
            .field("fd", &self.as_raw_fd())
            .field("len", &self.len())
            .finish()
    }
}
