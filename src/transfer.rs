//! A whole message out, a whole message in: one packet, and the memfd that a long one needs beside it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::fd::{Carried, Incoming};
use crate::packet::{MAX_PACKET, Packet};
use crate::socket::{MAX_FDS, Received, Socket};
use crate::spill;
use crate::wait::{Stop, Wait, until_ready};

/// An encoded message, ready to go.
pub(crate) struct Outbound<'a> {
    pub(crate) socket: &'a Socket,
    pub(crate) packet: &'a [u8],
    /// Descriptors that the message's fields refer to.
    pub(crate) fields: &'a [Carried],
    /// Descriptors that were given beside the message.
    pub(crate) fds: &'a [BorrowedFd<'a>],
}

impl Outbound<'_> {
    /// Sends it, whole or not at all.
    pub(crate) fn transmit(&self, wait: Wait) -> Result<()> {
        if self.packet.len() <= MAX_PACKET {
            match self.attempt(self.packet, None, wait) {
                Err(Stop::Failed(Errno::MSGSIZE)) => {} // longer than the socket's buffer
                sent => return sent.map_err(failure),
            }
        }
        let count = self.fields.len() + self.fds.len() + 1;
        if count > MAX_FDS {
            return Err(Error::TooManyFds {
                count,
                limit: MAX_FDS,
            });
        }
        loop {
            let limit = self.socket.packet_limit();
            let limit =
                limit.map_err(|errno| Error::io("look up the size of the buffer", errno))?;
            let (inline, rest) = self.packet.split_at(limit.min(self.packet.len()));
            let memfd = spill::write(rest)?;
            match self.attempt(inline, Some(&memfd), wait) {
                // Some other process has made the buffer of the shared socket smaller meanwhile.
                Err(Stop::Failed(Errno::MSGSIZE)) => {}
                sent => return sent.map_err(failure),
            }
        }
    }

    fn attempt(&self, bytes: &[u8], memfd: Option<&OwnedFd>, wait: Wait) -> Result<(), Stop> {
        let memfd = memfd.into_iter().map(AsFd::as_fd);
        let fields = self.fields.iter().map(AsFd::as_fd);
        let all = memfd.chain(fields).chain(self.fds.iter().copied());
        let mut places = [self.socket.as_fd(); MAX_FDS];
        let mut count = 0;
        for (place, fd) in places.iter_mut().zip(all) {
            *place = fd;
            count += 1;
        }
        let fds = places.get(..count).unwrap_or_default();
        until_ready(self.socket, PollFlags::OUT, wait, |may_block| {
            self.socket.send(bytes, fds, may_block)
        })
    }
}

fn failure(stop: Stop) -> Error {
    match stop {
        Stop::WouldBlock => Error::Full,
        Stop::TimedOut => Error::TimedOut,
        // KERNEL: EPIPE in general; ECONNRESET once if messages died with the last receiver;
        // ECONNREFUSED where older kernels race with the close.
        Stop::Failed(Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED) => Error::Disconnected,
        Stop::Failed(Errno::TOOMANYREFS) => Error::TooManyFdsInFlight,
        Stop::Failed(errno) => Error::io("send a message", errno),
    }
}

/// Receives the whole text of the next message, into one of the two buffers, and its descriptors.
pub(crate) fn receive<'a>(
    socket: &Socket,
    limit: usize,
    wait: Wait,
    packet: &'a mut [u8],
    long_text: &'a mut Vec<u8>,
    fds: &mut Incoming,
) -> Result<&'a [u8]> {
    let received = until_ready(socket, PollFlags::IN, wait, |may_block| {
        socket.recv(packet, |fd| fds.push(Some(fd)), may_block)
    });
    let len = match received {
        Ok(Received::Packet { lost: true, .. }) => return Err(Error::FdsLost),
        Ok(Received::Packet { len, .. }) => len,
        Ok(Received::End) => return Err(Error::Disconnected),
        Err(Stop::WouldBlock) => return Err(Error::Empty),
        Err(Stop::TimedOut) => return Err(Error::TimedOut),
        Err(Stop::Failed(errno)) => return Err(Error::io("receive a message", errno)),
    };
    let Some(packet) = packet.get(..len) else {
        return Err(Error::malformed(format!(
            "a packet of {len} bytes is longer than the limit of {MAX_PACKET}"
        )));
    };
    let packet = Packet::parse(packet, limit)?;
    if packet.missing == 0 {
        return Ok(packet.inline);
    }
    let Some(memfd) = fds.first_mut().and_then(Option::take) else {
        return Err(Error::malformed(format!(
            "{} bytes of text are missing and no descriptor came with the rest",
            packet.missing
        )));
    };
    fds.remove(0); // the memfd's place: it does not count for the indices in the text
    long_text.clear();
    long_text.extend_from_slice(packet.inline);
    spill::read(&memfd, packet.missing, long_text)?;
    Ok(long_text)
}
