//! Descriptors as fields of messages: `#[serde(with = "wormhole::fd")]`.
//!
//! Any type that is a descriptor can be a field: to be sent it needs [`AsFd`], to be received
//! `From<OwnedFd>`. That is [`File`](std::fs::File), [`OwnedFd`], the sockets of [`std::net`] and
//! [`std::os::unix::net`], [`PipeReader`](std::io::PipeReader), and many more. [`Sender`](crate::Sender),
//! [`Receiver`](crate::Receiver), [`Listener`](crate::Listener) and [`Blob`](crate::Blob) need no attribute.
//!
//! The descriptor travels beside the text, and in the text stands its index. So such a value can only be
//! serialized by a send of this crate and deserialized by a receive; everything else is an error.
//!
//! - Sending never closes what the message holds: the receiver gets a duplicate of the descriptor, and
//!   the sent value closes its own as usual when it is dropped. That is what `tx.send(msg)` does at its end;
//!   `tx.by_ref().send(&msg)` keeps it. A duplicate shares the open file, with its offset and its flags, `O_NONBLOCK`
//!   among them: see [`dup(2)`](https://man7.org/linux/man-pages/man2/dup.2.html).
//! - A received descriptor is close-on-exec, and belongs to the field. If the rest of the message turns
//!   out to be wrong, it is closed.
//! - Each descriptor can be taken once. A type whose `Deserialize` tries several things in turn, such as
//!   an `untagged` enum, may find that it is gone.
//!
//! For an `Option`, a `Vec` or a map of descriptors, give the attribute to a type of your own:
//!
//! ```
//! use std::fs::File;
//! use std::io::{Read, Seek, Write};
//!
//! use serde::{Deserialize, Serialize};
//! use wormhole::channel;
//!
//! #[derive(Serialize, Deserialize)]
//! struct Input(#[serde(with = "wormhole::fd")] File);
//!
//! #[derive(Serialize, Deserialize)]
//! struct Job {
//!     inputs: Vec<Input>,
//!     log: Option<Input>,
//! }
//!
//! let (tx, rx) = channel::<Job>()?;
//! let mut input = tempfile::tempfile()?;
//! input.write_all(b"some text")?;
//! tx.send(Job { inputs: vec![Input(input)], log: None })?;
//!
//! let mut job = rx.recv()?;
//! let Input(file) = &mut job.inputs[0];
//! let mut text = String::new();
//! file.rewind()?;
//! file.read_to_string(&mut text)?;
//! assert_eq!(text, "some text");
//!
//! // Outside of a send there is nothing for the descriptor to travel with.
//! assert!(serde_json::to_string(&job).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use serde::{Deserializer, Serializer};

use crate::error::Error;
use crate::message::fields::{self, Carried, Found, carry, claim};

/// Whether this thread is serializing for wormhole: for a send, or for [`spawn`](crate::spawn) to find the ends that its
/// arguments hold. Only then can descriptors and ends be serialized.
///
/// For a `Serialize` that writes something else in other formats.
///
/// # Examples
///
/// ```
/// use serde::{Serialize, Serializer};
/// use wormhole::{channel, fd};
///
/// /// A secret that other formats, a log for instance, do not get to see.
/// struct Password(String);
///
/// impl Serialize for Password {
///     fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
///         serializer.serialize_str(if fd::is_encoding() { &self.0 } else { "***" })
///     }
/// }
///
/// let password = Password("sesame".to_owned());
/// assert_eq!(serde_json::to_string(&password)?, r#""***""#);
/// let (tx, rx) = channel::<Password>()?;
/// tx.send(password)?;
/// assert_eq!(rx.cast::<String>().recv()?, "sesame");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn is_encoding() -> bool {
    fields::is_encoding()
}

/// Whether this thread is deserializing a message that was received through wormhole. Only then can descriptors and
/// ends be deserialized.
#[must_use]
pub fn is_decoding() -> bool {
    fields::is_decoding()
}

/// Serializes a descriptor, within a send of this crate.
///
/// The descriptor is duplicated for the time of the send, because nothing says that `fd` outlives the
/// caller's `serialize`.
///
/// # Errors
///
/// - Outside of a wormhole send.
/// - When the descriptor cannot be duplicated. The send then fails with [`Error::Io`].
pub fn serialize<F, S>(fd: &F, serializer: S) -> Result<S::Ok, S::Error>
where
    F: AsFd + ?Sized,
    S: Serializer,
{
    let fd = fd.as_fd();
    carry(serializer, Found::Fd(fd.as_raw_fd()), || {
        let fd = fd.try_clone_to_owned();
        fd.map(Carried::Fd)
            .map_err(|error| Error::io("duplicate a descriptor of the message", error))
    })
}

/// Deserializes a descriptor, within a receive of this crate.
///
/// # Errors
///
/// - Outside of a wormhole receive.
/// - When the text holds no index, or one for which the message carries no descriptor, or one whose
///   descriptor was taken before.
pub fn deserialize<'de, F, D>(deserializer: D) -> Result<F, D::Error>
where
    F: From<OwnedFd>,
    D: Deserializer<'de>,
{
    claim(deserializer).map(F::from)
}
