//! A whole message out: encoded, split if it is long, sent as one packet.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use serde::Serialize;

use super::fields::Given;
use super::scratch::{Lease, Outgoing};
use super::{fields, long_text, packet};
use crate::error::{Error, Result};
use crate::limits::{HEADER, MAX_FDS, MAX_PACKET};
use crate::sys::socket::Socket;
use crate::trace;
use crate::wait::{Stop, Wait, until_ready};

/// Makes this thread's memory large enough for small messages, so that a child which is forked next sends its
/// first one without allocating.
pub(crate) fn warm_up() {
    Lease::<Outgoing>::take().packet.reserve(256);
}

/// A message on its way out: encoded, and ready to be tried again.
#[derive(Debug)]
pub(crate) struct Outbound {
    scratch: Lease<Outgoing>,
    /// How many descriptors its fields have, as if packets had no limit.
    count: usize,
    /// For a message that the socket does not take whole: how many bytes it takes, and the rest.
    split: Option<(usize, OwnedFd)>,
}

impl Outbound {
    /// How many packets may be refused before what the kernel says of its buffer is taken for wrong.
    const TRUST: u32 = 4;

    /// Encodes a message whose text may have `limit` bytes, and nest so many levels deep.
    #[inline]
    pub(crate) fn encode<T: Serialize>(message: &T, limit: usize, levels: u32) -> Result<Self> {
        let mut scratch = Lease::<Outgoing>::take();
        let Outgoing { packet, fds, .. } = &mut *scratch;
        let count = fields::collect(fds, || packet::encode(message, limit, levels, packet))?;
        Ok(Outbound {
            scratch,
            count,
            split: None,
        })
    }

    /// Sends it with `fds` beside it, whole or not at all. Can be tried again after an error.
    #[inline]
    pub(crate) fn send(
        &mut self,
        socket: &Socket,
        fds: &[BorrowedFd<'_>],
        wait: Wait,
    ) -> Result<()> {
        let bytes = &*self.scratch.packet;
        if self.count > 0 || !fds.is_empty() || bytes.len() > MAX_PACKET || self.split.is_some() {
            return self.send_with_more(socket, fds, wait, 0);
        }
        match attempt(socket, bytes, &[], wait) {
            Ok(()) => {
                trace::sent(socket, bytes.len() - HEADER, 0);
                Ok(())
            }
            Err(Stop::Failed(Errno::MSGSIZE)) => self.send_with_more(socket, fds, wait, 1),
            Err(stop) => Err(send_error(stop)),
        }
    }

    /// Which of its fields want to know that they have been sent.
    #[inline]
    pub(crate) fn given(&self) -> Given {
        match self.count {
            0 => Given::default(),
            _ => Given::of(&self.scratch.fds),
        }
    }

    /// Sends what is more than a few bytes, of which so many packets have been `refused`.
    #[cold]
    #[inline(never)]
    fn send_with_more(
        &mut self,
        socket: &Socket,
        fds: &[BorrowedFd<'_>],
        wait: Wait,
        mut refused: u32,
    ) -> Result<()> {
        let count = self.count + fds.len();
        check_count(count)?;
        // Once is enough, however often it is tried: a packet that does not fit any more is refused.
        if refused > 0 || (self.scratch.packet.len() > MAX_PACKET && self.split.is_none()) {
            self.split(socket, count, refused)?;
        }
        loop {
            match self.attempt_with_more(socket, fds, wait) {
                // The socket's buffer is smaller than the packet, or than it was a moment ago: some
                // other process that shares the socket may have changed it.
                Err(Stop::Failed(Errno::MSGSIZE)) => {
                    refused += 1;
                    self.split(socket, count, refused)?;
                }
                sent => {
                    sent.map_err(send_error)?;
                    trace::sent(socket, self.scratch.packet.len() - HEADER, count);
                    return Ok(());
                }
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
        self.split = match self.scratch.packet.split_at_checked(limit) {
            Some((_, [])) | None => None, // the buffer has grown since: it takes the whole packet
            Some((inline, rest)) => Some((inline.len(), long_text::write(rest)?)),
        };
        Ok(())
    }

    fn attempt_with_more(
        &self,
        socket: &Socket,
        fds: &[BorrowedFd<'_>],
        wait: Wait,
    ) -> Result<(), Stop> {
        let packet = &self.scratch.packet;
        let (len, memfd) = match &self.split {
            Some((len, memfd)) => (*len, Some(memfd.as_fd())),
            None => (packet.len(), None),
        };
        let bytes = packet.get(..len).unwrap_or_default();
        if memfd.is_none() && self.scratch.fds.is_empty() {
            return attempt(socket, bytes, fds, wait);
        }
        let fields = self.scratch.fds.iter().map(AsFd::as_fd);
        let all = memfd.into_iter().chain(fields).chain(fds.iter().copied());
        let mut places = [socket.as_fd(); MAX_FDS];
        let mut count = 0;
        for (place, fd) in places.iter_mut().zip(all) {
            *place = fd;
            count += 1;
        }
        attempt(socket, bytes, places.get(..count).unwrap_or_default(), wait)
    }
}

/// Sends one packet as soon as the socket has room for it.
#[inline]
fn attempt(socket: &Socket, bytes: &[u8], fds: &[BorrowedFd<'_>], wait: Wait) -> Result<(), Stop> {
    until_ready(
        socket,
        PollFlags::OUT,
        Some(socket.spin()),
        wait,
        |may_block| socket.send(bytes, fds, may_block),
    )
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

#[cold]
fn send_error(stop: Stop) -> Error {
    match stop {
        // KERNEL: EPIPE in general; ECONNRESET once if messages died with the last receiver;
        // ECONNREFUSED where older kernels race with the close.
        Stop::Failed(Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED) => Error::Disconnected,
        Stop::Failed(Errno::TOOMANYREFS) => Error::TooManyFdsInFlight,
        stop => stop.into_error("send a message", Error::Full),
    }
}
