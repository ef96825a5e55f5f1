//! A socket of a channel: one packet out, one packet in.
//!
//! Everything here is one attempt. Waiting is in `wait`.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fstat;
use rustix::io::{Errno, ioctl_fionread, retry_on_intr};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags,
    SocketType, getpeername, send, sendmsg, shutdown, socketpair, sockopt,
};

use super::recvmsg;
use super::registry::Registered;
use crate::error::{Error, Result};
use crate::limits::{MAX_FDS, MAX_PACKET};
use crate::options::{BufferSize, DEFAULT_SPIN};
use crate::wait::Spin;

/// A socket that is one end of a channel. All clones of an end within a process share one.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: Registered,
    pub(super) spin: Spin,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes the two sockets of a channel, the sending one first.
pub(crate) fn pair(buffer: BufferSize, spin: Duration) -> Result<(Socket, Socket)> {
    let (sending, receiving) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|errno| Error::io("create a socket pair", errno))?;
    // KERNEL: were this direction open, a receiver that writes backwards would make its next receive
    // fail with ECONNRESET once the sender closes (`a_receiver_that_writes_backwards_costs_nothing`).
    shutdown(&receiving, Shutdown::Write)
        .map_err(|errno| Error::io("make a socket pair one-way", errno))?;
    set_buffer(&sending, buffer)?;
    let socket = |fd| Socket::with_spin(fd, spin);
    Ok((socket(sending), socket(receiving)))
}

/// Makes a socket whose peer is gone: all sends and receives on it say so.
pub(crate) fn dead() -> Result<OwnedFd> {
    let (dead, _) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|errno| Error::io("create a socket pair", errno))?;
    Ok(dead)
}

pub(super) fn set_buffer(sending: &OwnedFd, size: BufferSize) -> Result<()> {
    let (bytes, is_exact) = match size {
        BufferSize::Default => return Ok(()),
        BufferSize::Exactly(bytes) => (bytes, true),
        BufferSize::UpTo(bytes) => (bytes, false),
    };
    let failed = |source| Error::io("set the size of the channel's buffer", source);
    // KERNEL: socket(7): the kernel doubles what is asked, after cutting it to net.core.wmem_max. It takes the
    // number for an `int`.
    let asked = bytes.min(i32::MAX as usize);
    sockopt::set_socket_send_buffer_size(sending, asked)
        .map_err(|errno| failed(io::Error::from(errno)))?;
    if is_exact {
        let granted = buffer_size(sending.as_fd()).map_err(|errno| failed(errno.into()))? / 2;
        if granted < bytes {
            let reason = format!(
                "{bytes} bytes asked for, net.core.wmem_max of this machine allows {granted}"
            );
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, reason)));
        }
    }
    Ok(())
}

fn buffer_size(sending: BorrowedFd<'_>) -> Result<usize, Errno> {
    sockopt::socket_send_buffer_size(sending)
}

