//! The sending end.

use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::endpoint::{Endpoint, impl_end};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::limits::MAX_LEVELS;
use crate::message::fields::Given;
use crate::message::outbound::Outbound;
use crate::sys::socket::Direction;
use crate::wait::Wait;

/// The sending end of a channel: [`channel`](crate::channel) makes it.
///
/// Clones share one descriptor, so cloning cannot fail and costs none. Any number of threads and
/// processes may send at the same time; each message is sent whole or not at all. The end is closed when
/// the last clone in this process is dropped; the receivers see [`Error::Disconnected`] when it is closed
/// in every process.
///
/// A sender can itself be sent, as a message or as a field of one. What arrives is a sender of the same
/// channel with the default [`max_message_len`](crate::Options::max_message_len).
///
/// # Examples
///
/// Request and reply: a request carries the sender on which its answer is awaited.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use wormhole::{Error, Sender, channel};
///
/// #[derive(Serialize, Deserialize)]
/// struct Double {
///     number: u32,
///     reply: Sender<u32>,
/// }
///
/// let (requests, server) = channel::<Double>()?;
/// let (reply, answer) = channel::<u32>()?;
/// requests.send(Double { number: 21, reply })?; // moves this process's only `reply`
///
/// let request = server.recv()?; // usually in another process
/// request.reply.send(request.number * 2)?;
/// drop(request);
///
/// assert_eq!(answer.recv()?, 42);
/// // No sender is left that could reply again.
/// assert!(matches!(answer.recv(), Err(Error::Disconnected)));
/// # Ok::<(), Error>(())
/// ```
pub struct Sender<T> {
    end: Endpoint,
    message: PhantomData<fn(T)>,
}

impl<T> Sender<T> {
    /// Sets the longest text, in bytes, that this handle sends, as
    /// [`Options::max_message_len`](crate::Options::max_message_len) does at creation. For senders that
    /// came in a message or were made from a descriptor. Other clones keep their limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, channel};
    ///
    /// let (mut tx, rx) = channel::<String>()?;
    /// tx.set_max_message_len(8);
    /// let error = tx.send("1234567".to_owned()).unwrap_err(); // 9 bytes with its quotes
    /// assert!(matches!(error, Error::TooLarge { size: 9, limit: 8 }));
    /// tx.send("123456".to_owned())?;
    /// assert_eq!(rx.recv()?, "123456");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn set_max_message_len(&mut self, bytes: usize) {
        self.end.limits.message_len = bytes;
    }

    /// Makes a sender of the same channel that sends borrowed messages: for those that are to be kept, or sent to
    /// many.
    ///
    /// It shares the descriptor, as a clone does, and costs next to nothing. The type of what it borrows follows
    /// from what is sent.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, Sender, channel};
    ///
    /// fn send_to_all(senders: &[Sender<Vec<u32>>], message: &Vec<u32>) -> Result<(), Error> {
    ///     senders.iter().try_for_each(|tx| tx.by_ref().send(message))
    /// }
    ///
    /// let (tx, rx) = channel()?;
    /// let message = vec![1, 2, 3];
    /// send_to_all(&[tx.clone(), tx], &message)?;
    /// assert_eq!([rx.recv()?, rx.recv()?], [message.clone(), message]);
    /// assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    /// # Ok::<(), Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn by_ref<'a>(&self) -> Sender<&'a T>
    where
        T: 'a,
    {
        Sender::of(self.end.share())
    }

    /// Whether every copy of the receiver, in every process, is gone, so that nothing that is sent can arrive.
    ///
    /// Never blocks. To wait for it, use the arm `closed(tx)` of [`select!`](crate::select!). `false` may be out of
    /// date as soon as it is returned. It is also the answer where a sandbox denies `ppoll`.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, channel};
    ///
    /// let (tx, rx) = channel::<u32>()?;
    /// assert!(!tx.is_disconnected());
    /// drop(rx);
    /// assert!(tx.is_disconnected());
    /// assert!(matches!(tx.send(1), Err(Error::Disconnected)));
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.end.socket().is_hung_up()
    }
}

