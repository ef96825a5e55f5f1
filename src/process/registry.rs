//! The descriptors of this process that a spawned child must not have: the ends of channels, and the
//! pidfds of other children.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::{DupFlags, Errno, dup3, retry_on_intr};

/// Their numbers. A set of numbers rather than of owners: an owner may be anywhere in memory that the
/// child never looks at again, what keeps a channel open is the number.
static LIVE: Mutex<Numbers> = Mutex::new(Numbers(Vec::new()));

/// Keeps the registry as it is until dropped, for a fork: in the child, whoever else had it locked would
/// never unlock it.
pub(crate) fn lock() -> MutexGuard<'static, Numbers> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A descriptor that is registered for as long as it is open.
// The fields drop in this order: once the descriptor is closed, its number may be somebody else's.
#[derive(Debug)]
pub(crate) struct Registered {
    entry: Entry,
    fd: OwnedFd,
}

#[derive(Debug)]
struct Entry(RawFd);

impl Drop for Entry {
    fn drop(&mut self) {
        lock().remove(self.0);
    }
}

impl Registered {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        let number = fd.as_raw_fd();
        lock().insert(number);
        Registered {
            entry: Entry(number),
            fd,
        }
    }

    /// Gives up the descriptor, which children then inherit like any other.
    pub(crate) fn release(self) -> OwnedFd {
        drop(self.entry);
        self.fd
    }
}

impl AsFd for Registered {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A set of descriptor numbers: a bit for each.
#[derive(Debug, Default)]
pub(crate) struct Numbers(Vec<u64>);

impl Numbers {
    /// The word of the set that has the bit of `number`, and the bit.
    fn place(number: RawFd) -> Option<(usize, u64)> {
        let number = usize::try_from(number).ok()?;
        Some((number / 64, 1 << (number % 64)))
    }

    pub(crate) fn insert(&mut self, number: RawFd) {
        let Some((word, bit)) = Self::place(number) else {
            return;
        };
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    fn remove(&mut self, number: RawFd) {
        let Some((word, bit)) = Self::place(number) else {
            return;
        };
        if let Some(word) = self.0.get_mut(word) {
            *word &= !bit;
        }
    }

    fn iter(&self) -> impl Iterator<Item = RawFd> + '_ {
        (0..).step_by(64).zip(&self.0).flat_map(|(first, &word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| first + bit)
        })
    }

    /// Whether there is any number that is not in `keep`.
    pub(crate) fn exceeds(&self, keep: &Numbers) -> bool {
        self.beyond(keep).any(|word| word != 0)
    }

    /// Word by word, those that are not in `keep`.
    fn beyond(&self, keep: &Numbers) -> impl Iterator<Item = u64> {
        let kept = keep.0.iter().copied().chain(std::iter::repeat(0));
        self.0.iter().zip(kept).map(|(word, kept)| word & !kept)
    }

    /// Puts `dead` in the place of every registered descriptor but those of `keep`. For a child that has
    /// just been forked.
    ///
    /// They are not closed: then the next descriptor that is opened could get a number by which some
    /// forgotten value, in a static for instance, still calls its end.
    pub(crate) fn make_inert(&mut self, keep: &Numbers, dead: BorrowedFd<'_>) -> Result<(), Errno> {
        let strays = Numbers(self.beyond(keep).collect());
        for (word, stray) in self.0.iter_mut().zip(&strays.0) {
            *word &= !stray; // what is left is ours: other descriptors of the arguments are not
        }
        strays.iter().try_for_each(|number| replace(number, dead))
    }
}

/// Makes `number` a duplicate of `by`, instead of what it is.
fn replace(number: RawFd, by: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: a registered number is an open descriptor, owned by a `Registered`. The fork has left its
    // borrowers behind, and the owner goes on owning what stands in its place.
    #[allow(unsafe_code, reason = "the owner is out of reach")]
    let mut owned = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    retry_on_intr(|| dup3(by, &mut owned, DupFlags::CLOEXEC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_a_set() {
        let mut numbers = Numbers::default();
        for number in [64, 3, 1000, 63, 3, -1] {
            numbers.insert(number);
        }
        numbers.remove(1000);
        numbers.remove(5000);
        assert_eq!(numbers.iter().collect::<Vec<_>>(), [3, 63, 64]);
    }
}
