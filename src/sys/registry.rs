//! The descriptors of this process that a spawned child must not have: the ends of channels, and the
//! pidfds of other children.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::{DupFlags, Errno, dup3, fcntl_dupfd_cloexec, retry_on_intr};

/// Their numbers, a bit for each, up to the largest that Linux gives out by default (`fs.nr_open`). Memory is
/// taken up only by the part that is used.
///
/// A set of numbers rather than of owners: an owner may be anywhere in memory that the child never looks
/// at again, what keeps a channel open is the number. And without a lock: after a fork by hand, another
/// thread's would stay locked in the child forever.
static LIVE: [AtomicUsize; (1 << 20) / BITS] = [const { AtomicUsize::new(0) }; (1 << 20) / BITS];

/// How many numbers a word has bits for.
const BITS: usize = usize::BITS as usize;

/// How many registered numbers lie beyond `LIVE`: there can be some where `fs.nr_open` was raised.
static BEYOND: AtomicUsize = AtomicUsize::new(0);

/// Whether there are registered descriptors that cannot be taken away from a child, because their numbers are too
/// large.
pub(crate) fn has_unknown_strays() -> bool {
    BEYOND.load(Ordering::Relaxed) > 0
}

/// How many words of `LIVE` have ever been used.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Where a set of numbers has the bit of one: in which word, and the bit.
fn place(number: RawFd) -> Option<(usize, usize)> {
    let number = usize::try_from(number).ok()?;
    Some((number / BITS, 1 << (number % BITS)))
}

// ORDERING: relaxed will do. Each bit changes with the opening and closing of its descriptor, and a fork has
// all that its own thread did before it.
fn register(number: RawFd) {
    if let Some((word, bit)) = place(number) {
        match LIVE.get(word) {
            Some(live) => {
                USED.fetch_max(word + 1, Ordering::Relaxed);
                live.fetch_or(bit, Ordering::Relaxed);
            }
            None => {
                BEYOND.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn unregister(number: RawFd) {
    if let Some((word, bit)) = place(number) {
        match LIVE.get(word) {
            Some(live) => {
                live.fetch_and(!bit, Ordering::Relaxed);
            }
            None => {
                BEYOND.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// The registered numbers that are not in `keep`.
pub(crate) fn strays(keep: &FdSet) -> FdSet {
    let kept = keep.0.iter().copied().chain(std::iter::repeat(0));
    let live = LIVE.iter().take(USED.load(Ordering::Relaxed));
    let words = live
        .zip(kept)
        .map(|(word, kept)| word.load(Ordering::Relaxed) & !kept);
    FdSet(words.collect())
}

/// Puts `dead` in the place of these descriptors, the registered ones among them. For a child that has just been forked.
///
/// They are not closed: then the next descriptor that is opened could get a number by which some forgotten
/// value, in a static for instance, still calls its end.
pub(crate) fn replace_by_dead(strays: &FdSet, dead: BorrowedFd<'_>) -> Result<(), Errno> {
    strays.iter().try_for_each(|number| {
        unregister(number);
        replace(number, dead)
    })
}

/// Closes a registered descriptor that only `owner` has, and nothing more: to drop it would free memory, and so
/// touch more of it. For a child that has just been forked.
pub(crate) fn close(owner: impl AsFd) {
    let number = owner.as_fd().as_raw_fd();
    std::mem::forget(owner);
    unregister(number);
    // SAFETY: its owner does not use or close it any more.
    #[allow(unsafe_code, reason = "the owner is forgotten")]
    unsafe {
        rustix::io::close(number);
    }
}

/// Numbers below are the standard streams, on which all of a program reads and writes without asking.
pub(crate) const FIRST: RawFd = 3;

/// Moves a descriptor out of the way of the standard streams: where one of them is closed, the next descriptor takes
/// its number, and what a panic prints would become a message.
///
/// It stays where it is if the process is out of descriptors.
pub(crate) fn above_streams(fd: OwnedFd) -> OwnedFd {
    match fd.as_raw_fd() {
        FIRST.. => fd,
        _ => fcntl_dupfd_cloexec(&fd, FIRST).unwrap_or(fd),
    }
}

/// A descriptor that is registered for as long as it is open.
// The fields drop in this order: once the descriptor is closed, its number may be another descriptor's.
#[derive(Debug)]
pub(crate) struct Registered {
    entry: Entry,
    fd: OwnedFd,
}

#[derive(Debug)]
struct Entry(RawFd);

impl Drop for Entry {
    fn drop(&mut self) {
        unregister(self.0);
    }
}

impl Registered {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        let fd = above_streams(fd);
        let number = fd.as_raw_fd();
        register(number);
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
pub(crate) struct FdSet(Vec<usize>);

impl FdSet {
    pub(crate) fn insert(&mut self, number: RawFd) {
        let Some((word, bit)) = place(number) else {
            return;
        };
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    pub(crate) fn contains(&self, number: RawFd) -> bool {
        let word = place(number).and_then(|(word, bit)| Some(self.0.get(word)? & bit));
        word.is_some_and(|bit| bit != 0)
    }

    pub(crate) fn remove(&mut self, number: RawFd) {
        if let Some((word, bit)) = place(number) {
            if let Some(word) = self.0.get_mut(word) {
                *word &= !bit;
            }
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = RawFd> + '_ {
        let bits = (0..).zip(&self.0).flat_map(|(place, &word)| {
            let set = (0..BITS).filter(move |bit| word >> bit & 1 == 1);
            set.map(move |bit| place * BITS + bit)
        });
        bits.filter_map(|number| RawFd::try_from(number).ok())
    }
}

/// Makes `number` a duplicate of `by`, instead of what it is. Closes it where that cannot be.
fn replace(number: RawFd, by: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the number is an open descriptor that something owns. The fork has left its
    // borrowers behind, and the owner goes on owning what stands in its place.
    #[allow(unsafe_code, reason = "the owner is out of reach")]
    let mut owned = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    match retry_on_intr(|| dup3(by, &mut owned, DupFlags::CLOEXEC)) {
        // KERNEL: dup2(2): the number is beyond RLIMIT_NOFILE, which was lowered since it was opened. Nothing
        // else can get it, so it may be free (`ends_beyond_a_limit_that_was_lowered_are_closed`).
        Err(Errno::BADF) => drop(ManuallyDrop::into_inner(owned)),
        replaced => replaced?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_a_set() {
        let mut numbers = FdSet::default();
        assert!(numbers.is_empty());
        for number in [64, 3, 1000, 63, 3, -1] {
            numbers.insert(number);
        }
        assert!(!numbers.is_empty());
        assert_eq!(numbers.iter().collect::<Vec<_>>(), [3, 63, 64, 1000]);
    }

    #[test]
    fn only_what_is_registered_and_not_kept_is_a_stray() {
        // FdSet that no test has open.
        let mut keep = FdSet::default();
        for number in [500_000, 500_001, 500_064] {
            register(number);
        }
        unregister(500_064);
        keep.insert(500_001);
        keep.insert(500_002);
        let strays: Vec<_> = strays(&keep)
            .iter()
            .filter(|&number| number >= 500_000)
            .collect();
        assert_eq!(strays, [500_000]);
        unregister(500_000);
        unregister(500_001);
        // Beyond the set: it is only known that there are some.
        assert!(!has_unknown_strays());
        register(RawFd::MAX);
        register(1 << 20);
        unregister(RawFd::MAX);
        assert!(has_unknown_strays());
        unregister(1 << 20);
        assert!(!has_unknown_strays());
    }
}