impl Socket {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self::with_spin(fd, DEFAULT_SPIN)
    }

    pub(super) fn with_spin(fd: OwnedFd, limit: Duration) -> Self {
        Socket {
            fd: Registered::new(fd),
            spin: Spin::new(limit),
        }
    }

    pub(crate) fn spin(&self) -> &Spin {
        &self.spin
    }

    /// Takes over a descriptor that came from elsewhere, after checking what it is.
    pub(crate) fn adopt(fd: OwnedFd, direction: Direction) -> Result<Self> {
        Self::check(fd.as_fd())?;
        direction.check(fd.as_fd())?;
        Ok(Socket::new(fd))
    }

    /// Checks that a descriptor can be an end of a channel.
    pub(crate) fn check(fd: BorrowedFd<'_>) -> Result<()> {
        Self::check_kind(fd)?;
        // KERNEL: a socket whose peer has closed still has a peer name; one that was never connected,
        // or that listens, has none (`ends_are_checked_when_made_from_descriptors`).
        match getpeername(fd) {
            Ok(_) => Ok(()),
            Err(Errno::NOTCONN) => Err(Error::NotAChannel {
                reason: "a unix socket that is not connected".to_owned(),
            }),
            Err(errno) => Err(Error::io("look up the peer of a socket", errno)),
        }
    }

    /// Device and inode: the same for all duplicates of the socket, in every process.
    pub(crate) fn id(&self) -> Result<(u64, u64), Errno> {
        let found = fstat(self)?;
        Ok((found.st_dev, found.st_ino))
    }

    /// Whether every copy of the peer is gone. `false` if that cannot be asked.
    pub(crate) fn is_hung_up(&self) -> bool {
        events(self.as_fd(), PollFlags::empty()).is_ok_and(|now| now.contains(PollFlags::HUP))
    }

    /// Checks that a descriptor is a unix socket of the right type.
    pub(super) fn check_kind(fd: BorrowedFd<'_>) -> Result<()> {
        let refused = |reason: String| Err(Error::NotAChannel { reason });
        let failed = |errno| Error::io("look up the type of a socket", errno);
        let domain = match sockopt::socket_domain(fd) {
            // KERNEL: not a socket; or a mere path (O_PATH).
            Err(errno @ (Errno::NOTSOCK | Errno::BADF)) => {
                return refused(io::Error::from(errno).to_string());
            }
            domain => domain.map_err(failed)?,
        };
        let kind = sockopt::socket_type(fd).map_err(failed)?;
        if domain != AddressFamily::UNIX {
            return refused(format!(
                "a socket of family {}, not AF_UNIX",
                domain.as_raw()
            ));
        }
        if kind != SocketType::SEQPACKET {
            return refused(format!(
                "a unix socket of type {}, not SOCK_SEQPACKET",
                kind.as_raw()
            ));
        }
        Ok(())
    }

    /// Gives up the descriptor, or a duplicate if other clones of the end still use it.
    pub(crate) fn release(socket: Arc<Self>) -> Result<OwnedFd> {
        match Arc::try_unwrap(socket) {
            Ok(socket) => Ok(socket.fd.release()),
            Err(shared) => shared.duplicate_fd(),
        }
    }

    /// Makes a second socket of the same end of the channel.
    pub(crate) fn duplicate(&self) -> Result<Self> {
        let fd = self.duplicate_fd()?;
        Ok(Self::with_spin(fd, self.spin.limit()))
    }

    fn duplicate_fd(&self) -> Result<OwnedFd> {
        let fd = self.as_fd().try_clone_to_owned();
        fd.map_err(|error| Error::io("duplicate the descriptor of a channel end", error))
    }

    /// The longest packet that this end's buffer takes, and that a receiver expects.
    pub(crate) fn packet_limit(&self) -> Result<usize, Errno> {
        // KERNEL: unix sockets refuse a packet longer than their send buffer less 32 bytes
        // (`a_message_fills_the_packet_to_the_last_byte`).
        Ok(buffer_size(self.as_fd())?
            .saturating_sub(32)
            .min(MAX_PACKET))
    }

    /// Whether there is room for a packet. `true` if that cannot be asked.
    pub(crate) fn has_room(&self) -> bool {
        // KERNEL: a send waits while as much is queued as the buffer has (sock_alloc_send_pskb). How much that is, in the
        // same measure, is the answer to SIOCOUTQ (unix_outq_len), which is TIOCOUTQ by another name.
        let mut queued: libc::c_int = 0;
        // SAFETY: the pointer is to an `int`, which the kernel fills in.
        #[allow(unsafe_code, reason = "rustix does not have it")]
        let status =
            unsafe { libc::ioctl(self.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) };
        let Ok(size) = buffer_size(self.as_fd()) else {
            return true;
        };
        status != 0 || usize::try_from(queued).is_ok_and(|queued| queued < size)
    }

    /// Sends one packet, whole or not at all. With `may_block` false it says `AGAIN` instead of waiting.
    #[inline]
    pub(crate) fn send(
        &self,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
        may_block: bool,
    ) -> Result<(), Errno> {
        let mut flags = SendFlags::NOSIGNAL;
        flags.set(SendFlags::DONTWAIT, !may_block);
        // KERNEL: a SOCK_SEQPACKET send is atomic: it never takes a part of the packet.
        if fds.is_empty() && !SENDTO_IS_DENIED.load(Ordering::Relaxed) {
            match send(self, bytes, flags) {
                // Some sandboxes allow sendmsg(2) and not the sendto(2) that this is.
                Err(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => {
                    SENDTO_IS_DENIED.store(true, Ordering::Relaxed);
                }
                sent => return sent.map(drop),
            }
        }
        self.send_with_fds(bytes, fds, flags)
    }

    fn send_with_fds(
        &self,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::INVAL); // more than `MAX_FDS`, which callers check
        }
        sendmsg(self, &[IoSlice::new(bytes)], &mut ancillary, flags).map(drop)
    }

    /// Receives one packet into `buffer`, and hands its descriptors to `take`. With `may_block` false it says
    /// `AGAIN` instead of waiting.
    #[inline]
    pub(crate) fn recv(
        &self,
        buffer: &mut [u8],
        mut take: impl FnMut(OwnedFd),
        may_block: bool,
    ) -> Result<Received, Errno> {
        // `TRUNC` asks for the length of the packet even if the buffer is shorter.
        let mut flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_TRUNC;
        if !may_block {
            flags |= libc::MSG_DONTWAIT;
        }
        loop {
            let mut bare = true;
            let received = recvmsg::recvmsg(self.as_fd(), buffer, flags, |fd| {
                bare = false;
                take(fd);
            });
            let (len, flags) = match received {
                // KERNEL: the sender closed with bytes unread that were sent backwards to it, through a
                // socket pair that is not one-way. Reported once, ahead of what is still queued.
                Err(Errno::CONNRESET) => continue,
                received => received?,
            };
            let lost = flags & libc::MSG_CTRUNC != 0;
            if len == 0 && bare && !lost {
                match self.why_empty() {
                    Empty::Disconnected => return Ok(Received::Disconnected),
                    Empty::TooEarly => continue,
                    Empty::Packet => {}
                }
            }
            return Ok(Received::Packet { len, lost });
        }
    }

    /// Finds out why a receive gave no bytes.
    #[cold]
    fn why_empty(&self) -> Empty {
        // KERNEL: RDHUP is set, for good, when the last copy of the peer closes or shuts down.
        // Where a sandbox denies these calls (an RLIMIT_NOFILE of 0 denies poll), it can only be taken for
        // the end of the channel, which is what it nearly always is.
        match events(self.as_fd(), PollFlags::RDHUP) {
            Ok(now) if !now.contains(PollFlags::RDHUP) => return Empty::Packet,
            _ => {}
        }
        // KERNEL: a receive that finds the queue empty looks only then whether the sender is gone, which may
        // have sent and closed meanwhile (`a_last_message_just_before_the_end_is_received`). For a
        // SEQPACKET socket FIONREAD is the sum of the queued packets (unix_inq_len).
        match ioctl_fionread(self) {
            Ok(queued) if queued > 0 => Empty::TooEarly,
            _ => Empty::Disconnected,
        }
    }
}

