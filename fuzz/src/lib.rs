//! What the fuzz targets share: an input that is read byte by byte, descriptors of all kinds, raw packets,
//! and what a receiver must make of them, worked out without the library.

mod files;
mod messages;
mod model;

pub use files::{File, Kind, open_descriptors};
pub use messages::{Fd, Inode, Job, Message, Order, Request, Shape, Tree, inode};
pub use model::{LIMIT, Packet, Verdict, check, raw_send, verdict};

/// The fuzzer's bytes, taken one after the other. Where they end, zeros go on.
#[derive(Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// The next `len` bytes, or as many as there are.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
