//! The wire: a packet is the length of a message's JSON text, 8 bytes little-endian, then the text, or
//! as much of it as fits. Pure: no system calls here. PROTOCOL.md is the specification.

use std::io::{self, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::ser::Formatter;

use super::strict::Strict;
use crate::error::{Error, Result};
use crate::limits::{HEADER, MAX_LEVELS};

/// Writes the whole packet of `message` into `packet`, whatever was there before.
pub(crate) fn encode<T: Serialize>(
    message: &T,
    limit: usize,
    levels: u32,
    packet: &mut Vec<u8>,
) -> Result<()> {
    packet.clear();
    packet.extend_from_slice(&[0; HEADER]);
    let mut text = Text {
        room: packet.capacity().min(HEADER.saturating_add(limit)),
        packet,
        limit,
        beyond: 0,
    };
    write(message, levels, &mut text)?;
    let len = (text.packet.len() - HEADER) as u64 + text.beyond;
    if len > limit as u64 {
        return Err(Error::TooLarge {
            size: len,
            limit: limit as u64,
        });
    }
    if let Some(header) = packet.first_chunk_mut() {
        *header = len.to_le_bytes();
    }
    Ok(())
}

/// Writes the text of `message`, which nests so deep at most.
#[inline]
fn write<T: Serialize>(message: &T, levels: u32, text: impl Write) -> Result<()> {
    let mut json = serde_json::Serializer::with_formatter(text, Levels { left: levels });
    let written = Strict::new(message).serialize(&mut json);
    written.map_err(Error::encode::<T>)
}

/// Writes JSON that does not nest deeper than its receiver reads it.
struct Levels {
    left: u32,
}

impl Levels {
    #[inline]
    fn enter(&mut self) -> io::Result<()> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(too_deep()),
        }
    }

    #[inline]
    fn leave(&mut self) {
        self.left += 1;
    }
}

#[cold]
fn too_deep() -> io::Error {
    io::Error::other(format!("it nests deeper than {MAX_LEVELS} levels"))
}

impl Formatter for Levels {
    #[inline]
    fn begin_array<W: ?Sized + Write>(&mut self, text: &mut W) -> io::Result<()> {
        self.enter()?;
        text.write_all(b"[")
    }

    #[inline]
    fn end_array<W: ?Sized + Write>(&mut self, text: &mut W) -> io::Result<()> {
        self.leave();
        text.write_all(b"]")
    }

    #[inline]
    fn begin_object<W: ?Sized + Write>(&mut self, text: &mut W) -> io::Result<()> {
        self.enter()?;
        text.write_all(b"{")
    }

    #[inline]
    fn end_object<W: ?Sized + Write>(&mut self, text: &mut W) -> io::Result<()> {
        self.leave();
        text.write_all(b"}")
    }
}

/// The text of a whole packet.
pub(crate) fn text_of(mut packet: Vec<u8>) -> Result<String, std::string::FromUtf8Error> {
    packet.drain(..HEADER.min(packet.len()));
    String::from_utf8(packet)
}

/// Appends to a packet up to a limit, and beyond it only counts.
struct Text<'a> {
    packet: &'a mut Vec<u8>,
    limit: usize,
    /// Up to this length the packet takes bytes without a question: there is memory, and the limit allows it.
    room: usize,
    /// Bytes that came after the limit was reached.
    beyond: u64,
}

impl Text<'_> {
    #[cold]
    #[inline(never)]
    fn append_or_count(&mut self, bytes: &[u8]) -> io::Result<()> {
        let most = HEADER.saturating_add(self.limit);
        if self.beyond > 0 || bytes.len() > most.saturating_sub(self.packet.len()) {
            self.beyond += bytes.len() as u64;
            self.room = 0; // from here on nothing is appended
            return Ok(());
        }
        self.packet
            .try_reserve(bytes.len())
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.room = self.packet.capacity().min(most);
        self.packet.extend_from_slice(bytes);
        Ok(())
    }
}

impl io::Write for Text<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() <= self.room.saturating_sub(self.packet.len()) {
            self.packet.extend_from_slice(bytes);
            return Ok(());
        }
        self.append_or_count(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A received packet, taken apart.
#[derive(Debug)]
pub(crate) struct Packet<'a> {
    /// The text that came in the packet itself.
    pub(crate) inline: &'a [u8],
    /// Length of the rest of the text, which is in a memfd. Zero for most messages.
    pub(crate) missing: usize,
}

impl<'a> Packet<'a> {
    /// Checks a packet's length against what came and against `limit`, the longest text allowed.
    #[inline]
    pub(crate) fn parse(packet: &'a [u8], limit: usize) -> Result<Self> {
        let Some((header, inline)) = packet.split_first_chunk::<HEADER>() else {
            return Err(Error::malformed(format!(
                "{} bytes are too few for the length of a message, which takes {HEADER}",
                packet.len()
            )));
        };
        let declared = u64::from_le_bytes(*header);
        let inline_len = inline.len() as u64;
        if declared < inline_len {
            return Err(Error::malformed(format!(
                "{inline_len} bytes of text came with a declared length of {declared}"
            )));
        }
        match usize::try_from(declared) {
            Ok(len) if len <= limit => Ok(Packet {
                inline,
                missing: len - inline.len(),
            }),
            _ => Err(Error::TooLarge {
                size: declared,
                limit: limit as u64,
            }),
        }
    }
}

/// Reads a message from its whole text.
pub(crate) fn decode<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    // All of it, whereas serde_json looks only at the strings that the type does not ignore.
    let text = std::str::from_utf8(text).map_err(Error::decode::<T>)?;
    serde_json::from_str(text).map_err(Error::decode::<T>)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encode_replaces_what_the_buffer_held() {
        let mut packet = b"left over".to_vec();
        encode(&"hi", 4, MAX_LEVELS, &mut packet).unwrap();
        assert_eq!(packet, b"\x04\0\0\0\0\0\0\0\"hi\"");
    }

    #[test]
    fn encode_counts_beyond_the_limit_without_storing() {
        let mut packet = Vec::new();
        let error = encode(&"x".repeat(1000), 100, MAX_LEVELS, &mut packet).unwrap_err();
        assert_eq!(
            error.to_string(),
            "message of 1002 bytes is longer than the limit of 100 bytes"
        );
        assert!(packet.len() <= HEADER + 100);
    }

    #[test]
    fn parse_tells_inline_from_missing() {
        let mut bytes = 5u64.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"tru");
        let packet = Packet::parse(&bytes, 5).unwrap();
        assert_eq!((packet.inline, packet.missing), (&b"tru"[..], 2));
    }

    #[test]
    fn parse_names_what_is_wrong() {
        let reason = |bytes: &[u8]| Packet::parse(bytes, 10).unwrap_err().to_string();
        assert_eq!(
            reason(b"abc"),
            "received a malformed packet: 3 bytes are too few for the length of a message, which takes 8"
        );
        assert_eq!(
            reason(b"\x01\0\0\0\0\0\0\0true"),
            "received a malformed packet: 4 bytes of text came with a declared length of 1"
        );
        assert_eq!(
            reason(&[0xff; 8]),
            "message of 18446744073709551615 bytes is longer than the limit of 10 bytes"
        );
    }
}
