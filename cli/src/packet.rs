//! Packets as they are, for `tap`: the library gives only what is a message, and writes it anew.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, ioctl_fionread};
use rustix::net::sockopt::{set_socket_send_buffer_size, socket_send_buffer_size};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The longest packet.
pub(crate) const MAX_PACKET: usize = 256 * 1024;

/// The most descriptors that a packet carries.
const MAX_FDS: usize = 253;

const CONTROL: usize = rustix::cmsg_space!(ScmRights(MAX_FDS), ScmCredentials(1));

/// What a receive gave.
#[derive(Debug)]
pub(crate) enum Came {
    /// A packet of that many bytes, with descriptors.
    Packet(usize, Vec<OwnedFd>),
    /// A packet that cannot be passed on as it is, and why.
    Lost(&'static str),
    /// Nothing yet.
    Nothing,
    /// The sender has gone, and all that it sent has been received.
    End,
}

/// Receives a packet into `buffer`, which has `MAX_PACKET` bytes. Never blocks.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Came> {
    let mut space = [MaybeUninit::uninit(); CONTROL];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(Came::Nothing),
            // KERNEL: the other side has closed without reading something; what it sent is still there.
            Err(Errno::CONNRESET) => return Ok(Came::Nothing),
            received => break received?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Ok(Came::Lost(
            "its descriptors did not come, this program is out of them",
        ));
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Ok(Came::Lost(
            "it is longer than 262144 bytes, as no packet may be",
        ));
    }
    if received.bytes == 0 && fds.is_empty() && has_gone(socket)? {
        return match ioctl_fionread(socket)? {
            0 => Ok(Came::End),
            _ => Ok(Came::Nothing),
        };
    }
    Ok(Came::Packet(received.bytes, fds))
}

/// Whether the sender of a receiving socket has gone.
fn has_gone(socket: BorrowedFd<'_>) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
    poll(&mut polled, Some(&Timespec::default()))?;
    let [polled] = polled;
    Ok(polled
        .revents()
        .intersects(PollFlags::RDHUP | PollFlags::HUP))
}

/// Sends a packet. Never blocks: `AGAIN` means that there is no room.
pub(crate) fn send(socket: BorrowedFd<'_>, packet: &[u8], fds: &[OwnedFd]) -> Result<(), Errno> {
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); CONTROL];
    let mut widened = false;
    loop {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
            return Err(Errno::TOOMANYREFS);
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match sendmsg(socket, &[IoSlice::new(packet)], &mut control, flags) {
            Err(Errno::INTR) => {}
            // The client's buffer is larger than this program's.
            Err(Errno::MSGSIZE) if !widened => {
                widened = true;
                let size = socket_send_buffer_size(socket)?.max(MAX_PACKET);
                set_socket_send_buffer_size(socket, size)?;
            }
            sent => return sent.map(drop),
        }
    }
}
