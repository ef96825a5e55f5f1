//! The sending end.

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use serde::Serialize;

use super::endpoint::impl_end;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::message::outbound::Outbound;
use crate::sys::shared_socket::SharedSocket;
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
/// // Nobody is left who could reply again.
/// assert!(matches!(answer.recv(), Err(Error::Disconnected)));
/// # Ok::<(), Error>(())
/// ```
pub struct Sender<T> {
    socket: SharedSocket,
    max_message_len: usize,
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
    /// tx.send("123456".to_owned())?; // 8 bytes with its quotes
    /// let error = tx.send("1234567".to_owned()).unwrap_err();
    /// assert!(matches!(error, Error::TooLarge { size: 9, limit: 8 }));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn set_max_message_len(&mut self, bytes: usize) {
        self.max_message_len = bytes;
    }
}

impl<T: Serialize> Sender<T> {
    /// Sends a message, given away or borrowed: `tx.send(message)` or `tx.send(&message)`.
    ///
    /// Blocks while the channel is full. A channel is bounded, in bytes, by the kernel's socket buffer: by
    /// default it holds about 200 KB, or 278 small messages, that no receiver has taken yet. So two
    /// processes that send to each other without receiving block for ever, see
    /// [`try_send`](Self::try_send) and [`send_timeout`](Self::send_timeout).
    ///
    /// `Ok` means that the kernel has the whole message: it outlives this process, and will be delivered
    /// if any process still receives. It does not mean that the message has been received.
    ///
    /// A message that was given away is dropped before `send` returns, in case of an error as well. To keep
    /// it, pass a reference.
    ///
    /// # Errors
    ///
    /// Nothing was sent, and, but for the first one, the channel works as before:
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
    /// let message = (1, "hello".to_owned());
    /// tx.send(&message)?;
    /// tx.send(message)?;
    /// assert_eq!(rx.recv()?, (1, "hello".to_owned()));
    ///
    /// drop(rx);
    /// assert!(matches!(tx.send((2, String::new())), Err(Error::Disconnected)));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn send(&self, message: impl Borrow<T>) -> Result<()> {
        self.send_within(message.borrow(), &[], Wait::Forever)
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
    pub fn send_with_fds(&self, message: impl Borrow<T>, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.send_within(message.borrow(), fds, Wait::Forever)
    }

    /// Sends a message if the channel has room for it now. Never blocks.
    ///
    /// `Ok` means the same as for [`send`](Self::send). Pass a reference to still have the message
    /// when the channel is full.
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
    /// while tx.try_send(&sent).is_ok() {
    ///     sent += 1;
    /// }
    /// assert!(matches!(tx.try_send(&sent), Err(Error::Full)));
    /// // All that was accepted arrives, and then there is room again.
    /// assert!(rx.try_iter().map(Result::unwrap).eq(0..sent));
    /// tx.try_send(&sent)?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn try_send(&self, message: impl Borrow<T>) -> Result<()> {
        self.send_within(message.borrow(), &[], Wait::Never)
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
    /// assert!(matches!(late, Err(Error::TimedOut)));
    ///
    /// assert!(rx.try_iter().all(|message| message.unwrap() == 1));
    /// tx.send_timeout(3, Duration::from_millis(10))?;
    /// assert_eq!(rx.recv()?, 3);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn send_timeout(&self, message: impl Borrow<T>, timeout: Duration) -> Result<()> {
        self.send_within(message.borrow(), &[], Wait::at_most(timeout))
    }

    fn send_within(&self, message: &T, fds: &[BorrowedFd<'_>], wait: Wait) -> Result<()> {
        Outbound::encode(message, self.max_message_len)?.send(&self.socket, fds, wait)
    }
}

impl_end!(Sender);
