//! Each thread's memory for messages, so that a message costs no allocation but what its own value owns.
//!
//! There is one [`Outgoing`] and one [`Arriving`] for each thread. A message leases it as one pointer, and gives it
//! back when it is dropped. A message inside another one (a `Serialize` that sends on a second channel) finds none
//! and gets a fresh one, as does a thread that is being torn down.
//!
//! A long message leaves nothing behind. But fresh pages cost more than what is written to them, so when long
//! messages come one after the other, from the second on they leave their buffer to the next, until a shorter message
//! comes.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::thread::LocalKey;

use super::fields::Carried;
use crate::limits::MAX_PACKET;

/// Capacity, in bytes, up to which a buffer always waits for the next message: for texts of a megabyte and
/// their growth by doubling as well.
const KEEP: usize = 4 << 20;

/// Capacity up to which it does so between long messages: for texts of 16 MiB.
const KEEP_BETWEEN: usize = 32 << 20;

/// What a message needs on its way out.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// The whole packet, as if packets had no limit.
    pub(super) packet: Vec<u8>,
    /// The descriptors of its fields.
    pub(super) fds: Vec<Carried>,
    after_long: bool,
}

/// What a message needs on its way in.
#[derive(Debug, Default)]
pub(super) struct Arriving {
    /// Room for a packet. The bytes of earlier messages stay in it.
    pub(super) packet: Vec<u8>,
    /// The text of a message that did not fit its packet.
    pub(super) long_text: Vec<u8>,
    /// The descriptors that came. `None`: taken by a field.
    pub(super) fds: Vec<Option<OwnedFd>>,
    after_long: bool,
}

impl Arriving {
    /// Makes sure that there is room for a packet.
    #[inline]
    pub(super) fn make_room(&mut self) {
        if self.packet.len() != MAX_PACKET {
            self.packet = vec![0; MAX_PACKET]; // fresh zeroed memory, which takes up none until written to
        }
    }
}

/// Memory that a thread keeps from one message to the next.
pub(super) trait Scratch: Default + 'static {
    fn slot() -> &'static LocalKey<Cell<Option<Box<Self>>>>;

    /// Closes what the message has left, and gives back memory that is not worth keeping.
    fn tidy(&mut self);
}

thread_local! {
    static OUTGOING: Cell<Option<Box<Outgoing>>> = const { Cell::new(None) };
    static ARRIVING: Cell<Option<Box<Arriving>>> = const { Cell::new(None) };
}

impl Scratch for Outgoing {
    #[inline]
    fn slot() -> &'static LocalKey<Cell<Option<Box<Self>>>> {
        &OUTGOING
    }

    #[inline]
    fn tidy(&mut self) {
        if !self.fds.is_empty() {
            self.fds.clear();
        }
        trim(&mut self.packet, &mut self.after_long);
    }
}

impl Scratch for Arriving {
    #[inline]
    fn slot() -> &'static LocalKey<Cell<Option<Box<Self>>>> {
        &ARRIVING
    }

    #[inline]
    fn tidy(&mut self) {
        if !self.fds.is_empty() {
            self.fds.clear();
        }
        trim(&mut self.long_text, &mut self.after_long);
    }
}

/// Frees a buffer that is longer than it is worth, given the message that it has held.
#[inline]
fn trim(buffer: &mut Vec<u8>, after_long: &mut bool) {
    let long = buffer.len() > KEEP / 2;
    let keep = match *after_long && long {
        true => KEEP_BETWEEN,
        false => KEEP,
    };
    *after_long = long;
    if buffer.capacity() > keep {
        *buffer = Vec::new();
    }
}

/// A thread's memory of one kind, given back on drop.
// Boxed, so that it moves as one pointer. Always `Some` until it is dropped.
#[derive(Debug)]
pub(super) struct Lease<S: Scratch>(Option<Box<S>>);

impl<S: Scratch> Lease<S> {
    /// Takes the thread's memory, with the bytes that the last message left in it.
    #[inline]
    pub(super) fn take() -> Self {
        match S::slot().try_with(Cell::take) {
            Ok(Some(scratch)) => Lease(Some(scratch)),
            _ => Self::fresh(),
        }
    }

    #[cold]
    #[inline(never)]
    fn fresh() -> Self {
        Lease(Some(Box::default()))
    }
}

impl<S: Scratch> Deref for Lease<S> {
    type Target = S;

    #[inline]
    fn deref(&self) -> &S {
        match &self.0 {
            Some(scratch) => scratch,
            None => unreachable!("only `drop` takes it out"),
        }
    }
}

impl<S: Scratch> DerefMut for Lease<S> {
    #[inline]
    fn deref_mut(&mut self) -> &mut S {
        match &mut self.0 {
            Some(scratch) => scratch,
            None => unreachable!("only `drop` takes it out"),
        }
    }
}

impl<S: Scratch> Drop for Lease<S> {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut scratch) = self.0.take() {
            scratch.tidy();
            // A thread that is being torn down keeps nothing.
            let _ = S::slot().try_with(|slot| slot.set(Some(scratch)));
        }
    }
}
