//! The actors that make messages: producers, and the clients of listeners.

use std::collections::VecDeque;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use wormhole::{Blob, Error, Sender};

use crate::assignment::{Address, Output};
use crate::enclosed::{self, Promise};
use crate::ledger::{Count, ledger};
use crate::message::{Attached, Message, checksum, tagged, text};
use crate::plan::DEFAULT_PACKET;
use crate::sending::{SendingEnd, Sent};
use crate::this_process::{Op, ThisProcess, describe, is_out_of_fds};

/// How many replies a producer waits for at the same time.
const REPLIES: usize = 3;

/// What messages are made of.
#[derive(Debug)]
pub(crate) struct Supplies {
    files: Vec<(u64, File)>,
    blob: Option<(Blob, u64)>,
    replies: VecDeque<Promise>,
}

impl Supplies {
    pub(crate) fn new(this: &mut ThisProcess) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        for index in 0..6 {
            let tag = (this.row as u64) << 8 | index;
            files.push((tag, tagged(tag)?));
        }
        Ok(Supplies {
            files,
            blob: None,
            replies: VecDeque::new(),
        })
    }

    /// Makes a message that may have anything in it.
    fn message(&mut self, this: &mut ThisProcess) -> (Message, Option<Promise>) {
        let random = &mut this.random;
        let len = match random.below(1000) {
            0..700 => random.below(200),
            700..920 => random.below(4000),
            920..990 => random.below(40_000),
            990..998 => random.below(400_000),
            _ => 0,
        };
        let mut message = Message {
            text: text(random, usize::try_from(len).expect("a short text")),
            real: f64::from_bits(random.next()),
            wide: i128::from(random.next()) * -i128::from(random.next() >> 2),
            ..Message::new()
        };
        if !message.real.is_finite() {
            message.real = -0.0;
        }
        if random.chance(60) {
            self.attach(this, &mut message);
        }
        if this.random.chance(30) {
            self.add_blob(this, &mut message);
        }
        if this.random.chance(40) {
            if let Some((enclosed, promise)) = enclosed::make(this) {
                message.enclosed = Some(enclosed);
                return (message, Some(promise));
            }
        }
        (message, None)
    }

    fn attach(&self, this: &mut ThisProcess, message: &mut Message) {
        let count = match this.random.below(50) {
            0 => 200,
            _ => this.random.between(1, 6),
        };
        for _ in 0..count {
            let (tag, file) = &self.files[this.random.index(self.files.len())];
            match file.try_clone() {
                Ok(file) => {
                    message.tags.push(*tag);
                    message.files.push(Attached(file));
                }
                Err(_) => return, // out of descriptors
            }
        }
    }

    fn add_blob(&mut self, this: &mut ThisProcess, message: &mut Message) {
        if self.blob.is_none() || this.random.chance(200) {
            let len = 1 << this.random.between(0, 19);
            let mut bytes = text(&mut this.random, len).into_bytes();
            bytes.truncate(len);
            self.blob = match Blob::from_bytes(&bytes) {
                Ok(blob) => Some((blob, checksum(&bytes))),
                Err(error) => {
                    if !is_out_of_fds(&error) {
                        this.violation(format_args!("a new blob: {}", describe(&error)));
                    }
                    None
                }
            };
        }
        if let Some((blob, sum)) = &self.blob {
            message.blob = Some(blob.clone());
            message.blob_sum = *sum;
        }
    }

    /// Makes a message and sends it, with all that belongs to it.
    fn send(&mut self, this: &mut ThisProcess, end: &mut SendingEnd) -> Sent {
        let (mut message, promise) = self.message(this);
        let mut beside: Vec<BorrowedFd<'_>> = Vec::new();
        if end.beside && this.random.chance(200) {
            for _ in 0..this.random.between(1, 4) {
                let (tag, file) = &self.files[this.random.index(self.files.len())];
                message.beside.push(*tag);
                beside.push(file.as_fd());
            }
        }
        let sent = end.send(this, &mut message, &beside);
        drop(message); // and with it the copy of the end that was given away
        match promise {
            Some(promise @ Promise::Reply { .. }) => self.replies.push_back(promise),
            Some(promise) if sent == Sent::Done => enclosed::keep(this, promise),
            _ => {}
        }
        if self.replies.len() > REPLIES {
            self.collect(this);
        }
        sent
    }

    /// Waits for the oldest reply.
    fn collect(&mut self, this: &mut ThisProcess) {
        if let Some(promise) = self.replies.pop_front() {
            enclosed::keep(this, promise);
        }
    }

    fn collect_all(&mut self, this: &mut ThisProcess) {
        while !self.replies.is_empty() {
            self.collect(this);
        }
    }
}

/// Sends until it is told to stop, or nobody is left to receive. Says whether it was the former.
pub(crate) fn produce(
    this: &mut ThisProcess,
    outputs: Vec<Output>,
    mut supplies: Supplies,
) -> bool {
    let mut ends: Vec<SendingEnd> = outputs.into_iter().map(SendingEnd::new).collect();
    while !ledger().drains() && !ends.is_empty() {
        let index = this.random.index(ends.len());
        match supplies.send(this, &mut ends[index]) {
            Sent::Done => {}
            Sent::Over => drop(ends.swap_remove(index)),
            Sent::Refused => thread::sleep(Duration::from_millis(1)),
            Sent::NoMore => break,
        }
        this.rest();
    }
    let told = !ends.is_empty();
    drop(ends);
    supplies.collect_all(this);
    told
}

/// Connects to an address again and again, and sends something each time.
pub(crate) fn visit(this: &mut ThisProcess, address: Address, mut supplies: Supplies) {
    while !ledger().drains() {
        let Some(tx) = connect(this, &address) else {
            thread::sleep(Duration::from_millis(2));
            continue;
        };
        ledger().add(Count::Connections, 1);
        let mut end = SendingEnd::new(Output {
            channel: address.channel,
            beside: false,
            packet: DEFAULT_PACKET,
            tx,
        });
        for _ in 0..this.random.between(1, 100) {
            if ledger().drains() || end.is_almost_full() {
                break;
            }
            match supplies.send(this, &mut end) {
                Sent::Done | Sent::Refused => {}
                Sent::Over => break,
                Sent::NoMore => return,
            }
            this.rest();
        }
        drop(end);
        supplies.collect_all(this);
    }
}

fn connect(this: &mut ThisProcess, address: &Address) -> Option<Sender<Message>> {
    this.doing(Op::Connect, Some(address.channel as usize));
    let timeout = Duration::from_millis(this.random.below(20));
    let connected = match this.random.below(2) {
        0 => Sender::connect(&address.path),
        _ => Sender::connect_timeout(&address.path, timeout),
    };
    match connected {
        Ok(tx) => Some(tx),
        Err(Error::TimedOut { .. }) => None,
        // The host is not there yet, or was killed.
        Err(Error::Address { source, .. })
            if [ErrorKind::NotFound, ErrorKind::ConnectionRefused].contains(&source.kind()) =>
        {
            None
        }
        Err(error) if is_out_of_fds(&error) => None,
        Err(error) => {
            let (path, error) = (address.path.escape_debug(), describe(&error));
            this.violation(format_args!("connect to {path}: {error}"));
            None
        }
    }
}
