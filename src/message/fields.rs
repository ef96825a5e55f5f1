//! The descriptors that a message's fields refer to: collected while it is encoded, handed out while it is
//! decoded.
//!
//! Most messages have none, and pay for no more than a [`Cell`] that says which message is in progress. The
//! descriptors themselves lie in lists of the thread, which only `#[cold]` code touches. A message may be sent or
//! received in the middle of another one: guards bring back what was in progress, also when it panics.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Deserializer, Serializer, de, ser};

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
    /// What wants to know if another process gets it.
    pub(crate) given: Given,
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
    /// A listening socket, and where to note that another process has got it.
    Listener(Arc<Socket>, Arc<AtomicBool>),
    /// One that stays with its owner.
    Shared(Arc<OwnedFd>),
}

impl AsFd for Carried {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Carried::Fd(fd) => fd.as_fd(),
            Carried::End(socket) | Carried::Listener(socket, _) => socket.as_fd(),
            Carried::Shared(fd) => fd.as_fd(),
        }
    }
}

impl Carried {
    /// The descriptor by itself, or a duplicate of one that has an owner.
    pub(crate) fn into_shared(self) -> Result<Arc<OwnedFd>> {
        match self {
            Carried::Fd(fd) => Ok(Arc::new(fd)),
            Carried::Shared(fd) => Ok(fd),
            Carried::End(socket) | Carried::Listener(socket, _) => {
                Socket::release(socket).map(Arc::new)
            }
        }
    }
}

/// What of a message wants to know that another process has got it: its listeners, which otherwise remove their files.
#[derive(Debug, Default)]
pub(crate) struct Given(Vec<Arc<AtomicBool>>);

impl Given {
    #[cold]
    pub(super) fn of(fds: &[Carried]) -> Self {
        let listeners = fds.iter().filter_map(|fd| match fd {
            Carried::Listener(_, given) => Some(Arc::clone(given)),
            _ => None,
        });
        Given(listeners.collect())
    }

    /// Notes that it has. To be called before the message is dropped.
    pub(crate) fn note(&self) {
        for given in &self.0 {
            given.store(true, Ordering::Relaxed);
        }
    }
}

/// What a value that is serialized has come to.
pub(crate) enum Found<'a> {
    End(&'a SharedSocket),
    Listener(&'a SharedSocket, &'a Arc<AtomicBool>),
    Fd(RawFd),
}

/// What this thread is serializing, as far as descriptors are concerned.
// Without a destructor, so that it works in a thread that is being torn down.
#[derive(Clone, Copy)]
struct Encoding {
    purpose: Purpose,
    /// Whether a descriptor could not be duplicated: `FAILURE` says why.
    failed: bool,
    /// Where its descriptors begin in `CARRIED`, behind those of the messages that this one is in the middle of.
    first: usize,
    /// How many it has there.
    carried: usize,
    /// How many there would be without the limit of a packet.
    count: usize,
}

/// The message that this thread is decoding, as far as descriptors are concerned.
#[derive(Clone, Copy)]
struct Decoding {
    /// How many descriptors came with it.
    count: usize,
    /// How many bytes the blobs among them have, so far, and how many they may have.
    blob_len: u64,
    max_blob_len: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Something that wormhole does not know of.
    Foreign,
    /// To be sent.
    Send,
    /// To find what a value holds. Nothing is duplicated.
    Search,
}

thread_local! {
    static ENCODING: Cell<Encoding> = const {
        Cell::new(Encoding { purpose: Purpose::Foreign, failed: false, first: 0, carried: 0, count: 0 })
    };
    static CARRIED: RefCell<Vec<Carried>> = const { RefCell::new(Vec::new()) };
    static FAILURE: Cell<Option<Box<Error>>> = const { Cell::new(None) };
    static SURVEY: RefCell<Option<Box<Survey>>> = const { RefCell::new(None) };
    static DECODING: Cell<Option<Decoding>> = const { Cell::new(None) };
    /// Those descriptors, if there are any. `None`: taken by a field.
    static ARRIVED: RefCell<Vec<Option<OwnedFd>>> = const { RefCell::new(Vec::new()) };
}

/// Brings back the message in whose middle another one was encoded.
struct Resume(Encoding);

impl Resume {
    /// Begins to encode, for that purpose.
    #[inline]
    fn after(purpose: Purpose) -> Self {
        let outer = ENCODING.get();
        ENCODING.set(Encoding {
            purpose,
            failed: false,
            first: outer.first + outer.carried,
            carried: 0,
            count: 0,
        });
        Resume(outer)
    }
}

impl Drop for Resume {
    #[inline]
    fn drop(&mut self) {
        let inner = ENCODING.replace(self.0);
        if inner.carried > 0 {
            forget_carried(inner.first);
        }
    }
}

/// Closes the descriptors from `first` on: those of a message that has failed, or has been taken care of.
#[cold]
fn forget_carried(first: usize) {
    let _ = CARRIED.try_with(|all| {
        let mut all = all.borrow_mut();
        all.truncate(first);
    });
}

