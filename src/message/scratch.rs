//! Per-thread buffers, so that a message costs no allocation but what its own value owns.
//!
//! A buffer is leased for the length of one call. A call that starts inside another one (a `Serialize`
//! that sends on a second channel) finds none and gets a fresh one.

//!
//! A long message leaves nothing behind. But fresh pages cost more than what is written to them, so when long
//! messages come one after the other, from the second on they leave their buffer to the next, until a shorter message
//! comes.

use std::cell::Cell;
use std::mem::{needs_drop, take};
use std::ops::{Deref, DerefMut};
use std::thread::LocalKey;

/// Capacity, in elements, up to which a buffer always waits for the next message: for texts of a megabyte and
/// their growth by doubling as well.
const KEEP: usize = 4 << 20;

/// Capacity up to which it does so between long messages: for texts of 16 MiB.
const KEEP_BETWEEN: usize = 32 << 20;

pub(crate) type Slot<E> = LocalKey<Cell<Spare<E>>>;

/// What a thread has for the next message.
#[derive(Debug)]
pub(crate) struct Spare<E> {
    vec: Vec<E>,
    /// Whether the last message was a long one.
    after_long: bool,
}

impl<E> Spare<E> {
    pub(crate) const NONE: Self = Spare {
        vec: Vec::new(),
        after_long: false,
    };
}

impl<E> Default for Spare<E> {
    fn default() -> Self {
        Self::NONE
    }
}

/// A thread's buffer, given back on drop.
#[derive(Debug)]
pub(crate) struct Lease<E: 'static> {
    vec: Vec<E>,
    after_long: bool,
    slot: &'static Slot<E>,
}

impl<E> Lease<E> {
    /// Takes the thread's buffer, with the contents that the last message left in it.
    pub(crate) fn take(slot: &'static Slot<E>) -> Self {
        // While the thread is being torn down there are no thread-locals: then it is a plain `Vec`.
        let Spare { vec, after_long } = slot.try_with(Cell::take).unwrap_or_default();
        Lease {
            vec,
            after_long,
            slot,
        }
    }

    /// Tells a buffer that a message came which does not need it.
    pub(crate) fn skip(slot: &'static Slot<E>) {
        Self::take(slot).clear();
    }
}

impl<E> Deref for Lease<E> {
    type Target = Vec<E>;

    fn deref(&self) -> &Vec<E> {
        &self.vec
    }
}

impl<E> DerefMut for Lease<E> {
    fn deref_mut(&mut self) -> &mut Vec<E> {
        &mut self.vec
    }
}

impl<E> Drop for Lease<E> {
    fn drop(&mut self) {
        let long = self.vec.len() > KEEP / 2;
        if needs_drop::<E>() {
            self.vec.clear(); // descriptors are closed now, bytes may stay
        }
        let keep = match self.after_long && long {
            true => KEEP_BETWEEN,
            false => KEEP,
        };
        let mut spare = Spare {
            vec: take(&mut self.vec),
            after_long: long,
        };
        if spare.vec.capacity() > keep {
            spare.vec = Vec::new();
        }
        let _ = self.slot.try_with(|slot| slot.set(spare));
    }
}