/// Which events of `asked`, hang-ups and errors a descriptor has now.
pub(super) fn events(fd: BorrowedFd<'_>, asked: PollFlags) -> Result<PollFlags, Errno> {
    let mut polled = [PollFd::from_borrowed_fd(fd, asked)];
    retry_on_intr(|| poll(&mut polled, Some(&Timespec::default())))?;
    let [polled] = polled;
    Ok(polled.revents())
}

/// Whether a descriptor is readable, or at its end, or in error. `false` if that cannot be asked.
#[cfg(any(feature = "tokio", feature = "async-io"))]
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    events(fd, PollFlags::IN).is_ok_and(|now| !now.is_empty())
}

/// Why a receive gave no bytes.
enum Empty {
    /// The queue is empty and no sender is left.
    Disconnected,
    /// Packets are queued that it did not see.
    TooEarly,
    /// A packet without bytes came.
    Packet,
}

/// Whether a socket is to send or to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Sending,
    Receiving,
}

impl Direction {
    /// Checks that a socket can be the end of a channel with this direction, as far as that can be told: no longer
    /// when its peer is gone, or where a sandbox denies to ask.
    fn check(self, socket: BorrowedFd<'_>) -> Result<()> {
        let refused = |reason: &str| {
            let reason = reason.to_owned();
            Err(Error::NotAChannel { reason })
        };
        // KERNEL: a receiving socket has shut down its writing, so while it lives its peer, and only that, polls
        // RDHUP without HUP (`an_end_of_the_other_direction_is_refused`).
        let Ok(now) = events(socket, PollFlags::RDHUP) else {
            return Ok(());
        };
        let is_sending = now.contains(PollFlags::RDHUP);
        // A peer that has gone since then makes this a socket that cannot write, too.
        let is_gone =
            || events(socket, PollFlags::RDHUP).is_ok_and(|now| now.contains(PollFlags::HUP));
        match self {
            _ if now.contains(PollFlags::HUP) => Ok(()),
            Direction::Receiving if is_sending => {
                refused("it is the sending end of a channel, not the receiving one")
            }
            Direction::Sending if !is_sending && cannot_write(socket) && !is_gone() => {
                refused("it is the receiving end of a channel, not the sending one")
            }
            _ => Ok(()),
        }
    }
}

/// Whether a socket has shut down its writing. Those of foreign pairs that are not one-way have not.
fn cannot_write(socket: BorrowedFd<'_>) -> bool {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // KERNEL: of a send the socket's own shutdown is looked at first (sock_alloc_send_pskb), which is EPIPE. What is
    // to be sent is copied later, so one that reads a byte from nowhere is EFAULT and sends nothing.
    // SAFETY: the kernel checks the address, and finds nothing there.
    #[allow(unsafe_code, reason = "an address that no reference can have")]
    let sent = unsafe { libc::send(socket.as_raw_fd(), ptr::null(), 1, flags) };
    sent < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EPIPE)
}

/// Whether plain sends have failed because a sandbox denies sendto(2).
static SENDTO_IS_DENIED: AtomicBool = AtomicBool::new(false);

/// What one receive gave.
#[derive(Debug)]
pub(crate) enum Received {
    /// A packet of `len` bytes, which may be more than the buffer holds. `lost`: some of its
    /// descriptors did not make it into this process.
    Packet { len: usize, lost: bool },
    /// Nothing is queued and no sender is left.
    Disconnected,
}
