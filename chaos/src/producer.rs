//! Who makes messages: producers, and the clients of halls.

use std::collections::VecDeque;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use wormhole::{Blob, Error, Sender};

use crate::gift::{self, Promise};
use crate::ledger::{Count, ledger};
use crate::me::{Me, Op, describe, is_out_of_fds};
use crate::message::{Attached, Message, checksum, tagged, text};
use crate::outlet::{Outlet, Sent};
use crate::part::{Hall, Output};
use crate::plan::DEFAULT_PACKET;

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
    pub(crate) fn new(me: &mut Me) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        for index in 0..6 {
            let tag = (me.row as u64) << 8 | index;
            files.push((tag, tagged(tag)?));
        }
        Ok(Supplies {
            files,
            blob: None,
            replies: VecDeque::new(),
        })
    }

    /// Makes a message that may have anything in it.
    fn message(&mut self, me: &mut Me) -> (Message, Option<Promise>) {
        let random = &mut me.random;
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
            self.attach(me, &mut message);
        }
        if me.random.chance(30) {
            self.add_blob(me, &mut message);
        }
        if me.random.chance(40) {
            if let Some((gift, promise)) = gift::make(me) {
                message.gift = Some(gift);
                return (message, Some(promise));
            }
        }
        (message, None)
    }

    fn attach(&self, me: &mut Me, message: &mut Message) {
        let count = match me.random.below(50) {
            0 => 200,
            _ => me.random.between(1, 6),
        };
        for _ in 0..count {
            let (tag, file) = &self.files[me.random.index(self.files.len())];
            match file.try_clone() {
                Ok(file) => {
                    message.tags.push(*tag);
                    message.files.push(Attached(file));
                }
                Err(_) => return, // out of descriptors
            }
        }
    }

    fn add_blob(&mut self, me: &mut Me, message: &mut Message) {
        if self.blob.is_none() || me.random.chance(200) {
            let len = 1 << me.random.between(0, 19);
            let mut bytes = text(&mut me.random, len).into_bytes();
            bytes.truncate(len);
            self.blob = match Blob::from_bytes(&bytes) {
                Ok(blob) => Some((blob, checksum(&bytes))),
                Err(error) => {
                    if !is_out_of_fds(&error) {
                        me.violation(format_args!("a new blob: {}", describe(&error)));
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
    fn send(&mut self, me: &mut Me, outlet: &mut Outlet) -> Sent {
        let (mut message, promise) = self.message(me);
        let mut beside: Vec<BorrowedFd<'_>> = Vec::new();
        if outlet.beside && me.random.chance(200) {
            for _ in 0..me.random.between(1, 4) {
                let (tag, file) = &self.files[me.random.index(self.files.len())];
                message.beside.push(*tag);
                beside.push(file.as_fd());
            }
        }
        let sent = outlet.send(me, &mut message, &beside);
        drop(message); // and with it the copy of the end that was given away
        match promise {
            Some(promise @ Promise::Reply { .. }) => self.replies.push_back(promise),
            Some(promise) if sent == Sent::Done => gift::keep(me, promise),
            _ => {}
        }
        if self.replies.len() > REPLIES {
            self.collect(me);
        }
        sent
    }

    /// Waits for the oldest reply.
    fn collect(&mut self, me: &mut Me) {
        if let Some(promise) = self.replies.pop_front() {
            gift::keep(me, promise);
        }
    }

    fn collect_all(&mut self, me: &mut Me) {
        while !self.replies.is_empty() {
            self.collect(me);
        }
    }
}

/// Sends until it is told to stop, or nobody is left to receive. Says whether it was the former.
pub(crate) fn produce(me: &mut Me, outputs: Vec<Output>, mut supplies: Supplies) -> bool {
    let mut outlets: Vec<Outlet> = outputs.into_iter().map(Outlet::new).collect();
    while !ledger().drains() && !outlets.is_empty() {
        let index = me.random.index(outlets.len());
        match supplies.send(me, &mut outlets[index]) {
            Sent::Done => {}
            Sent::Over => drop(outlets.swap_remove(index)),
            Sent::Refused => thread::sleep(Duration::from_millis(1)),
            Sent::NoMore => break,
        }
        me.rest();
    }
    let told = !outlets.is_empty();
    drop(outlets);
    supplies.collect_all(me);
    told
}

/// Connects to a hall again and again, and sends something each time.
pub(crate) fn visit(me: &mut Me, hall: Hall, mut supplies: Supplies) {
    while !ledger().drains() {
        let Some(tx) = connect(me, &hall) else {
            thread::sleep(Duration::from_millis(2));
            continue;
        };
        ledger().add(Count::Connections, 1);
        let mut outlet = Outlet::new(Output {
            channel: hall.channel,
            beside: false,
            packet: DEFAULT_PACKET,
            tx,
        });
        for _ in 0..me.random.between(1, 100) {
            if ledger().drains() || outlet.is_almost_full() {
                break;
            }
            match supplies.send(me, &mut outlet) {
                Sent::Done | Sent::Refused => {}
                Sent::Over => break,
                Sent::NoMore => return,
            }
            me.rest();
        }
        drop(outlet);
        supplies.collect_all(me);
    }
}

fn connect(me: &mut Me, hall: &Hall) -> Option<Sender<Message>> {
    me.doing(Op::Connect, Some(hall.channel as usize));
    let timeout = Duration::from_millis(me.random.below(20));
    let connected = match me.random.below(2) {
        0 => Sender::connect(&hall.path),
        _ => Sender::connect_timeout(&hall.path, timeout),
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
            let (path, error) = (hall.path.escape_debug(), describe(&error));
            me.violation(format_args!("connect to {path}: {error}"));
            None
        }
    }
}
