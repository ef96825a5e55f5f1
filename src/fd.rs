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
//!   the sent value closes its own as usual when it is dropped. A message that is given away (`tx.send(msg)`
//!   rather than `tx.send(&msg)`) is dropped by the send. A duplicate shares the open file, with its
//!   offset: see [`dup(2)`](https://man7.org/linux/man-pages/man2/dup.2.html).
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

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::thread::LocalKey;

use serde::{Deserialize, Deserializer, Serializer, de, ser};

use crate::buffer::{Lease, Spare};
use crate::end::End;
use crate::error::{Error, Result};
use crate::process::survey::Survey;
use crate::socket::{MAX_FDS, Socket};

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

/// A descriptor on its way out, kept open until the packet is sent.
#[derive(Debug)]
pub(crate) enum Carried {
    Fd(OwnedFd),
    End(Arc<Socket>),
    /// One that stays with its owner.
    Shared(Arc<OwnedFd>),
}

impl AsFd for Carried {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Carried::Fd(fd) => fd.as_fd(),
            Carried::End(socket) => socket.as_fd(),
            Carried::Shared(fd) => fd.as_fd(),
        }
    }
}

/// The descriptors of the message that is being encoded.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) fds: Lease<Carried>,
    /// How many there would be without the limit of a packet.
    pub(crate) count: usize,
    // Boxed, as the list is moved several times for each message.
    error: Option<Box<Error>>,
    /// Instead of sending them: a search for what a value holds.
    survey: Option<Box<Survey>>,
}

/// What a value that is serialized has come to.
pub(crate) enum Found<'a> {
    End(&'a End),
    Fd(RawFd),
}

/// The descriptors of the message that is being decoded. `None`: taken by a field.
pub(crate) type Incoming = Lease<Option<OwnedFd>>;

thread_local! {
    static OUTGOING: RefCell<Option<Outgoing>> = const { RefCell::new(None) };
    static INCOMING: RefCell<Option<Incoming>> = const { RefCell::new(None) };
    static SPARE_OUTGOING: Cell<Spare<Carried>> = const { Cell::new(Spare::NONE) };
    static SPARE_INCOMING: Cell<Spare<Option<OwnedFd>>> = const { Cell::new(Spare::NONE) };
}

/// Runs `body` with `list` in charge of the descriptors, and gives back what is left in it. The list
/// before it comes back on every way out, a panic included, so that a message may be sent or received in
/// the middle of another one.
fn scoped<L: 'static, R>(
    slot: &'static LocalKey<RefCell<Option<L>>>,
    list: L,
    body: impl FnOnce() -> R,
) -> (R, Option<L>) {
    struct Restore<L: 'static> {
        slot: &'static LocalKey<RefCell<Option<L>>>,
        outer: Option<Option<L>>,
    }

    impl<L> Restore<L> {
        fn restore(&mut self) -> Option<L> {
            let outer = self.outer.take()?;
            self.slot.try_with(|slot| slot.replace(outer)).ok()?
        }
    }

    impl<L> Drop for Restore<L> {
        fn drop(&mut self) {
            self.restore();
        }
    }

    let mut list = Some(list);
    // While the thread is being torn down there are no thread-locals. Then no field finds the list.
    let outer = slot.try_with(|slot| slot.replace(list.take())).ok();
    let mut restore = Restore { slot, outer };
    let result = body();
    (result, restore.restore().or(list))
}

/// Runs `encode`, and gives the descriptors of the fields that it serialized.
pub(crate) fn collect(encode: impl FnOnce() -> Result<()>) -> Result<Outgoing> {
    let (encoded, outgoing) = scoped(&OUTGOING, Outgoing::new(None), encode);
    let outgoing = outgoing.unwrap_or_else(|| Outgoing::new(None));
    match outgoing.error {
        Some(error) => Err(*error), // the cause of what serde_json could only call a failure
        None => encoded.map(|()| outgoing),
    }
}

