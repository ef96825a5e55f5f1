//! Memory that all processes of a run share, and that survives each of them: a memfd, mapped by all.
//!
//! It knows nothing of wormhole, so that no bug of it can hide in the account that is kept here. Processes
//! that are forked inherit the mapping; programs that are started open the memfd by its name in `/proc`.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::slice;
use std::sync::atomic::AtomicU64;

use anyhow::Context;
use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Shared words, all zero at first.
#[derive(Debug)]
pub(crate) struct Shared {
    map: MmapRaw,
    file: File,
}

impl Shared {
    /// Makes fresh memory. What is not written to takes up none.
    pub(crate) fn create(words: usize) -> anyhow::Result<Self> {
        let memfd = memfd_create("chaos-ledger", MFdFlags::MFD_CLOEXEC).context("memfd_create")?;
        let file = File::from(memfd);
        file.set_len(words as u64 * 8).context("size the ledger")?;
        Self::map(file)
    }

    /// Opens the memory of another process.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        Self::map(file.with_context(|| format!("open {}", path.display()))?)
    }

    fn map(file: File) -> anyhow::Result<Self> {
        let map = MmapOptions::new()
            .map_raw(&file)
            .context("map the ledger")?;
        Ok(Shared { map, file })
    }

    /// Where other processes find it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// All the words.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        let words = self.map.len() / size_of::<AtomicU64>();
        // SAFETY: the mapping is that long, aligned to a page, and lives as long as `self`; the memfd is never
        // made shorter. All processes access it through atomics only, for which every bit pattern is valid.
        #[allow(unsafe_code, reason = "memory that several processes share")]
        unsafe {
            slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), words)
        }
    }

    /// Makes all words zero, and gives their memory back.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let len = i64::try_from(self.map.len())?;
        fallocate(&self.file, flags, 0, len).context("clear the ledger")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn all_who_map_it_see_the_same_words_until_they_are_cleared() {
        let shared = Shared::create(10_000).unwrap();
        let other = Shared::open(Path::new(&shared.path())).unwrap();
        shared.words()[9_999].store(7, Ordering::SeqCst);
        assert_eq!(other.words()[9_999].load(Ordering::SeqCst), 7);
        shared.clear().unwrap();
        assert_eq!(other.words()[9_999].load(Ordering::SeqCst), 0);
    }
}
