//! What a receiver must make of a packet, by PROTOCOL.md.

use std::fmt;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use wormhole::Error;

use crate::Input;
use crate::files::{File, Kind};
use crate::messages::{Inode, Message, Want, inode};

/// The limit of the receivers: little enough that sparse memory costs nothing.
pub const LIMIT: usize = 1 << 18;

/// A packet as somebody else has made it.
#[derive(Debug)]
pub struct Packet {
    pub bytes: Vec<u8>,
    pub fds: Vec<File>,
}

impl Packet {
    /// Reads a packet:
    ///
    /// - one byte says how its length field is made,
    /// - one how much of the text goes into a memfd (0: nothing; else that many 255ths),
    /// - one how many descriptors there are, then one for the kind of each,
    /// - two the length of the text, low byte first; then the text.
    pub fn read(input: &mut Input<'_>) -> Self {
        let header = input.below(8);
        let spilled = usize::from(input.byte());
        let count = match input.byte() {
            255 => 253,
            count => usize::from(count % 8),
        };
        let kinds: Vec<_> = input
            .take(count)
            .iter()
            .chain(std::iter::repeat(&0))
            .take(count)
            .collect();
        let len = usize::from(input.byte()) + 256 * usize::from(input.byte());
        let text = input.take(len);
        let (inline, rest) = text.split_at(text.len() - text.len() * spilled / 255);
        let declared = match header {
            // As it should be.
            0..=3 => text.len() as u64,
            4 => (text.len() as u64).wrapping_sub(1),
            5 => text.len() as u64 + 1,
            6 => u64::from_le_bytes(std::array::from_fn(|_| input.byte())),
            _ => text.len() as u64 + (1 << 19),
        };
        let mut bytes = [&declared.to_le_bytes(), inline].concat();
        if header == 7 {
            bytes.truncate(input.below(9));
        }
        let kind = |byte: &u8| Kind::ALL[usize::from(*byte) % Kind::ALL.len()];
        let fds = kinds
            .into_iter()
            .map(|byte| File::open(kind(byte), rest))
            .collect();
        Packet { bytes, fds }
    }

    /// The good message of a type.
    pub fn good<M: Message>() -> Self {
        let (text, kinds) = M::GOOD;
        Packet {
            bytes: [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat(),
            fds: kinds.iter().map(|&kind| File::open(kind, b"")).collect(),
        }
    }
}

pub fn raw_send(socket: impl AsFd, packet: &Packet) {
    let fds: Vec<BorrowedFd<'_>> = packet.fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    let bytes = [IoSlice::new(&packet.bytes)];
    let sent = sendmsg(
        socket,
        &bytes,
        &mut ancillary,
        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
    );
    assert_eq!(sent, Ok(packet.bytes.len()));
}

/// What must come of a packet.
#[derive(Debug)]
pub enum Verdict<M: Message> {
    Malformed,
    TooLarge(u64),
    Decode,
    /// A message, the files in its fields, and those that are left.
    Message(M::Mirror, Vec<Inode>, Vec<Inode>),
}

pub fn verdict<M: Message>(packet: &Packet) -> Verdict<M> {
    let Some((header, inline)) = packet.bytes.split_first_chunk() else {
        return Verdict::Malformed;
    };
    let declared = u64::from_le_bytes(*header);
    if declared < inline.len() as u64 {
        return Verdict::Malformed;
    }
    if declared > LIMIT as u64 {
        return Verdict::TooLarge(declared);
    }
    let missing = declared as usize - inline.len();
    let mut text = inline.to_vec();
    let mut fds = &packet.fds[..];
    if missing > 0 {
        let Some((first, others)) = fds.split_first() else {
            return Verdict::Malformed;
        };
        match &first.memory {
            Some(memory) if memory.len() == missing && first.is_readable() => text.extend(memory),
            _ => return Verdict::Malformed,
        }
        fds = others;
    }
    let Ok(text) = std::str::from_utf8(&text) else {
        return Verdict::Decode;
    };
    let Ok(mirror) = serde_json::from_str::<M::Mirror>(text) else {
        return Verdict::Decode;
    };
    let mut wants = Vec::new();
    M::wants(&mirror, &mut wants);
    let mut taken = vec![false; fds.len()];
    let mut held = Vec::new();
    for (index, want) in wants {
        let index = index
            .and_then(|index| usize::try_from(index).ok())
            .unwrap_or(usize::MAX);
        let (Some(file), Some(taken)) = (fds.get(index), taken.get_mut(index)) else {
            return Verdict::Decode;
        };
        let fits = match want {
            Want::Anything => true,
            Want::End => file.is_end(),
            Want::Blob => file.is_blob(),
        };
        if !fits || std::mem::replace(taken, true) {
            return Verdict::Decode;
        }
        held.push(file.inode);
    }
    let left = fds.iter().zip(taken).filter(|(_, taken)| !taken);
    let left = left.map(|(file, _)| file.inode).collect();
    Verdict::Message(mirror, held, left)
}

/// Compares what a receive has given with what it must give. `with_fds`: what is left was asked for.
pub fn check<M: Message>(
    verdict: &Verdict<M>,
    received: Result<(M, Vec<OwnedFd>), Error>,
    with_fds: bool,
) where
    M::Mirror: fmt::Debug,
{
    match (verdict, received) {
        (Verdict::Malformed, Err(Error::Malformed { .. })) => {}
        (Verdict::TooLarge(size), Err(Error::TooLarge { size: told, limit })) => {
            assert_eq!((told, limit), (*size, LIMIT as u64));
        }
        (Verdict::Decode, Err(Error::Decode { .. })) => {}
        (Verdict::Message(_, _, left), Err(Error::UnexpectedFds { count })) => {
            assert!(!with_fds);
            assert!(count > 0 && count == left.len());
        }
        (Verdict::Message(mirror, held, left), Ok((message, fds))) => {
            assert!(message.is_like(mirror), "{message:?}");
            let mut files = Vec::new();
            message.holds(&mut files);
            // What a map has replaced is closed.
            assert_eq!(files, held[..files.len()], "{message:?}");
            assert_eq!(fds.iter().map(inode).collect::<Vec<_>>(), *left);
        }
        (verdict, received) => panic!("{received:?} instead of {verdict:?}"),
    }
}
