//! The messages: numbered, with a checksum of everything in them and descriptors that can be told apart.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use wormhole::{Blob, Receiver, Sender};

use crate::random::Random;

/// What goes through the channels of an epoch.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Message {
    /// Which message it is: new for each channel that it goes through.
    pub(crate) stream: u32,
    pub(crate) number: u32,
    /// Which it was when it was made.
    pub(crate) origin: (u32, u32),
    pub(crate) text: String,
    pub(crate) real: f64,
    pub(crate) wide: i128,
    /// What is written in `files`.
    pub(crate) tags: Vec<u64>,
    pub(crate) files: Vec<Attached>,
    /// What is written in the files that travel beside the message.
    pub(crate) beside: Vec<u64>,
    pub(crate) blob: Option<Blob>,
    pub(crate) blob_sum: u64,
    pub(crate) enclosed: Option<Enclosed>,
    pub(crate) sum: u64,
}

/// A descriptor as a field.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Attached(#[serde(with = "wormhole::fd")] pub(crate) File);

/// An end of another channel, given away. Through that channel go `count` numbers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Enclosed {
    /// Its receiver answers.
    Reply {
        id: u32,
        count: u32,
        answer: Sender<u64>,
    },
    /// Its receiver listens.
    Feed {
        id: u32,
        count: u32,
        items: Receiver<u64>,
    },
    /// Its receiver takes one item at a time from a full channel, and each time waits until there is another.
    Lockstep {
        id: u32,
        items: Receiver<u64>,
        notes: Receiver<()>,
    },
}

/// The number at a place in an enclosed channel.
pub(crate) fn item(id: u32, place: u32) -> u64 {
    Random::of(&[u64::from(id), u64::from(place)]).next()
}

impl Message {
    /// A message with nothing in it.
    pub(crate) fn new() -> Self {
        Message {
            stream: 0,
            number: 0,
            origin: (0, 0),
            text: String::new(),
            real: 0.0,
            wide: 0,
            tags: Vec::new(),
            files: Vec::new(),
            beside: Vec::new(),
            blob: None,
            blob_sum: 0,
            enclosed: None,
            sum: 0,
        }
    }

    /// The checksum of everything but descriptors, which have tags.
    pub(crate) fn checksum(&self) -> u64 {
        let mut sum = Sum(0);
        for number in [self.stream, self.number, self.origin.0, self.origin.1] {
            sum.add(u64::from(number));
        }
        sum.add(self.real.to_bits());
        self.wide
            .to_le_bytes()
            .chunks(8)
            .for_each(|half| sum.add_bytes(half));
        for list in [&self.tags, &self.beside] {
            sum.add(list.len() as u64);
            list.iter().for_each(|&tag| sum.add(tag));
        }
        sum.add(self.blob_sum);
        match &self.enclosed {
            None => sum.add(0),
            Some(Enclosed::Reply { id, count, .. }) => {
                sum.add(u64::from(*id) << 32 | u64::from(*count))
            }
            Some(Enclosed::Feed { id, count, .. }) => {
                sum.add(!(u64::from(*id) << 32 | u64::from(*count)))
            }
            Some(Enclosed::Lockstep { id, .. }) => sum.add(u64::from(*id)),
        }
        sum.add_bytes(self.text.as_bytes());
        sum.0
    }

    /// Says what is wrong with a message that came with these descriptors beside it.
    pub(crate) fn fault(&self, beside: &[OwnedFd]) -> Option<String> {
        if self.sum != self.checksum() {
            return Some("its checksum is wrong".to_owned());
        }
        if self.files.len() != self.tags.len() {
            return Some(format!("{} of {} files", self.files.len(), self.tags.len()));
        }
        if beside.len() != self.beside.len() {
            let (came, sent) = (beside.len(), self.beside.len());
            return Some(format!("{came} of {sent} descriptors beside it"));
        }
        let fields = self.files.iter().map(|file| file.0.as_fd());
        let all = fields.chain(beside.iter().map(AsFd::as_fd));
        let tags = self.tags.iter().chain(&self.beside);
        for (place, (fd, &expected)) in all.zip(tags).enumerate() {
            match tag(fd) {
                Ok(tag) if tag == expected => {}
                found => return Some(format!("descriptor {place} is {found:?}, not {expected}")),
            }
        }
        let blob_sum = self.blob.as_ref().map_or(0, |blob| checksum(blob));
        if blob_sum != self.blob_sum {
            return Some("the checksum of its blob is wrong".to_owned());
        }
        None
    }

