//! Files in memory: made and filled without ever being killed for it.

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, pwrite, retry_on_intr};
use rustix::process::{Resource, getrlimit};

use crate::error::{Error, Result};

/// Makes an empty memfd.
pub(crate) fn create(operation: &'static str, flags: MemfdFlags) -> Result<OwnedFd> {
    memfd_create("wormhole", MemfdFlags::CLOEXEC | flags)
        .map_err(|errno| Error::io(operation, errno))
}

/// Checks that this process may make a file of `len` bytes.
pub(crate) fn check_size(len: usize) -> Result<(), Errno> {
    // KERNEL: going beyond RLIMIT_FSIZE kills the process with SIGXFSZ, in a memfd as well
    // (`a_file_size_limit_is_an_error_and_no_signal`).
    match getrlimit(Resource::Fsize).current {
        Some(limit) if limit < len as u64 => Err(Errno::FBIG),
        _ => Ok(()),
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
