//! Files in memory: made and filled without ever being killed for it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_get_seals, memfd_create};
use rustix::io::{Errno, pwrite, retry_on_intr};

use super::registry::above_streams;
use crate::error::{Error, Result};

/// Makes an empty memfd.
pub(crate) fn create(operation: &'static str, flags: MemfdFlags) -> Result<OwnedFd> {
    memfd_create("wormhole", MemfdFlags::CLOEXEC | flags)
        .map(above_streams)
        .map_err(|errno| Error::io(operation, errno))
}

/// Checks that this process may make a file of `len` bytes, for an operation of that name.
pub(crate) fn check_size(len: usize, operation: &'static str) -> Result<()> {
    // KERNEL: going beyond RLIMIT_FSIZE kills the process with SIGXFSZ, in a memfd as well
    // (`a_file_size_limit_is_an_error_and_no_signal`).
    // rustix takes it for granted that this succeeds, and in a sandbox that denies it gives uninitialized memory
    // (`a_sandbox_that_denies_prlimit64_gets_an_error`).
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a `rlimit`.
    #[allow(unsafe_code, reason = "no safe way to look up a limit and fail")]
    let status = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    if status != 0 {
        let operation = "look up the limit of file sizes (prlimit64)";
        return Err(Error::io(operation, io::Error::last_os_error()));
    }
    // Without a limit it is the largest number.
    match usize::try_from(limit.rlim_cur) {
        Ok(limit) if limit < len => Err(Error::io(operation, Errno::FBIG)),
        _ => Ok(()),
    }
}

/// The seals of a descriptor that came from elsewhere, or `None` if it is not a file in memory.
pub(crate) fn seals(fd: &OwnedFd) -> Result<Option<SealFlags>, Errno> {
    // KERNEL: F_GET_SEALS answers for files in memory only, fcntl(2). A descriptor that is a mere path (O_PATH)
    // has no operations at all.
    match fcntl_get_seals(fd) {
        Ok(seals) => Ok(Some(seals)),
        Err(Errno::INVAL | Errno::BADF) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Writes `bytes` at an offset of a file whose size has been checked.
pub(crate) fn write(memfd: &OwnedFd, bytes: &[u8], offset: usize) -> Result<(), Errno> {
    let mut written = 0;
    while let Some(left) = bytes.get(written..).filter(|left| !left.is_empty()) {
        match retry_on_intr(|| pwrite(memfd, left, (offset + written) as u64))? {
            0 => return Err(Errno::IO),
            count => written += count,
        }
    }
    Ok(())
}
