//! Per-thread buffers, so that a message costs no allocation but what its own value owns.
//!
//! A buffer is leased for the length of one call. A call that starts inside another one (a `Serialize`
//! that sends on a second channel) finds none and gets a fresh one.

use std::cell::Cell;
use std::mem::{needs_drop, take};
use std::ops::{Deref, DerefMut};
use std::thread::LocalKey;

/// Capacity, in elements, above which a buffer goes back to the allocator instead of waiting for the
/// next message. Fresh pages cost more than what is written to them, so it is for texts of a megabyte and their
/// growth by doubling as well.
const KEEP: usize = 4 << 20;

pub(crate) type Slot<E> = LocalKey<Cell<Vec<E>>>;

/// A thread's buffer, given back on drop.
#[derive(Debug)]
pub(crate) struct Lease<E: 'static> {
    vec: Vec<E>,
    slot: &'static Slot<E>,
}

impl<E> Lease<E> {
    /// Takes the thread's buffer, with the contents that the last message left in it.
    pub(crate) fn take(slot: &'static Slot<E>) -> Self {
        // While the thread is being torn down there are no thread-locals: then it is a plain `Vec`.
        let vec = slot.try_with(Cell::take).unwrap_or_default();
        Lease { vec, slot }
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
        if needs_drop::<E>() {
            self.vec.clear(); // descriptors are closed now, bytes may stay
        }
        if self.vec.capacity() <= KEEP {
            let vec = take(&mut self.vec);
            let _ = self.slot.try_with(|slot| slot.set(vec));
        }
    }
}
