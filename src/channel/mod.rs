//! A channel: its two ends, and how it is made.

pub(crate) mod endpoint;
mod receiver;
mod sender;

use std::sync::Arc;

use crate::error::Result;
use crate::options::Options;
use crate::sys::socket;

pub use receiver::{IntoIter, Iter, Receiver, TryIter};
pub use sender::Sender;

/// Makes a channel with the default [`Options`].
///
/// Both descriptors are close-on-exec. Never blocks.
///
/// # Errors
///
/// [`Error::Io`](crate::Error::Io) when the process is out of descriptors or the kernel out of memory.
///
/// # Examples
///
/// ```
/// use wormhole::{Error, channel};
///
/// let (tx, rx) = channel::<[i64; 2]>()?;
/// tx.send([1, -1])?;
/// assert_eq!(rx.recv()?, [1, -1]);
///
/// drop(tx);
/// assert!(matches!(rx.recv(), Err(Error::Disconnected)));
/// # Ok::<(), Error>(())
/// ```
pub fn channel<T>() -> Result<(Sender<T>, Receiver<T>)> {
    Options::new().channel()
}

impl Options {
    /// Makes a channel with these settings.
    ///
    /// Both descriptors are close-on-exec. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) when the process is out of descriptors or the kernel out of memory,
    /// and when [`buffer`](Self::buffer) is more than `net.core.wmem_max` allows.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, Options};
    ///
    /// // A small buffer: the sender soon waits for the receivers.
    /// let (tx, rx) = Options::new().buffer(4096).channel::<u8>()?;
    /// while tx.try_send(0).is_ok() {}
    /// assert!(rx.try_iter().count() < 50);
    ///
    /// let error = Options::new().buffer(usize::MAX).channel::<u8>().unwrap_err();
    /// assert!(matches!(error, Error::Io { .. }));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn channel<T>(&self) -> Result<(Sender<T>, Receiver<T>)> {
        let (sending, receiving) = socket::pair(self.buffer, self.spin)?;
        Ok((
            Sender::new(Arc::new(sending), self.limits),
            Receiver::new(Arc::new(receiving), self.limits),
        ))
    }
}
