//! A whole message out: encoded, split if it is long, sent as one packet.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use serde::Serialize;

use super::fields::{self, Outgoing};
use super::scratch::{Lease, Spare};
use super::{long_text, packet};
use crate::error::{Error, Result};
use crate::limits::{HEADER, MAX_FDS, MAX_PACKET};
use crate::sys::socket::Socket;
use crate::wait::{Stop, Wait, until_ready};

thread_local! {
    static OUTBOUND: Cell<Spare<u8>> = const { Cell::new(Spare::NONE) };
}

/// Makes this thread's buffer large enough for small messages, so that a child which is forked next sends its
/// first one without allocating.
pub(crate) fn get_ready() {
    Lease::take(&OUTBOUND).reserve(256);
}

/// A message on its way out: encoded, and ready to be tried again.
#[derive(Debug)]
pub(crate) struct Outbound {
    packet: Lease<u8>,
    /// Descriptors that the message's fields refer to.
    fields: Outgoing,
    /// For a message that the socket does not take whole: how many bytes it takes, and the rest.
    spill: Option<(usize, OwnedFd)>,
}

impl Outbound {
    /// How many packets may be refused before what the kernel says of its buffer is taken for wrong.
    const TRUST: u32 = 4;

    /// Encodes a message whose text may have `limit` bytes.
    pub(crate) fn encode<T: Serialize>(message: &T, limit: usize) -> Result<Self> {
        let mut packet = Lease::take(&OUTBOUND);
        let fields = fields::collect(|| packet::encode(message, limit, &mut packet))?;
        Ok(Outbound {
            packet,
            fields,
            spill: None,
        })
    }

    /// Sends it with `fds` beside it, whole or not at all.
    pub(crate) fn send(
        &mut self,
        socket: &Socket,
        fds: &[BorrowedFd<'_>],
        wait: Wait,
    ) -> Result<()> {
        let count = self.fields.count + fds.len();
        check_count(count)?;
        let mut refused = 0;
        if self.packet.len() > MAX_PACKET {
            self.split(socket, count, refused)?;
        }
        loop {
            match self.attempt(socket, fds, wait) {
                // The socket's buffer is smaller than the packet, or than it was a moment ago: some
                // other process that shares the socket may have changed it.
                Err(Stop::Failed(Errno::MSGSIZE)) => {
                    refused += 1;
                    self.split(socket, count, refused)?;
                }
                sent => return sent.map_err(send_error),
            }
        }
    }

    /// Moves the text that the socket does not take into a memfd, after so many packets were `refused`.
    fn split(&mut self, socket: &Socket, count: usize, refused: u32) -> Result<()> {
        check_count(count + 1)?;
        let limit = socket.packet_limit();
        let limit = limit.map_err(|errno| Error::io("look up the size of the buffer", errno))?;
        // Some kernel may take less than it says. Then half of that, and so on.
        let limit = limit >> refused.saturating_sub(Self::TRUST);
        if limit < HEADER {
            return Err(send_error(Stop::Failed(Errno::MSGSIZE)));
        }
        self.spill = match self.packet.split_at_checked(limit) {
            Some((_, [])) | None => None, // the buffer has grown since: it takes the whole packet
            Some((inline, rest)) => Some((inline.len(), long_text::write(rest)?)),
        };
        Ok(())
    }

    fn attempt(&self, socket: &Socket, fds: &[BorrowedFd<'_>], wait: Wait) -> Result<(), Stop> {
        let (len, memfd) = match &self.spill {
            Some((len, memfd)) => (*len, Some(memfd.as_fd())),
            None => (self.packet.len(), None),
        };
        let bytes = self.packet.get(..len).unwrap_or_default();
        let mut places = None;
        let fds = if memfd.is_none() && self.fields.fds.is_empty() {
            fds
        } else {
            let fields = self.fields.fds.iter().map(AsFd::as_fd);
            let all = memfd.into_iter().chain(fields).chain(fds.iter().copied());
            let places = places.insert([socket.as_fd(); MAX_FDS]);
            let mut count = 0;
            for (place, fd) in places.iter_mut().zip(all) {
                *place = fd;
                count += 1;
            }
            places.get(..count).unwrap_or_default()
        };
        until_ready(
            socket,
            PollFlags::OUT,
            Some(socket.spin()),
            wait,
            |may_block| socket.send(bytes, fds, may_block),
        )
    }
}

fn check_count(count: usize) -> Result<()> {
    match count {
        ..=MAX_FDS => Ok(()),
        _ => Err(Error::TooManyFds {
            count,
            limit: MAX_FDS,
        }),
    }
}

fn send_error(stop: Stop) -> Error {
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
