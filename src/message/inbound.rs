//! A whole message in: received as one packet, put together with its memfd, decoded.

use std::os::fd::OwnedFd;

use rustix::event::PollFlags;
use serde::de::DeserializeOwned;

use super::packet::{self, Packet};
use super::scratch::{Arriving, Lease};
use super::{fields, long_text};
use crate::error::{Error, Result};
use crate::limits::{HEADER, MAX_PACKET};
use crate::options::Limits;
use crate::sys::socket::{Received, Socket};
use crate::trace;
use crate::wait::{Stop, Wait, until_ready};

/// A message that has come, not yet decoded.
#[derive(Debug)]
pub(crate) struct Inbound {
    scratch: Lease<Arriving>,
    /// Length of the packet.
    len: usize,
    /// Whether the packet holds only the beginning of the text. Then all of it is in `long_text`.
    is_long: bool,
    /// How many bytes its blobs may have together.
    max_blob_len: u64,
}

impl Inbound {
    /// Receives the next message, if it keeps to the `limits`.
    // One function for messages of all types, with all that it calls inside: that is faster than a copy in each `recv`.
    pub(crate) fn receive(socket: &Socket, limits: Limits, wait: Wait) -> Result<Self> {
        let mut scratch = Lease::<Arriving>::take();
        scratch.make_room();
        let Arriving { packet, fds, .. } = &mut *scratch;
        let received = until_ready(
            socket,
            PollFlags::IN,
            Some(socket.spin()),
            wait,
            |may_block| socket.recv(packet, |fd| fds.push(Some(fd)), may_block),
        );
        let len = match received {
            Ok(Received::Packet { len, lost: false }) => len,
            nothing => return Err(receive_error(nothing)),
        };
        let is_long = scratch.complete(len, limits.message_len)?;
        let text_len = if is_long {
            scratch.long_text.len()
        } else {
            len - HEADER
        };
        trace::received(socket, text_len, scratch.fds.len());
        Ok(Inbound {
            scratch,
            len,
            is_long,
            max_blob_len: limits.blob_len,
        })
    }

    /// Decodes the message, whose fields must take all of its descriptors.
    #[inline]
    pub(crate) fn decode<T: DeserializeOwned>(mut self) -> Result<T> {
        let message = self.read()?;
        let fds = &self.scratch.fds;
        if !fds.is_empty() {
            let count = fds.iter().flatten().count();
            if count > 0 {
                return Err(Error::UnexpectedFds { count });
            }
        }
        Ok(message)
    }

    /// Decodes the message, and gives the descriptors that its fields leave.
    pub(crate) fn decode_with_fds<T: DeserializeOwned>(mut self) -> Result<(T, Vec<OwnedFd>)> {
        let message = self.read()?;
        Ok((message, self.scratch.fds.drain(..).flatten().collect()))
    }

    #[inline]
    fn read<T: DeserializeOwned>(&mut self) -> Result<T> {
        let Arriving {
            packet,
            long_text,
            fds,
            ..
        } = &mut *self.scratch;
        let text = match self.is_long {
            true => long_text,
            false => packet.get(HEADER..self.len).unwrap_or_default(),
        };
        fields::distribute(fds, self.max_blob_len, || packet::decode(text))
    }
}

impl Arriving {
    /// Checks a packet of that length, and fetches what it lacks of its text. Says whether it lacks any.
    #[inline]
    fn complete(&mut self, len: usize, limit: usize) -> Result<bool> {
        let Some(bytes) = self.packet.get(..len) else {
            return Err(Error::malformed(format!(
                "a packet of {len} bytes is longer than the limit of {MAX_PACKET}"
            )));
        };
        match Packet::parse(bytes, limit)? {
            Packet { missing: 0, .. } => {
                self.long_text.clear();
                Ok(false)
            }
            parsed => {
                gather(&parsed, &mut self.fds, &mut self.long_text)?;
                Ok(true)
            }
        }
    }
}

/// Puts a long text together from its packet and the memfd that came with it.
#[cold]
fn gather(packet: &Packet<'_>, fds: &mut Vec<Option<OwnedFd>>, text: &mut Vec<u8>) -> Result<()> {
    let Some(memfd) = fds.first_mut().and_then(Option::take) else {
        return Err(Error::malformed(format!(
            "{} bytes of text are missing and no descriptor came with the rest",
            packet.missing
        )));
    };
    fds.remove(0); // the memfd's place: it does not count for the indices in the text
    text.clear();
    text.extend_from_slice(packet.inline);
    long_text::read(&memfd, packet.missing, text)
}

/// Why there is no message.
#[cold]
fn receive_error(received: Result<Received, Stop>) -> Error {
    match received {
        Ok(Received::Packet { .. }) => Error::FdsLost,
        Ok(Received::Disconnected) => Error::Disconnected,
        Err(stop) => stop.into_error("receive a message", Error::Empty),
    }
}