impl<T: Serialize> Sender<T> {
    /// Sends a message.
    ///
    /// Blocks while the channel is full. `Ok` means that the kernel has the whole message: it will be received
    /// even if this process ends now, unless the receivers end first. The message is dropped here, and with it the
    /// descriptors and ends that it holds: they have moved. To keep it, see [`by_ref`](Self::by_ref).
    ///
    /// # Errors
    ///
    /// The message was not sent, not even in part, and the channel works as before:
    ///
    /// - [`Error::Disconnected`]: every copy of the receiver, in every process, is gone.
    /// - [`Error::Encode`]: the message cannot be written as JSON.
    /// - [`Error::TooLarge`]: its text is longer than the limit.
    /// - [`Error::TooManyFds`]: it carries more than 253 descriptors.
    /// - [`Error::TooManyFdsInFlight`]: so many are on their way that the kernel refuses more for now.
    /// - [`Error::Io`]: the kernel refused, for instance to duplicate a descriptor or to create the memfd
    ///   that a message needs which does not fit the socket buffer.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, channel};
    ///
    /// let (tx, rx) = channel::<(u32, String)>()?;
    /// tx.send((1, "hello".into()))?;
    /// assert_eq!(rx.recv()?, (1, "hello".to_owned()));
    ///
    /// drop(rx);
    /// assert!(matches!(tx.send((2, String::new())), Err(Error::Disconnected)));
    /// # Ok::<(), Error>(())
    /// ```
    #[inline]
    pub fn send(&self, message: T) -> Result<()> {
        self.send_within(message, &[], Wait::Forever)
    }

