//! The receiving end, and its iterators.

use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::endpoint::{Endpoint, impl_end};
use crate::error::{Error, Result};
use crate::message::inbound::Inbound;
use crate::sys::socket::Direction;
use crate::wait::Wait;

/// The receiving end of a channel: [`channel`](crate::channel) makes it.
///
/// Clones, and copies in other processes, share the work: each message reaches exactly one of them.
/// Clones share one descriptor, so cloning cannot fail and costs none. The end is closed when the last
/// clone in this process is dropped; the senders see [`Error::Disconnected`] when it is closed in every
/// process.
///
/// A receiver can itself be sent, as a message or as a field of one. What arrives is a receiver of the
/// same channel with the default [`max_message_len`](crate::Options::max_message_len).
pub struct Receiver<T> {
    end: Endpoint,
    message: PhantomData<fn() -> T>,
}

impl<T> Receiver<T> {
    /// Sets the longest text, in bytes, that this handle accepts, as
    /// [`Options::max_message_len`](crate::Options::max_message_len) does at creation. For receivers that
    /// came in a message or were made from a descriptor. Other clones keep their limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, channel};
    ///
    /// let (tx, mut rx) = channel::<String>()?;
    /// rx.set_max_message_len(8);
    /// tx.send("1234567".to_owned())?; // 9 bytes with its quotes
    /// tx.send("123456".to_owned())?;
    /// assert!(matches!(rx.recv(), Err(Error::TooLarge { size: 9, limit: 8 })));
    /// assert_eq!(rx.recv()?, "123456");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn set_max_message_len(&mut self, bytes: usize) {
        self.end.limits.message_len = bytes;
    }

    /// Sets how many bytes the blobs of one message may have together, as
    /// [`Options::max_blob_len`](crate::Options::max_blob_len) does at creation. For receivers that came in a message
    /// or were made from a descriptor. Other clones keep their limit.
    pub fn set_max_blob_len(&mut self, bytes: u64) {
        self.end.limits.blob_len = bytes;
    }
}

