//! A socket of a channel: one packet out, one packet in.
//!
//! Everything here is one attempt. Waiting is in `wait`.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread, retry_on_intr};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags,
    SocketType, getpeername, send, sendmsg, shutdown, socketpair, sockopt,
};

use super::recvmsg;
use super::registry::Registered;
use crate::error::{Error, Result};
use crate::limits::{MAX_FDS, MAX_PACKET};
use crate::options::DEFAULT_SPIN;
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
pub(crate) fn pair(buffer: Option<usize>, spin: Duration) -> Result<(Socket, Socket)> {
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
    if let Some(bytes) = buffer {
        set_buffer(&sending, bytes)?;
    }
    let socket = |fd| Socket::with_spin(fd, spin);
    Ok((socket(sending), socket(receiving)))
}

/// Makes a socket whose peer is gone: who sends or receives on it is told so.
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

pub(super) fn set_buffer(sending: &OwnedFd, bytes: usize) -> Result<()> {
    let failed = |source| Error::io("set the size of the channel's buffer", source);
    // KERNEL: socket(7): the kernel doubles what is asked, after cutting it to net.core.wmem_max.
    sockopt::set_socket_send_buffer_size(sending, bytes)
        .map_err(|errno| failed(io::Error::from(errno)))?;
    let granted = buffer_size(sending.as_fd()).map_err(|errno| failed(errno.into()))? / 2;
    if granted < bytes {
        let reason =
            format!("{bytes} bytes asked for, net.core.wmem_max of this machine allows {granted}");
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, reason)));
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
    pub(crate) fn adopt(fd: OwnedFd) -> Result<Self> {
        Self::check(fd.as_fd())?;
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

    /// Sends one packet, whole or not at all. With `may_block` false it says `AGAIN` instead of waiting.
    pub(crate) fn send(
        &self,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
        may_block: bool,
    ) -> Result<(), Errno> {
        let mut flags = SendFlags::NOSIGNAL;
        flags.set(SendFlags::DONTWAIT, !may_block);
        // KERNEL: a SOCK_SEQPACKET send is atomic: it never takes a part of the packet.
        if fds.is_empty() {
            return send(self, bytes, flags).map(drop);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::INVAL); // more than `MAX_FDS`, which callers check
        }
        sendmsg(self, &[IoSlice::new(bytes)], &mut ancillary, flags).map(drop)
    }

    /// Receives one packet into `buffer`, and hands its descriptors to `take`. With `may_block` false it says
    /// `AGAIN` instead of waiting.
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
                match self.what_nothing_means() {
                    Nothing::End => return Ok(Received::End),
                    Nothing::Miss => continue,
                    Nothing::EmptyPacket => {}
                }
            }
            return Ok(Received::Packet { len, lost });
        }
    }

    /// Finds out why a receive gave no bytes.
    fn what_nothing_means(&self) -> Nothing {
        // KERNEL: RDHUP is set, for good, when the last copy of the peer closes or shuts down.
        let mut peer = [PollFd::new(self, PollFlags::RDHUP)];
        let now = Timespec::default();
        // Where a sandbox denies these calls (an RLIMIT_NOFILE of 0 denies poll), it can only be taken for
        // the end, which is what it nearly always is.
        let polled = retry_on_intr(|| poll(&mut peer, Some(&now)));
        let gone = peer
            .iter()
            .any(|fd| fd.revents().contains(PollFlags::RDHUP));
        if polled.is_ok() && !gone {
            return Nothing::EmptyPacket;
        }
        // KERNEL: a receive that finds the queue empty looks only then whether the sender is gone, which may
        // have sent and closed meanwhile (`a_last_message_just_before_the_end_is_received`). For a
        // SEQPACKET socket FIONREAD is the sum of the queued packets (unix_inq_len).
        match ioctl_fionread(self) {
            Ok(queued) if queued > 0 => Nothing::Miss,
            _ => Nothing::End,
        }
    }
}

/// Why a receive gave no bytes.
enum Nothing {
    /// The queue is empty and nobody is left who could send.
    End,
    /// Packets are queued that it did not see.
    Miss,
    EmptyPacket,
}

/// What one receive gave.
#[derive(Debug)]
pub(crate) enum Received {
    /// A packet of `len` bytes, which may be more than the buffer holds. `lost`: some of its
    /// descriptors did not make it into this process.
    Packet { len: usize, lost: bool },
    /// Nothing is queued and nobody is left who could send.
    End,
}
