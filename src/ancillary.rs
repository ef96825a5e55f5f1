//! Room for the ancillary data of a received packet, and the descriptors in it that nobody asked for.
//!
//! Whoever shares a receiving socket can set `SO_PASSPIDFD` on it, before handing it over for example. From
//! then on the kernel opens a descriptor of the sending process with every packet that is received.
//! rustix passes over control messages that it does not know, so these would stay open for ever.

#![allow(unsafe_code, reason = "received descriptors are numbers in a buffer")]

use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use crate::socket::MAX_FDS;

/// Room for all descriptors of a packet, and for what a foreign holder of the socket may have asked for
/// (`SO_PASSCRED`, `SO_PASSSEC`, `SO_PASSPIDFD`), which must not push out descriptors.
const SIZE: usize = rustix::cmsg_space!(ScmRights(MAX_FDS), ScmCredentials(1)) + 320;

// KERNEL: include/linux/socket.h, since Linux 6.5.
const SOL_SOCKET: i32 = 1;
const SCM_PIDFD: i32 = 4;

/// A buffer for ancillary data, aligned as control messages are, and zero where the kernel has not written.
#[repr(align(16))]
pub(crate) struct Space([MaybeUninit<u8>; SIZE]);

impl Space {
    pub(crate) fn new() -> Self {
        Space([MaybeUninit::new(0); SIZE])
    }

    pub(crate) fn as_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        &mut self.0
    }

    /// Closes the pidfds that came with a packet. To be called once, after the packet's own descriptors
    /// have been taken.
    pub(crate) fn close_pidfds(self) {
        // SAFETY: every byte was initialized by `new`, and since then only overwritten.
        let bytes = self.0.map(|byte| unsafe { byte.assume_init() });
        pidfds(&bytes, |fd| {
            // SAFETY: the kernel has opened it for this process with this packet, nobody else knows it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        });
    }
}

/// Walks over control messages, cmsg(3), up to the first of length zero.
fn pidfds(mut bytes: &[u8], mut found: impl FnMut(RawFd)) {
    const WORD: usize = size_of::<usize>();
    while let Some((len, rest)) = bytes.split_first_chunk::<WORD>() {
        let len = usize::from_ne_bytes(*len);
        let Some(payload) = len.checked_sub(WORD + 8) else {
            return;
        };
        let mut numbers = rest.chunks_exact(4).map(|number| {
            number
                .first_chunk()
                .map_or(-1, |number| i32::from_ne_bytes(*number))
        });
        let kind = (numbers.next(), numbers.next());
        if kind == (Some(SOL_SOCKET), Some(SCM_PIDFD)) && payload >= 4 {
            // KERNEL: a negative number stands for the error that kept the kernel from opening one.
            numbers
                .next()
                .filter(|&fd| fd >= 0)
                .into_iter()
                .for_each(&mut found);
        }
        bytes = bytes.get(len.next_multiple_of(WORD)..).unwrap_or_default();
    }
}
