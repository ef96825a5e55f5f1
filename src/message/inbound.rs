//! A whole message in: received as one packet, put together with its memfd, decoded.

use std::cell::Cell;

use rustix::event::PollFlags;
use serde::de::DeserializeOwned;

use super::fields::{self, Arrived};
use super::long_text;
use super::packet::{self, Packet};
use super::scratch::{Lease, Spare};
use crate::error::{Error, Result};
use crate::limits::{HEADER, MAX_PACKET};
use crate::sys::socket::{Received, Socket};
use crate::wait::{Stop, Wait, until_ready};

thread_local! {
    static INBOUND: Cell<Spare<u8>> = const { Cell::new(Spare::NONE) };
    static LONG_TEXT: Cell<Spare<u8>> = const { Cell::new(Spare::NONE) };
}

/// A message that has come, not yet decoded.
#[derive(Debug)]
pub(crate) struct Inbound {
    packet: Lease<u8>,
    /// Length of the packet.
    len: usize,
    /// The whole text, if the packet holds only its beginning.
    long_text: Option<Lease<u8>>,
    fds: Arrived,
}

impl Inbound {
    /// Receives the next message, whose text may have `limit` bytes.
    pub(crate) fn receive(socket: &Socket, limit: usize, wait: Wait) -> Result<Self> {
        let mut packet = Lease::take(&INBOUND);
        if packet.len() != MAX_PACKET {
            *packet = vec![0; MAX_PACKET]; // fresh zeroed memory, which takes up none until written to
        }
        let mut fds = fields::arrived();
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
    pub(crate) fn decode<T: DeserializeOwned>(self) -> Result<(T, Arrived)> {
        let text = match &self.long_text {
            Some(text) => text,
            None => self.packet.get(HEADER..self.len).unwrap_or_default(),
        };
        let (message, left) = fields::distribute(self.fds, || packet::decode(text));
        Ok((message?, left))
    }
}

/// Puts a long text together from its packet and the memfd that came with it.
fn gather(packet: Packet<'_>, fds: &mut Arrived) -> Result<Lease<u8>> {
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
    long_text::read(&memfd, packet.missing, &mut text)?;
    Ok(text)
}
