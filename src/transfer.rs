//! A whole message out, a whole message in: one packet, and the memfd that a long one needs beside it.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::buffer::{Lease, Spare};
use crate::error::{Error, Result};
use crate::fd::{Incoming, Outgoing};
use crate::packet::{HEADER, MAX_PACKET, Packet};
use crate::socket::{MAX_FDS, Received, Socket};
use crate::wait::{Stop, Wait, until_ready};
use crate::{fd, packet, spill};

thread_local! {
    static OUTBOUND: Cell<Spare<u8>> = const { Cell::new(Spare::NONE) };
    static INBOUND: Cell<Spare<u8>> = const { Cell::new(Spare::NONE) };
    static LONG_TEXT: Cell<Spare<u8>> = const { Cell::new(Spare::NONE) };
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
        let fields = fd::collect(|| packet::encode(message, limit, &mut packet))?;
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
            Some((inline, rest)) => Some((inline.len(), spill::write(rest)?)),
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

/// A message that has come, not yet decoded.
#[derive(Debug)]
pub(crate) struct Inbound {
    packet: Lease<u8>,
    /// Length of the packet.
    len: usize,
    /// The whole text, if the packet holds only its beginning.
    long_text: Option<Lease<u8>>,
    fds: Incoming,
}

impl Inbound {
    /// Receives the next message, whose text may have `limit` bytes.
    pub(crate) fn receive(socket: &Socket, limit: usize, wait: Wait) -> Result<Self> {
        let mut packet = Lease::take(&INBOUND);
        if packet.len() != MAX_PACKET {
            *packet = vec![0; MAX_PACKET]; // fresh zeroed memory, which takes up none until written to
        }
        let mut fds = fd::incoming();
        let received = until_ready(
            socket,
            PollFlags::IN,
            Some(socket.spin()),
            wait,
            |may_block| socket.recv(&mut packet, |fd| fds.push(Some(fd)), may_block),
        );
        let len = match received {
            Ok(Received::Packet { lost: true, .. }) => return Err(Error::FdsLost),
            Ok(Received::Packet { len, .. }) => len,
            Ok(Received::End) => return Err(Error::Disconnected),
            Err(Stop::WouldBlock) => return Err(Error::Empty),
            Err(Stop::TimedOut) => return Err(Error::TimedOut),
            Err(Stop::Failed(errno)) => return Err(Error::io("receive a message", errno)),
        };
        let Some(bytes) = packet.get(..len) else {
            return Err(Error::malformed(format!(
                "a packet of {len} bytes is longer than the limit of {MAX_PACKET}"
            )));
        };
        let long_text = match Packet::parse(bytes, limit)? {
            Packet { missing: 0, .. } => {
                Lease::skip(&LONG_TEXT);
                None
            }
            parsed => Some(gather(parsed, &mut fds)?),
        };
        Ok(Inbound {
            packet,
            len,
            long_text,
            fds,
        })
    }

    /// Decodes the message, and gives what is left of its descriptors after its fields took theirs.
    pub(crate) fn decode<T: DeserializeOwned>(self) -> Result<(T, Incoming)> {
        let text = match &self.long_text {
            Some(text) => text,
            None => self.packet.get(HEADER..self.len).unwrap_or_default(),
        };
        let (message, left) = fd::distribute(self.fds, || packet::decode(text));
        Ok((message?, left))
    }
}

/// Puts a long text together from its packet and the memfd that came with it.
fn gather(packet: Packet<'_>, fds: &mut Incoming) -> Result<Lease<u8>> {
    let Some(memfd) = fds.first_mut().and_then(Option::take) else {
        return Err(Error::malformed(format!(
            "{} bytes of text are missing and no descriptor came with the rest",
            packet.missing
        )));
    };
    fds.remove(0); // the memfd's place: it does not count for the indices in the text
    let mut text = Lease::take(&LONG_TEXT);
    text.clear();
    text.extend_from_slice(packet.inline);
    spill::read(&memfd, packet.missing, &mut text)?;
    Ok(text)
}