/// Runs `encode`, and notes in `survey` what it comes across. Nothing is duplicated.
pub(crate) fn search(survey: Survey, encode: impl FnOnce() -> Result<()>) -> Result<Survey> {
    let (encoded, outgoing) = scoped(&OUTGOING, Outgoing::new(Some(Box::new(survey))), encode);
    encoded?;
    let survey = outgoing.and_then(|outgoing| outgoing.survey);
    Ok(*survey.unwrap_or_default())
}

impl Outgoing {
    fn new(survey: Option<Box<Survey>>) -> Self {
        Outgoing {
            fds: Lease::take(&SPARE_OUTGOING),
            count: 0,
            error: None,
            survey,
        }
    }
}

/// Adds a descriptor to the message that is being encoded, and writes its index.
pub(crate) fn carry<S: Serializer>(
    serializer: S,
    found: Found<'_>,
    fd: impl FnOnce() -> Result<Carried>,
) -> Result<S::Ok, S::Error> {
    let index = OUTGOING.try_with(|outgoing| {
        let mut outgoing = outgoing.borrow_mut();
        let outgoing = outgoing
            .as_mut()
            .ok_or("a descriptor or a channel end can only be serialized by a wormhole send")?;
        let index = outgoing.count;
        outgoing.count += 1;
        if let Some(survey) = &mut outgoing.survey {
            match found {
                Found::End(end) => survey.found_end(end),
                Found::Fd(number) => survey.found_fd(number),
            }
            return Ok(index);
        }
        // Beyond the limit they are only counted, for the error.
        if index < MAX_FDS && outgoing.error.is_none() {
            match fd() {
                Ok(fd) => outgoing.fds.push(fd),
                Err(error) => {
                    outgoing.error = Some(Box::new(error));
                    return Err("a descriptor could not be duplicated");
                }
            }
        }
        Ok(index)
    });
    match index {
        Ok(Ok(index)) => serializer.serialize_u64(index as u64),
        Ok(Err(reason)) => Err(ser::Error::custom(reason)),
        Err(_) => Err(ser::Error::custom("the thread is being torn down")),
    }
}

/// Adds a channel end to the message that is being encoded, and writes its index.
pub(crate) fn carry_end<S: Serializer>(serializer: S, end: &End) -> Result<S::Ok, S::Error> {
    let share = || Ok(Carried::End(Arc::clone(end)));
    carry(serializer, Found::End(end), share)
}

/// An empty list for the descriptors of the next message.
pub(crate) fn incoming() -> Incoming {
    Lease::take(&SPARE_INCOMING)
}

/// Runs `decode`, whose fields take descriptors from `list`, and gives back those that none took.
pub(crate) fn distribute<R>(list: Incoming, decode: impl FnOnce() -> R) -> (R, Incoming) {
    let (decoded, left) = scoped(&INCOMING, list, decode);
    (decoded, left.unwrap_or_else(incoming))
}

/// Reads an index and takes its descriptor out of the message that is being decoded.
pub(crate) fn claim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OwnedFd, D::Error> {
    let index = u64::deserialize(deserializer)?;
    let claimed = INCOMING.try_with(|incoming| {
        let mut incoming = incoming.borrow_mut();
        let Some(incoming) = incoming.as_mut() else {
            return Err(
                "a descriptor or a channel end can only be deserialized by a wormhole receive"
                    .to_owned(),
            );
        };
        let count = incoming.len();
        match usize::try_from(index)
            .ok()
            .and_then(|index| incoming.get_mut(index))
        {
            None => Err(format!(
                "descriptor {index} of a message that carries {count} (the first is 0)"
            )),
            Some(slot) => slot
                .take()
                .ok_or_else(|| format!("descriptor {index} was taken before")),
        }
    });
    claimed
        .unwrap_or_else(|_| Err("the thread is being torn down".to_owned()))
        .map_err(de::Error::custom)
}