/// Runs `encode`, and puts the descriptors of the fields that it serialized into `fds`. Gives their number, as if
/// packets had no limit.
#[inline]
pub(crate) fn collect(
    fds: &mut Vec<Carried>,
    encode: impl FnOnce() -> Result<()>,
) -> Result<usize> {
    let resume = Resume::after(Purpose::Send);
    let encoded = encode();
    let message = ENCODING.get();
    if message.count == 0 {
        drop(resume);
        return encoded.map(|()| 0);
    }
    take_carried(message, fds);
    drop(resume);
    if message.failed {
        // The cause of what serde_json could only call a failure.
        if let Ok(Some(error)) = FAILURE.try_with(Cell::take) {
            return Err(*error);
        }
    }
    encoded.map(|()| message.count)
}

#[cold]
fn take_carried(message: Encoding, fds: &mut Vec<Carried>) {
    let _ = CARRIED.try_with(|all| fds.extend(all.borrow_mut().drain(message.first..)));
}

/// Whether this thread is serializing a message that is to be sent, or to find what it holds.
pub(crate) fn is_encoding() -> bool {
    ENCODING.get().purpose != Purpose::Foreign
}

/// Whether this thread is deserializing a message that was received.
pub(crate) fn is_decoding() -> bool {
    DECODING.get().is_some()
}

/// Runs `encode`, and notes in `survey` what it comes across. Nothing is duplicated.
pub(crate) fn search(survey: Survey, encode: impl FnOnce() -> Result<()>) -> Result<Survey> {
    /// Brings back the search in whose middle this one is.
    struct Outer(Option<Option<Box<Survey>>>);

    impl Outer {
        fn resume(&mut self) -> Option<Box<Survey>> {
            let outer = self.0.take()?;
            SURVEY.try_with(|slot| slot.replace(outer)).ok()?
        }
    }

    impl Drop for Outer {
        fn drop(&mut self) {
            self.resume();
        }
    }

    let _resume = Resume::after(Purpose::Search);
    let survey = Some(Box::new(survey));
    let mut outer = Outer(SURVEY.try_with(|slot| slot.replace(survey)).ok());
    encode()?;
    let found = outer.resume();
    Ok(found.map(|found| *found).unwrap_or_default())
}

/// Adds a descriptor to the message that is being encoded, and writes its index.
pub(crate) fn carry<S: Serializer>(
    serializer: S,
    found: Found<'_>,
    fd: impl FnOnce() -> Result<Carried>,
) -> Result<S::Ok, S::Error> {
    let mut message = ENCODING.get();
    let index = message.count;
    message.count += 1;
    let noted = match message.purpose {
        Purpose::Foreign => {
            Err("a descriptor or a channel end can only be serialized by a wormhole send")
        }
        Purpose::Search => note(found),
        // Beyond the limit they are only counted, for the error.
        Purpose::Send if index >= MAX_FDS || message.failed => Ok(()),
        Purpose::Send => match fd() {
            Ok(fd) => {
                let pushed = CARRIED.try_with(|all| all.borrow_mut().push(fd));
                message.carried += usize::from(pushed.is_ok());
                pushed.map_err(|_| TORN_DOWN)
            }
            Err(error) => {
                message.failed = true;
                let _ = FAILURE.try_with(|failure| failure.set(Some(Box::new(error))));
                Err("a descriptor could not be duplicated")
            }
        },
    };
    if message.purpose != Purpose::Foreign {
        ENCODING.set(message);
    }
    match noted {
        Ok(()) => serializer.serialize_u64(index as u64),
        Err(reason) => Err(ser::Error::custom(reason)),
    }
}

const TORN_DOWN: &str = "the thread is being torn down";