    /// How many descriptors it has, but for those beside it and the memfd of a long text.
    pub(crate) fn fields(&self) -> usize {
        self.files.len()
            + usize::from(self.blob.is_some())
            + match &self.enclosed {
                None => 0,
                Some(Enclosed::Reply { .. } | Enclosed::Feed { .. }) => 1,
                Some(Enclosed::Lockstep { .. }) => 2,
            }
    }

    /// The least and the most that its packet can be.
    pub(crate) fn packet(&self) -> (usize, usize) {
        let escapes = |byte: &&u8| matches!(byte, b'"' | b'\\' | b'\n');
        let text = self.text.len() + self.text.as_bytes().iter().filter(escapes).count();
        let lists = 25 * (self.tags.len() + self.beside.len());
        (text + 100, text + lists + 600)
    }
}

/// Text of some length, with characters of one to four bytes, and such as JSON has to escape.
pub(crate) fn text(random: &mut Random, len: usize) -> String {
    const RARE: [char; 8] = ['"', '\\', '\n', 'ö', '中', '🙂', '\u{7f}', '\u{2028}'];
    let mut text = String::with_capacity(len + 4);
    while text.len() < len {
        let mut bits = random.next();
        for _ in 0..10 {
            let six = u8::try_from(bits & 63).expect("six bits");
            text.push(char::from(b'0' + six).to_ascii_lowercase());
            bits >>= 6;
        }
        if bits == 0 {
            text.push(RARE[random.index(RARE.len())]);
        }
    }
    text
}

/// A file in memory that can be told from all others.
pub(crate) fn tagged(tag: u64) -> nix::Result<File> {
    let mut file = File::from(memfd_create("chaos-tag", MFdFlags::MFD_CLOEXEC)?);
    let written = file.write_all(&tag.to_le_bytes());
    written.map_err(|_| nix::errno::Errno::EIO)?;
    Ok(file)
}

/// What is written in such a file.
fn tag(fd: impl AsFd) -> std::io::Result<u64> {
    // Only a duplicate can be a `File`, and a process may have no room for one.
    let mut bytes = [0; 8];
    match nix::sys::uio::pread(fd, &mut bytes, 0)? {
        8 => Ok(u64::from_le_bytes(bytes)),
        _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The checksum of bytes.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let mut sum = Sum(1);
    sum.add_bytes(bytes);
    sum.0
}

/// A checksum in the making.
struct Sum(u64);

impl Sum {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn add_bytes(&mut self, bytes: &[u8]) {
        self.add(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        let mut message = Message {
            text: text(&mut Random::of(&[1]), 1000),
            tags: vec![7],
            files: vec![Attached(tagged(7).unwrap())],
            ..Message::new()
        };
        message.sum = message.checksum();
        message
    }

    #[test]
    fn a_whole_message_has_no_fault() {
        assert_eq!(message().fault(&[]), None);
    }

    #[test]
    fn each_change_is_a_fault() {
        let changes: [fn(&mut Message); 8] = [
            |message| message.number += 1,
            |message| message.origin.1 += 1,
            |message| message.text.push('x'),
            |message| message.text.replace_range(500..501, "~"),
            |message| message.wide = -1,
            |message| message.real = 0.1,
            |message| message.files.clear(),
            |message| message.files[0] = Attached(tagged(8).unwrap()),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut message = message();
            change(&mut message);
            assert!(message.fault(&[]).is_some(), "{index}");
        }
        let beside = OwnedFd::from(tagged(7).unwrap());
        assert!(message().fault(&[beside]).is_some());
    }

    #[test]
    fn texts_have_what_is_hard_to_encode() {
        let text = text(&mut Random::of(&[2]), 20_000);
        assert!(text.contains('\\') && text.contains('🙂') && text.len() >= 20_000);
    }
}
