//! The descriptors that a message's fields refer to: collected while it is encoded, handed out while it is
//! decoded.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::thread::LocalKey;

use serde::{Deserialize, Deserializer, Serializer, de, ser};

use super::scratch::{Lease, Spare};
use crate::error::{Error, Result};
use crate::limits::MAX_FDS;
use crate::sys::shared_socket::SharedSocket;
use crate::sys::socket::Socket;

/// What serializing a value has come across.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The ends, by number, and how often each was found.
    pub(crate) ends: HashMap<RawFd, (Arc<Socket>, usize)>,
    /// Other descriptors.
    pub(crate) fds: Vec<RawFd>,
    /// By number, where ends move as soon as they are found.
    pub(crate) moves: HashMap<RawFd, Arc<Socket>>,
}

impl Survey {
    pub(crate) fn found_fd(&mut self, number: RawFd) {
        self.fds.push(number);
    }

    pub(crate) fn found_end(&mut self, end: &SharedSocket) {
        let number = end.as_fd().as_raw_fd();
        if let Some(fresh) = self.moves.get(&number) {
            end.move_to(Arc::clone(fresh));
        } else {
            let found = || (Arc::clone(end), 0);
            self.ends.entry(number).or_insert_with(found).1 += 1;
        }
    }
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
    End(&'a SharedSocket),
    Fd(RawFd),
}

/// The descriptors of the message that is being decoded. `None`: taken by a field.
pub(crate) type Arrived = Lease<Option<OwnedFd>>;

thread_local! {
    static OUTGOING: RefCell<Option<Outgoing>> = const { RefCell::new(None) };
    static INCOMING: RefCell<Option<Arrived>> = const { RefCell::new(None) };
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
pub(crate) fn carry_end<S: Serializer>(
    serializer: S,
    end: &SharedSocket,
) -> Result<S::Ok, S::Error> {
    let share = || Ok(Carried::End(Arc::clone(end)));
    carry(serializer, Found::End(end), share)
}

/// An empty list for the descriptors of the next message.
pub(crate) fn arrived() -> Arrived {
    Lease::take(&SPARE_INCOMING)
}

/// Runs `decode`, whose fields take descriptors from `list`, and gives back those that none took.
pub(crate) fn distribute<R>(list: Arrived, decode: impl FnOnce() -> R) -> (R, Arrived) {
    let (decoded, left) = scoped(&INCOMING, list, decode);
    (decoded, left.unwrap_or_else(arrived))
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