impl<T: DeserializeOwned> Receiver<T> {
    /// Receives the next message.
    ///
    /// Blocks until one comes or no sender is left. It never waits in the middle of a message: what is
    /// there is there as a whole.
    ///
    /// # Errors
    ///
    /// After all but the first, the next call gives the next message; all but the first and the last mean
    /// that one was received, which is consumed and whose descriptors are closed:
    ///
    /// - [`Error::Disconnected`]: every copy of the sender, in every process, is gone, and so is every
    ///   message.
    /// - [`Error::Decode`]: the message is not a `T`.
    /// - [`Error::TooLarge`]: its text is longer than the limit.
    /// - [`Error::FdsLost`]: this process is out of descriptors, those of the message are lost.
    /// - [`Error::UnexpectedFds`]: it carries descriptors that none of its fields claims.
    /// - [`Error::Malformed`]: the other side does not speak wormhole's protocol.
    /// - [`Error::Io`]: the kernel refused, for want of memory for instance.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, channel};
    ///
    /// let (tx, rx) = channel::<Vec<u8>>()?;
    /// tx.send(vec![1, 2, 3])?;
    /// drop(tx);
    /// assert_eq!(rx.recv()?, [1, 2, 3]); // a message outlives its sender
    /// assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn recv(&self) -> Result<T> {
        self.recv_within(Wait::Forever)
    }

    /// Receives the next message, and the descriptors that came beside it: those of
    /// [`send_with_fds`](crate::Sender::send_with_fds), in order.
    ///
    /// They are close-on-exec. There may be none, or more than expected: how many there are is up to the
    /// sender. Blocks as [`recv`](Self::recv) does.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), without [`Error::UnexpectedFds`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::fd::AsFd;
    /// use wormhole::{Error, channel};
    ///
    /// let (tx, rx) = channel::<u8>()?;
    /// let null = std::fs::File::open("/dev/null")?;
    /// tx.send_with_fds(1, &[null.as_fd(), null.as_fd()])?;
    /// tx.send_with_fds(2, &[null.as_fd()])?;
    ///
    /// let (message, fds) = rx.recv_with_fds()?;
    /// assert_eq!((message, fds.len()), (1, 2));
    /// // A receiver that does not ask for descriptors gets an error rather than losing them silently.
    /// assert!(matches!(rx.recv(), Err(Error::UnexpectedFds { count: 1 })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_with_fds(&self) -> Result<(T, Vec<OwnedFd>)> {
        self.recv_with_fds_within(Wait::Forever)
    }

    /// Receives as [`recv_with_fds`](Self::recv_with_fds) does, if a message is waiting. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`] when none is waiting, otherwise as [`recv_with_fds`](Self::recv_with_fds).
    pub fn try_recv_with_fds(&self) -> Result<(T, Vec<OwnedFd>)> {
        self.recv_with_fds_within(Wait::Never)
    }

    /// Receives as [`recv_with_fds`](Self::recv_with_fds) does, waiting for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when none came in time, otherwise as [`recv_with_fds`](Self::recv_with_fds).
    pub fn recv_with_fds_timeout(&self, timeout: Duration) -> Result<(T, Vec<OwnedFd>)> {
        self.recv_with_fds_within(Wait::at_most(timeout))
    }

    /// Receives as [`recv_with_fds`](Self::recv_with_fds) does, waiting until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`recv_with_fds_timeout`](Self::recv_with_fds_timeout).
    pub fn recv_with_fds_deadline(&self, deadline: Instant) -> Result<(T, Vec<OwnedFd>)> {
        self.recv_with_fds_within(Wait::until(deadline))
    }

    /// Receives a message if one is waiting. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`] when none is waiting, otherwise as [`recv`](Self::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, channel};
    ///
    /// let (tx, rx) = channel::<char>()?;
    /// assert!(matches!(rx.try_recv(), Err(Error::Empty)));
    /// tx.send('a')?;
    /// assert_eq!(rx.try_recv()?, 'a');
    /// # Ok::<(), Error>(())
    /// ```
    pub fn try_recv(&self) -> Result<T> {
        self.recv_within(Wait::Never)
    }

    /// Receives the next message, waiting for at most `timeout`.
    ///
    /// The timeout is a deadline, counted from the call: neither signals nor messages that another
    /// receiver was faster to take prolong it. Zero tries once.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when none came in time, otherwise as [`recv`](Self::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use wormhole::{Error, channel};
    ///
    /// let (tx, rx) = channel::<char>()?;
    /// let late = rx.recv_timeout(Duration::from_millis(10));
    /// assert!(matches!(late, Err(Error::TimedOut { .. })));
    /// tx.send('a')?;
    /// assert_eq!(rx.recv_timeout(Duration::from_millis(10))?, 'a');
    /// # Ok::<(), Error>(())
    /// ```
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T> {
        self.recv_within(Wait::at_most(timeout))
    }

    /// Receives the next message, waiting until `deadline`. One that has passed tries once.
    ///
    /// # Errors
    ///
    /// As [`recv_timeout`](Self::recv_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use wormhole::{Error, channel};
    ///
    /// // All messages that come within 20 milliseconds.
    /// let (tx, rx) = channel::<char>()?;
    /// tx.send('a')?;
    /// tx.send('b')?;
    /// let deadline = Instant::now() + Duration::from_millis(20);
    /// let mut text = String::new();
    /// let error = loop {
    ///     match rx.recv_deadline(deadline) {
    ///         Ok(letter) => text.push(letter),
    ///         Err(error) => break error,
    ///     }
    /// };
    /// assert_eq!(text, "ab");
    /// assert!(matches!(error, Error::TimedOut { .. }));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T> {
        self.recv_within(Wait::until(deadline))
    }

    /// Iterates over the messages, blocking for each as [`recv`](Self::recv) does.
    ///
    /// Ends when the channel is disconnected. Every other error is an item, after which the next one is
    /// the next message. An [`Error::Io`] may stay forever: a loop that goes on after errors should
    /// give up on that one.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, channel};
    ///
    /// let (tx, rx) = channel::<u32>()?;
    /// for number in 1..=3 {
    ///     tx.send(number)?;
    /// }
    /// drop(tx);
    /// let numbers = rx.iter().collect::<Result<Vec<_>, Error>>()?;
    /// assert_eq!(numbers, [1, 2, 3]);
    /// assert!(rx.iter().next().is_none());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { receiver: self }
    }

    /// Iterates over the messages that are waiting. Never blocks.
    ///
    /// Ends when the channel is empty or disconnected. Every other error is an item.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, channel};
    ///
    /// let (tx, rx) = channel::<u32>()?;
    /// assert_eq!(rx.try_iter().count(), 0);
    /// tx.send(1)?;
    /// tx.send(2)?;
    /// assert_eq!(rx.try_iter().sum::<Result<u32, Error>>()?, 3);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { receiver: self }
    }

    #[inline]
    fn recv_within(&self, wait: Wait) -> Result<T> {
        self.receive(wait)?.decode()
    }

    fn recv_with_fds_within(&self, wait: Wait) -> Result<(T, Vec<OwnedFd>)> {
        self.receive(wait)?.decode_with_fds()
    }

    #[inline]
    fn receive(&self, wait: Wait) -> Result<Inbound> {
        Inbound::receive(self.end.socket(), self.end.limits, wait)
    }
}

impl_end!(Receiver, Direction::Receiving);

/// Blocking iterator over the messages of a channel: [`Receiver::iter`].
#[derive(Clone, Debug)]
pub struct Iter<'a, T> {
    receiver: &'a Receiver<T>,
}

impl<T: DeserializeOwned> Iterator for Iter<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        unless_disconnected(self.receiver.recv())
    }
}

// A channel that is disconnected stays so.
impl<T: DeserializeOwned> FusedIterator for Iter<'_, T> {}

/// Iterator over the messages that are waiting in a channel: [`Receiver::try_iter`].
#[derive(Clone, Debug)]
pub struct TryIter<'a, T> {
    receiver: &'a Receiver<T>,
}

impl<T: DeserializeOwned> Iterator for TryIter<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        match self.receiver.try_recv() {
            Err(Error::Empty) => None,
            received => unless_disconnected(received),
        }
    }
}

/// Blocking iterator that owns the receiver.
#[derive(Clone, Debug)]
pub struct IntoIter<T> {
    receiver: Receiver<T>,
}

impl<T: DeserializeOwned> Iterator for IntoIter<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        unless_disconnected(self.receiver.recv())
    }
}

impl<T: DeserializeOwned> FusedIterator for IntoIter<T> {}

fn unless_disconnected<T>(received: Result<T>) -> Option<Result<T>> {
    match received {
        Err(Error::Disconnected) => None,
        received => Some(received),
    }
}

impl<T: DeserializeOwned> IntoIterator for Receiver<T> {
    type Item = Result<T>;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter { receiver: self }
    }
}

impl<'a, T: DeserializeOwned> IntoIterator for &'a Receiver<T> {
    type Item = Result<T>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}
