//! The part of a long message that does not fit its packet: a memfd that travels with it.

use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::fs::{MemfdFlags, fstat};
use rustix::io::{Errno, pread, retry_on_intr};

use crate::error::{Error, Result};
use crate::sys::memfd;

/// Puts `rest` into a fresh memfd.
pub(crate) fn write(rest: &[u8]) -> Result<OwnedFd> {
    let operation = "put a long message into a memfd";
    memfd::check_size(rest.len(), operation)?;
    let creation = "create the memfd (memfd_create) that a long message needs";
    let memfd = memfd::create(creation, MemfdFlags::empty())?;
    memfd::write(&memfd, rest, 0).map_err(|errno| Error::io(operation, errno))?;
    Ok(memfd)
}

/// Appends the `len` bytes of `memfd` to `text`, after checking that it is what the protocol says.
pub(crate) fn read(memfd: &OwnedFd, len: usize, text: &mut Vec<u8>) -> Result<()> {
    let failed = |errno: Errno| Error::io("read a long message from its memfd", errno);
    // A file of another kind could make the read below wait forever, say on a remote host.
    if memfd::seals(memfd).map_err(failed)?.is_none() {
        return Err(Error::malformed(format!(
            "the descriptor for the {len} bytes that the packet lacks is not a memfd"
        )));
    }
    let size = fstat(memfd).map_err(failed)?.st_size;
    if u64::try_from(size) != Ok(len as u64) {
        return Err(Error::malformed(format!(
            "the packet lacks {len} bytes and the memfd that came with it has {size}"
        )));
    }
    text.try_reserve_exact(len)
        .map_err(|_| Error::io("make room for a long message", Errno::NOMEM))?;
    let (start, end) = (text.len(), text.len() + len);
    while text.len() < end {
        let offset = (text.len() - start) as u64;
        // `pread`, not a mapping: a memfd that its sender shrinks now must not cause SIGBUS here.
        match retry_on_intr(|| pread(memfd, spare_capacity(text), offset)) {
            Ok(0) => {
                return Err(Error::malformed(
                    "the memfd of a long message was cut while it was read",
                ));
            }
            Ok(_) => {}
            Err(Errno::BADF) => {
                return Err(Error::malformed(
                    "the memfd of a long message is not open for reading",
                ));
            }
            Err(errno) => return Err(failed(errno)),
        }
    }
    text.truncate(end); // it may have grown
    Ok(())
}