    /// Sends a message if the channel has room for it now. Never blocks.
    ///
    /// `Ok` means the same as for [`send`](Self::send). The message is dropped in any case: to still have it when
    /// the channel is full, use [`by_ref`](Self::by_ref).
    ///
    /// # Errors
    ///
    /// [`Error::Full`] when there is no room, otherwise as [`send`](Self::send).
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, channel};
    ///
    /// let (tx, rx) = channel::<u64>()?;
    /// let mut sent = 0;
    /// while tx.try_send(sent).is_ok() {
    ///     sent += 1;
    /// }
    /// assert!(matches!(tx.try_send(sent), Err(Error::Full)));
    /// // All that was accepted arrives, and then there is room again.
    /// assert!(rx.try_iter().map(Result::unwrap).eq(0..sent));
    /// tx.try_send(sent)?;
    /// # Ok::<(), Error>(())
    /// ```
    #[inline]
    pub fn try_send(&self, message: T) -> Result<()> {
        self.send_within(message, &[], Wait::Never)
    }

    /// Sends a message, waiting for at most `timeout` while the channel is full.
    ///
    /// The timeout is a deadline, counted from the call: signals do not prolong it. Zero tries once.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when there was no room in time, otherwise as [`send`](Self::send).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use wormhole::{Error, channel};
    ///
    /// let (tx, rx) = channel::<u64>()?;
    /// while tx.try_send(1).is_ok() {}
    /// let late = tx.send_timeout(2, Duration::from_millis(10));
    /// assert!(matches!(late, Err(Error::TimedOut { .. })));
    ///
    /// assert!(rx.try_iter().all(|message| message.unwrap() == 1));
    /// tx.send_timeout(3, Duration::from_millis(10))?;
    /// assert_eq!(rx.recv()?, 3);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn send_timeout(&self, message: T, timeout: Duration) -> Result<()> {
        self.send_within(message, &[], Wait::at_most(timeout))
    }

    /// Sends a message, waiting until `deadline` while the channel is full. One that has passed tries once.
    ///
    /// # Errors
    ///
    /// As [`send_timeout`](Self::send_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use wormhole::{Error, channel};
    ///
    /// let (tx, _rx) = channel::<u64>()?;
    /// let deadline = Instant::now() + Duration::from_millis(10);
    /// let error = loop {
    ///     if let Err(error) = tx.send_deadline(1, deadline) {
    ///         break error;
    ///     }
    /// };
    /// assert!(matches!(error, Error::TimedOut { .. }));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn send_deadline(&self, message: T, deadline: Instant) -> Result<()> {
        self.send_within(message, &[], Wait::until(deadline))
    }

    /// Sends a message and, beside it, duplicates of `fds`: the receiver gets them from
    /// [`recv_with_fds`](crate::Receiver::recv_with_fds), in this order.
    ///
    /// The descriptors are borrowed: they stay open here. Blocks and returns as [`send`](Self::send) does.
    /// A descriptor that belongs to a field of the message is better sent as that field, see
    /// [`fd`](crate::fd).
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send). [`Error::TooManyFds`] counts these and those of the message's fields
    /// together.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::os::fd::AsFd;
    /// use std::os::unix::net::UnixStream;
    /// use wormhole::{Error, channel};
    ///
    /// let (tx, rx) = channel::<String>()?;
    /// let (mut here, there) = UnixStream::pair()?;
    /// tx.send_with_fds("a stream".to_owned(), &[there.as_fd()])?;
    /// drop(there);
    ///
    /// let (text, mut fds) = rx.recv_with_fds()?;
    /// let mut there = UnixStream::from(fds.remove(0));
    /// there.write_all(text.as_bytes())?;
    /// drop(there);
    /// let mut read = String::new();
    /// here.read_to_string(&mut read)?;
    /// assert_eq!(read, "a stream");
    ///
    /// let many = vec![here.as_fd(); 254];
    /// let error = tx.send_with_fds("too many".to_owned(), &many).unwrap_err();
    /// assert!(matches!(error, Error::TooManyFds { count: 254, limit: 253 }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_with_fds(&self, message: T, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.send_within(message, fds, Wait::Forever)
    }

    /// Sends as [`send_with_fds`](Self::send_with_fds) does, if the channel has room now. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] when there is no room, otherwise as [`send_with_fds`](Self::send_with_fds). The descriptors
    /// stay open here in any case.
    pub fn try_send_with_fds(&self, message: T, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.send_within(message, fds, Wait::Never)
    }

    /// Sends as [`send_with_fds`](Self::send_with_fds) does, waiting for at most `timeout` while the channel is full.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when there was no room in time, otherwise as [`send_with_fds`](Self::send_with_fds).
    pub fn send_with_fds_timeout(
        &self,
        message: T,
        fds: &[BorrowedFd<'_>],
        timeout: Duration,
    ) -> Result<()> {
        self.send_within(message, fds, Wait::at_most(timeout))
    }

    /// Sends as [`send_with_fds`](Self::send_with_fds) does, waiting until `deadline` while the channel is full.
    ///
    /// # Errors
    ///
    /// As [`send_with_fds_timeout`](Self::send_with_fds_timeout).
    pub fn send_with_fds_deadline(
        &self,
        message: T,
        fds: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<()> {
        self.send_within(message, fds, Wait::until(deadline))
    }

    #[inline]
    fn send_within(&self, message: T, fds: &[BorrowedFd<'_>], wait: Wait) -> Result<()> {
        self.send_nested(message, MAX_LEVELS, fds, wait)
    }

    /// Sends a message that nests at most so deep.
    #[inline]
    pub(crate) fn send_nested(
        &self,
        message: T,
        levels: u32,
        fds: &[BorrowedFd<'_>],
        wait: Wait,
    ) -> Result<()> {
        // What moves is closed here only once it is there: `message` is dropped after the send.
        let mut outbound = Outbound::encode(&message, self.end.limits.message_len, levels)?;
        outbound.send(self.end.socket(), fds, wait)?;
        outbound.given().note();
        Ok(())
    }

    /// Sends a message that the caller drops later, when it is known whether another process gets it.
    pub(crate) fn send_borrowed(&self, message: &T) -> Result<Given> {
        let mut outbound = Outbound::encode(message, self.end.limits.message_len, MAX_LEVELS)?;
        outbound.send(self.end.socket(), &[], Wait::Forever)?;
        Ok(outbound.given())
    }
}

impl_end!(Sender, Direction::Sending);
