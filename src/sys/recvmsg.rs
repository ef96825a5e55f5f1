//! Receiving a packet with its ancillary data: its descriptors, and what was not asked for.
//!
//! A process that shares a receiving socket can set options on it, before handing it over for example, that
//! make the kernel add things to every packet. With `SO_PASSPIDFD` that is a descriptor of the sending
//! process, which rustix passes over, so that it would stay open forever; with `SO_PASSCRED` it is a process
//! id that may be 0, which rustix's type for it cannot hold. Hence a walk of our own. Hence also a `recvmsg` of our
//! own, which knows how much the kernel has written: the buffer need not be zeroed for each message.

#![allow(
    unsafe_code,
    reason = "recvmsg takes pointers, and received descriptors are numbers in a buffer"
)]

use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::{io, slice};

use libc::{SCM_RIGHTS, SOL_SOCKET, c_int, iovec, msghdr};
use rustix::io::Errno;

use crate::limits::MAX_FDS;

/// Room for all descriptors of a packet, and for what a foreign holder of the socket may have asked for
/// (`SO_PASSCRED`, `SO_PASSSEC`, `SO_PASSPIDFD`), which must not push out descriptors.
const SIZE: usize = rustix::cmsg_space!(ScmRights(MAX_FDS), ScmCredentials(1)) + 320;

// KERNEL: include/linux/socket.h, since Linux 6.5.
const SCM_PIDFD: c_int = 4;

/// A buffer for ancillary data, aligned as control messages are.
#[repr(align(16))]
struct Space(MaybeUninit<[u8; SIZE]>);

/// Receives one packet into `buffer` by recvmsg(2), and hands its descriptors to `take`. Those that the kernel has
/// added are closed. Gives the result and the flags of the call.
#[inline]
pub(crate) fn recvmsg(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: c_int,
    take: impl FnMut(OwnedFd),
) -> Result<(usize, c_int), Errno> {
    let mut space = Space(MaybeUninit::uninit());
    let mut part = iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: null pointers, lengths of zero and no flags are valid.
    let mut header: msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = space.0.as_mut_ptr().cast();
    header.msg_controllen = SIZE as _;
    // SAFETY: `header` describes `buffer` and `space`, which are writable for as long as the call takes.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    let Ok(len) = usize::try_from(received) else {
        let error = io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    };
    if header.msg_controllen > 0 {
        let written = SIZE.min(header.msg_controllen as _);
        // SAFETY: that many bytes lie there, whether the kernel has written them or not.
        let control = unsafe { slice::from_raw_parts(space.0.as_ptr().cast(), written) };
        // SAFETY: these are the control messages that the kernel has written.
        unsafe { unpack(control, take) };
    }
    Ok((len, header.msg_flags))
}

/// Takes the descriptors out of ancillary data that was just received.
///
/// # Safety
///
/// As for [`walk`], and the kernel has opened these descriptors for this process, and nothing knows them yet.
unsafe fn unpack(control: &[MaybeUninit<u8>], mut take: impl FnMut(OwnedFd)) {
    let found = |kind, number| {
        // KERNEL: a negative number stands for the error that kept the kernel from opening a pidfd.
        if number < 0 || (kind != SCM_RIGHTS && kind != SCM_PIDFD) {
            return;
        }
        // SAFETY: as the caller has promised.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        if kind == SCM_RIGHTS {
            take(fd);
        }
    };
    // SAFETY: as the caller has promised.
    unsafe { walk(control, found) };
}

/// Walks over control messages, cmsg(3), up to one that is shorter than its own header. Gives the type of each, and
/// each number in it.
///
/// # Safety
///
/// The headers and the contents of these messages are initialized. The padding between them need not be, and is not
/// read.
unsafe fn walk(mut bytes: &[MaybeUninit<u8>], mut found: impl FnMut(i32, RawFd)) {
    const LEN: usize = size_of::<usize>();
    const HEADER: usize = LEN + 8;
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() {
        // SAFETY: a header is initialized.
        let header = unsafe { initialized(header) };
        let (len, kind) = header
            .split_first_chunk::<LEN>()
            .unwrap_or((&[0; LEN], &[]));
        let len = usize::from_ne_bytes(*len);
        if len < HEADER {
            return;
        }
        let mut kind = kind.chunks_exact(4).filter_map(<[u8]>::first_chunk);
        let (level, kind) = (kind.next(), kind.next());
        if let (Some(level), Some(kind)) = (level, kind) {
            let contents = rest.get(..len - HEADER).unwrap_or(rest);
            for number in contents.chunks_exact(4).filter_map(<[_]>::first_chunk) {
                if i32::from_ne_bytes(*level) == SOL_SOCKET {
                    // SAFETY: contents are initialized.
                    let number = unsafe { initialized(number) };
                    found(i32::from_ne_bytes(*kind), i32::from_ne_bytes(number));
                }
            }
        }
        let padded = len.checked_next_multiple_of(LEN);
        bytes = padded.and_then(|len| bytes.get(len..)).unwrap_or_default();
    }
}

/// Reads bytes that the kernel has written.
///
/// # Safety
///
/// It has.
unsafe fn initialized<const N: usize>(bytes: &[MaybeUninit<u8>; N]) -> [u8; N] {
    // SAFETY: bytes that are initialized can be read as what they are.
    unsafe { bytes.as_ptr().cast::<[u8; N]>().read() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A control message, and behind it padding that is not initialized, as the kernel leaves it.
    fn control(level: i32, kind: i32, payload: &[u8]) -> Vec<MaybeUninit<u8>> {
        let mut bytes = (size_of::<usize>() + 8 + payload.len())
            .to_ne_bytes()
            .to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(payload);
        let padded = bytes.len().next_multiple_of(size_of::<usize>());
        let mut message: Vec<_> = bytes.into_iter().map(MaybeUninit::new).collect();
        message.resize(padded, MaybeUninit::uninit());
        message
    }

    #[test]
    fn control_messages_of_all_kinds_and_lengths_are_walked_over() {
        let numbers = |numbers: &[i32]| -> Vec<u8> {
            numbers
                .iter()
                .flat_map(|number| number.to_ne_bytes())
                .collect()
        };
        // SAFETY: all of it is initialized but padding.
        let walk = |bytes: &[_], found: &mut dyn FnMut(_, _)| unsafe { walk(bytes, found) };
        let bytes = [
            control(SOL_SOCKET, 1, &[]), // an empty one does not end it
            control(SOL_SOCKET, 2, &numbers(&[0, 7, 8])),
            control(SOL_SOCKET, SCM_PIDFD, &numbers(&[9])),
            control(SOL_SOCKET, 3, b"label\0"),
            control(41, SCM_RIGHTS, &numbers(&[10])),
            control(SOL_SOCKET, SCM_RIGHTS, &numbers(&[11, 12, 13])),
            vec![MaybeUninit::new(0); 100],
        ]
        .concat();
        let mut seen = Vec::new();
        walk(&bytes, &mut |kind, number| seen.push((kind, number)));
        seen.retain(|(kind, _)| [SCM_RIGHTS, SCM_PIDFD].contains(kind));
        assert_eq!(seen, [(4, 9), (1, 11), (1, 12), (1, 13)]);
        for len in 0..bytes.len() {
            walk(bytes.get(..len).unwrap(), &mut |_, _| {}); // cut anywhere: no panic
        }
        walk(&[MaybeUninit::new(0xff); 100], &mut |_, _| {});
    }
}
