//! Channels whose ends are given away in messages: replies and feeds of a few numbers, and the account of them.
//!
//! The sender notes each number before and after it is sent; when the channel ends the receiver must have all
//! that were sent, and no more than were begun.

use std::sync::atomic::Ordering;

use wormhole::{Error, Receiver, Sender, channel};

use crate::ledger::{self, Count, ENCLOSED, ledger};
use crate::message::{Enclosed, item};
use crate::sabotage::Sabotage;
use crate::this_process::{Op, ThisProcess, describe, is_out_of_fds};

/// What a producer does about an enclosed channel once the message is sent.
#[derive(Debug)]
pub(crate) enum Promise {
    /// Waits for the answer.
    Reply { id: u32, answers: Receiver<u64> },
    /// Sends.
    Feed {
        id: u32,
        count: u32,
        feed: Sender<u64>,
    },
    /// Fills the channel, and then goes on as fast as there is room.
    Lockstep {
        id: u32,
        items: Sender<u64>,
        notes: Sender<()>,
    },
}

/// Makes a channel to give away. `None` if this process has no descriptors left for one.
pub(crate) fn make(this: &mut ThisProcess) -> Option<(Enclosed, Promise)> {
    let id = ledger().next(Count::NextEnclosed, ENCLOSED)?;
    let id = u32::try_from(id).expect("below the size of the ledger");
    let count = u32::try_from(this.random.below(20)).expect("below 20");
    if this.random.chance(50) {
        let ((items, rx), (notes, noted)) = (channel().ok()?, channel().ok()?);
        let promise = Promise::Lockstep { id, items, notes };
        let (items, notes) = (rx, noted);
        return Some((Enclosed::Lockstep { id, items, notes }, promise));
    }
    match channel() {
        Ok((tx, rx)) if this.random.chance(500) => {
            let promise = Promise::Reply { id, answers: rx };
            let answer = tx;
            Some((Enclosed::Reply { id, count, answer }, promise))
        }
        Ok((tx, rx)) => {
            let promise = Promise::Feed {
                id,
                count,
                feed: tx,
            };
            let items = rx;
            Some((Enclosed::Feed { id, count, items }, promise))
        }
        Err(error) if is_out_of_fds(&error) => None,
        Err(error) => {
            this.violation(format_args!("a new channel: {}", describe(&error)));
            None
        }
    }
}

/// Does what the receiver of an enclosed channel has to do.
pub(crate) fn take(this: &mut ThisProcess, enclosed: Enclosed) {
    match enclosed {
        Enclosed::Reply { id, count, answer } => {
            this.doing(Op::Reply, None);
            give(this, id, count, &answer);
        }
        Enclosed::Feed { id, items, .. } => {
            this.doing(Op::Listen, None);
            listen(this, id, 0, &items);
        }
        Enclosed::Lockstep { id, items, notes } => {
            this.doing(Op::Follow, None);
            follow(this, id, &items, &notes);
        }
    }
}

/// Does what the maker of an enclosed channel has to do after it is sent.
pub(crate) fn keep(this: &mut ThisProcess, promise: Promise) {
    match promise {
        Promise::Reply { id, answers } => {
            this.doing(Op::AwaitReply, None);
            listen(this, id, 0, &answers);
        }
        Promise::Feed { id, count, feed } => {
            this.doing(Op::Feed, None);
            give(this, id, count, &feed);
        }
        Promise::Lockstep { id, items, notes } => {
            this.doing(Op::Lead, None);
            lead(this, id, &items, &notes);
        }
    }
}

/// Notes that one more was tried or sent.
fn add(id: u32, field: ledger::Enclosed) {
    let word = ledger().enclosed(id as usize, field);
    word.fetch_add(1, Ordering::SeqCst);
}

/// How many steps two processes take together.
const STEPS: u32 = 8;

/// Fills a channel, says so, and then sends one item more each time that there is room, and says so.
///
/// The other side waits for that before it takes the next. If a blocked sender were not to notice that there is
/// room for one message, both would wait forever.
fn lead(this: &ThisProcess, id: u32, items: &Sender<u64>, notes: &Sender<()>) {
    let mut filled = None;
    for place in 0.. {
        if filled.is_some_and(|filled| place == filled + STEPS) {
            return;
        }
        add(id, ledger::Enclosed::Tried);
        let item = item(id, place);
        let mut sent = match filled {
            None => items.try_send(item),
            Some(_) => items.send(item),
        };
        if let (None, Err(Error::Full)) = (filled, &sent) {
            filled = Some(place);
            sent = notes.send(()).and_then(|()| items.send(item));
        }
        if sent.is_ok() {
            add(id, ledger::Enclosed::Sent);
            if filled.is_some() {
                sent = notes.send(());
            }
        }
        match sent {
            Ok(()) => {}
            Err(Error::Disconnected) => return,
            Err(error) => {
                let error = describe(&error);
                this.violation(format_args!(
                    "send {place} of enclosed channel {id}: {error}"
                ));
                return;
            }
        }
    }
}

fn follow(this: &mut ThisProcess, id: u32, items: &Receiver<u64>, notes: &Receiver<()>) {
    let mut place = 0;
    // The first says that the channel is full.
    while place < STEPS && notes.recv().is_ok() {
        match items.recv() {
            Ok(number) if number == item(id, place) => place += 1,
            Err(Error::Disconnected) => break,
            wrong => {
                this.violation(format_args!(
                    "enclosed channel {id}: {wrong:?} at place {place}"
                ));
                return;
            }
        }
    }
    listen(this, id, place, items);
}

fn give(this: &mut ThisProcess, id: u32, count: u32, tx: &Sender<u64>) {
    let add = |field| add(id, field);
    for place in 0..count {
        add(ledger::Enclosed::Tried);
        if this.sabotages(Sabotage::ShortReply) {
            add(ledger::Enclosed::Sent);
            continue;
        }
        let item = item(id, place);
        // It fits the buffer, so nobody waits.
        let sent = match this.random.below(2) {
            0 => tx.send(item),
            _ => tx.try_send(item),
        };
        match sent {
            Ok(()) => add(ledger::Enclosed::Sent),
            Err(Error::Disconnected) => return,
            Err(error) => {
                let error = describe(&error);
                this.violation(format_args!(
                    "send {place} of enclosed channel {id}: {error}"
                ));
                return;
            }
        }
    }
}

/// Receives all that comes from a place on, and checks that it is all.
fn listen(this: &mut ThisProcess, id: u32, mut place: u32, rx: &Receiver<u64>) {
    loop {
        let received = match this.random.below(2) {
            0 => rx.recv(),
            _ => rx.iter().next().unwrap_or(Err(Error::Disconnected)),
        };
        match received {
            Ok(number) if number == item(id, place) => place += 1,
            Ok(number) => {
                this.violation(format_args!(
                    "enclosed channel {id}: {number:x} at place {place}"
                ));
                place += 1;
            }
            Err(Error::Disconnected) => break,
            Err(error) => {
                let error = describe(&error);
                this.violation(format_args!(
                    "receive {place} of enclosed channel {id}: {error}"
                ));
                break;
            }
        }
    }
    let get = |field| {
        let word = ledger().enclosed(id as usize, field);
        word.load(Ordering::SeqCst)
    };
    let (tried, sent) = (get(ledger::Enclosed::Tried), get(ledger::Enclosed::Sent));
    if !(sent..=tried).contains(&u64::from(place)) {
        this.violation(format_args!(
            "enclosed channel {id}: {place} received until the end, {sent} sent, {tried} begun"
        ));
    }
}
