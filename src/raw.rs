//! Messages that are not decoded: to be looked at, decoded later, and sent on.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::limits::MAX_LEVELS;
use crate::message::{fields, packet};
use crate::options::Limits;

/// A whole message as it is on the wire: its JSON text, and its descriptors.
///
/// It is a message type like any other, for proxies, routers and logs: a `Receiver<Raw>` (of any channel, see
/// [`Receiver::cast`](crate::Receiver::cast)) receives everything that is JSON, and a `Sender<Raw>` sends it on
/// unchanged, with all digits of its numbers and all of its descriptors in their order. Those that came beside the
/// message, of [`send_with_fds`](crate::Sender::send_with_fds), are among them: it cannot be told which they are.
///
/// It is the whole of a message, not a field of one. The descriptors are closed when it is dropped.
///
/// # Examples
///
/// A proxy that lets pass what is short:
///
/// ```
/// use wormhole::{Error, Raw, Sender, channel};
///
/// let (tx, rx) = channel::<(String, Option<Sender<u32>>)>()?;
/// let (forward, forwarded) = channel::<(String, Option<Sender<u32>>)>()?;
/// let (reply, replies) = channel()?;
/// tx.send(("hello".to_owned(), Some(reply)))?;
/// tx.send(("x".repeat(100), None))?;
///
/// let (rx, forward) = (rx.cast::<Raw>(), forward.cast::<Raw>());
/// for message in rx.try_iter() {
///     let message = message?;
///     if message.text().len() < 50 {
///         assert_eq!((message.text(), message.fds().len()), (r#"["hello",0]"#, 1));
///         forward.send(message)?;
///     }
/// }
///
/// let (text, reply) = forwarded.recv()?;
/// assert_eq!(text, "hello");
/// reply.unwrap().send(5)?;
/// assert_eq!(replies.recv()?, 5);
/// assert!(matches!(forwarded.try_recv(), Err(Error::Empty)));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Raw {
    text: Box<RawValue>,
    fds: Vec<Arc<OwnedFd>>,
}

impl Raw {
    /// Encodes a message without a channel.
    ///
    /// What the message holds is shared or duplicated, as a send does. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`], [`Error::TooLarge`] and [`Error::Io`], as [`Sender::send`](crate::Sender::send), with the
    /// default limits.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, Raw, Sender, channel};
    ///
    /// let (tx, rx) = channel::<u32>()?;
    /// let message = Raw::encode(&("count", tx))?;
    /// assert_eq!((message.text(), message.fds().len()), (r#"["count",0]"#, 1));
    ///
    /// let (name, tx): (String, Sender<u32>) = message.decode()?;
    /// tx.send(3)?;
    /// assert_eq!((name.as_str(), rx.recv()?), ("count", 3));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn encode<T: Serialize>(message: &T) -> Result<Self> {
        let (mut text, mut fds) = (Vec::new(), Vec::new());
        let limit = Limits::DEFAULT.message_len;
        fields::collect(&mut fds, || {
            packet::encode(message, limit, MAX_LEVELS, &mut text)
        })?;
        let text = packet::text_of(text).map_err(Error::encode::<T>)?;
        let text = RawValue::from_string(text).map_err(Error::encode::<T>)?;
        let fds: Result<_> = fds.into_iter().map(fields::Carried::into_shared).collect();
        Ok(Raw { text, fds: fds? })
    }

    /// Makes a message of its parts: a JSON text whose descriptors are indices into `fds`, from 0.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`] when the text is not one JSON value.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, Raw};
    ///
    /// let message = Raw::from_parts("[1, 2]".to_owned(), Vec::new())?;
    /// assert_eq!(message.decode::<Vec<u32>>()?, [1, 2]);
    /// assert!(matches!(Raw::from_parts("[1, 2".to_owned(), Vec::new()), Err(Error::Encode { .. })));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn from_parts(text: String, fds: Vec<OwnedFd>) -> Result<Self> {
        Ok(Raw {
            text: RawValue::from_string(text).map_err(Error::encode::<Self>)?,
            fds: fds.into_iter().map(Arc::new).collect(),
        })
    }

    /// The JSON text.
    #[must_use]
    pub fn text(&self) -> &str {
        self.text.get()
    }

    /// The descriptors, in order. A clone of this message shares them.
    #[must_use]
    pub fn fds(&self) -> &[Arc<OwnedFd>] {
        &self.fds
    }

    /// Decodes the message, whose fields must take all of its descriptors.
    ///
    /// # Errors
    ///
    /// - [`Error::Decode`]: it is no `T`. It is gone; to try again, decode a clone.
    /// - [`Error::UnexpectedFds`]: its fields leave descriptors, see [`decode_with_fds`](Self::decode_with_fds).
    /// - [`Error::Io`]: a descriptor that a clone shares could not be duplicated.
    pub fn decode<T: DeserializeOwned>(self) -> Result<T> {
        let (message, left) = self.decode_with_fds()?;
        match left.len() {
            0 => Ok(message),
            count => Err(Error::UnexpectedFds { count }),
        }
    }

    /// Decodes the message, and gives the descriptors that its fields leave.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode), without [`Error::UnexpectedFds`].
    pub fn decode_with_fds<T: DeserializeOwned>(self) -> Result<(T, Vec<OwnedFd>)> {
        let fds = self.fds.into_iter().map(|fd| owned(fd).map(Some));
        let mut fds = fds.collect::<Result<Vec<_>>>()?;
        let text = self.text.get().as_bytes();
        let limit = Limits::DEFAULT.blob_len;
        let message = fields::distribute(&mut fds, limit, || packet::decode(text))?;
        Ok((message, fds.into_iter().flatten().collect()))
    }
}

/// Takes a descriptor out of its share, or duplicates it while there are others.
fn owned(fd: Arc<OwnedFd>) -> Result<OwnedFd> {
    Arc::try_unwrap(fd).or_else(|fd| {
        let duplicate = fd.try_clone();
        duplicate.map_err(|error| Error::io("duplicate a descriptor of a message", error))
    })
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raw")
            .field("text", &self.text.get())
            .field("fds", &self.fds)
            .finish()
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fields::carry_all(&self.fds).map_err(S::Error::custom)?;
        self.text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let fds = fields::claim_all().map_err(D::Error::custom)?;
        let fds = fds.into_iter().map(Arc::new).collect();
        Ok(Raw { text, fds })
    }
}