/// Notes in the survey that is going on what it has come across.
fn note(found: Found<'_>) -> Result<(), &'static str> {
    let noted = SURVEY.try_with(|survey| {
        if let Some(survey) = &mut *survey.borrow_mut() {
            match found {
                Found::End(end) => survey.found_end(end),
                Found::Listener(end, given) => {
                    survey.found_end(end);
                    survey.given.0.push(Arc::clone(given));
                }
                Found::Fd(number) => survey.found_fd(number),
            }
        }
    });
    noted.map_err(|_| TORN_DOWN)
}

/// Adds a channel end to the message that is being encoded, and writes its index.
///
/// A listener says where to note that it has been `given` to another process.
pub(crate) fn carry_end<S: Serializer>(
    serializer: S,
    end: &SharedSocket,
    given: Option<&Arc<AtomicBool>>,
) -> Result<S::Ok, S::Error> {
    let socket = || Arc::clone(end);
    match given {
        None => carry(serializer, Found::End(end), || Ok(Carried::End(socket()))),
        Some(given) => carry(serializer, Found::Listener(end, given), || {
            Ok(Carried::Listener(socket(), Arc::clone(given)))
        }),
    }
}

/// Runs `decode`, whose fields take descriptors out of `fds`.
///
/// The blobs among them may have `max_blob_len` bytes together.
#[inline]
pub(crate) fn distribute<R>(
    fds: &mut Vec<Option<OwnedFd>>,
    max_blob_len: u64,
    decode: impl FnOnce() -> R,
) -> R {
    /// Brings back the message in whose middle another one was decoded.
    struct Resume(Option<Decoding>);

    impl Drop for Resume {
        #[inline]
        fn drop(&mut self) {
            DECODING.set(self.0);
        }
    }

    let message = Decoding {
        count: fds.len(),
        blob_len: 0,
        max_blob_len,
    };
    let _resume = Resume(DECODING.replace(Some(message)));
    if fds.is_empty() {
        return decode();
    }
    with_arrived(fds, decode)
}

#[cold]
#[inline(never)]
fn with_arrived<R>(fds: &mut Vec<Option<OwnedFd>>, decode: impl FnOnce() -> R) -> R {
    /// Exchanges the list for that of the message in whose middle this one is, and back.
    struct Exchange<'a>(&'a mut Vec<Option<OwnedFd>>);

    impl Exchange<'_> {
        fn exchange(&mut self) {
            let _ = ARRIVED.try_with(|slot| std::mem::swap(&mut *slot.borrow_mut(), self.0));
        }
    }

    impl Drop for Exchange<'_> {
        fn drop(&mut self) {
            self.exchange();
        }
    }

    let mut lists = Exchange(fds);
    lists.exchange();
    decode()
}

/// Takes all descriptors out of the message that is being decoded, for something that is the whole of it.
pub(crate) fn claim_all() -> Result<Vec<OwnedFd>, &'static str> {
    let Some(Decoding { count, .. }) = DECODING.get() else {
        return Err("an undecoded message can only be deserialized by a wormhole receive");
    };
    if count == 0 {
        return Ok(Vec::new());
    }
    let claimed = ARRIVED.try_with(|arrived| {
        let mut arrived = arrived.borrow_mut();
        let claimed: Option<Vec<_>> = arrived.iter_mut().map(Option::take).collect();
        claimed.ok_or("an undecoded message must be the whole of a message")
    });
    claimed.map_err(|_| TORN_DOWN)?
}

/// Adds descriptors to the message that is being encoded, for something that is the whole of it.
pub(crate) fn carry_all(fds: &[Arc<OwnedFd>]) -> Result<(), &'static str> {
    let mut message = ENCODING.get();
    match message.purpose {
        Purpose::Foreign => {
            return Err("an undecoded message can only be serialized by a wormhole send");
        }
        _ if message.count > 0 => {
            return Err("an undecoded message must be the whole of a message");
        }
        Purpose::Search => {
            return fds
                .iter()
                .try_for_each(|fd| note(Found::Fd(fd.as_raw_fd())));
        }
        Purpose::Send => {}
    }
    message.count = fds.len();
    let pushed = CARRIED.try_with(|all| {
        let fds = fds.iter().take(MAX_FDS).cloned();
        all.borrow_mut().extend(fds.map(Carried::Shared));
    });
    pushed.map_err(|_| TORN_DOWN)?;
    message.carried = fds.len().min(MAX_FDS);
    ENCODING.set(message);
    Ok(())
}

/// Counts a blob of that length in the message that is being decoded. Says what is wrong if it is too much.
pub(crate) fn count_blob(len: u64) -> Result<(), String> {
    let Some(mut message) = DECODING.get() else {
        return Ok(());
    };
    message.blob_len = message.blob_len.saturating_add(len);
    DECODING.set(Some(message));
    let Decoding {
        blob_len,
        max_blob_len: limit,
        ..
    } = message;
    match blob_len <= limit {
        true => Ok(()),
        false => Err(format!(
            "blobs of {blob_len} bytes are longer than the limit of {limit} bytes"
        )),
    }
}

/// Reads an index and takes its descriptor out of the message that is being decoded.
pub(crate) fn claim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OwnedFd, D::Error> {
    let index = u64::deserialize(deserializer)?;
    let Some(Decoding { count, .. }) = DECODING.get() else {
        return Err(de::Error::custom(
            "a descriptor or a channel end can only be deserialized by a wormhole receive",
        ));
    };
    let claimed = ARRIVED.try_with(|arrived| {
        let mut arrived = arrived.borrow_mut();
        // With no descriptors of its own, the list is that of the message around this one.
        let own = arrived.get_mut(..count).unwrap_or_default();
        let place = usize::try_from(index).ok();
        match place.and_then(|place| own.get_mut(place)) {
            None => Err(format!(
                "descriptor {index} of a message that carries {count} (the first is 0)"
            )),
            Some(slot) => slot
                .take()
                .ok_or_else(|| format!("descriptor {index} was taken before")),
        }
    });
    claimed
        .unwrap_or_else(|_| Err(TORN_DOWN.to_owned()))
        .map_err(de::Error::custom)
}
