//! Channels that are given away in messages: replies and feeds of a few numbers, and the account of them.
//!
//! Whoever sends notes each number before and after; at the end of the channel whoever receives must have all
//! that were sent, and no more than were begun.

use std::sync::atomic::Ordering;

use wormhole::{Error, Receiver, Sender, channel};

use crate::ledger::{self, Count, GIFTS, ledger};
use crate::me::{Me, Op, describe, is_out_of_fds};
use crate::message::{Gift, item};
use crate::sabotage::Sabotage;

/// What a producer does about a gift once the message is sent.
#[derive(Debug)]
pub(crate) enum Promise {
    /// Waits for the answer.
    Reply { gift: u32, answers: Receiver<u64> },
    /// Sends.
    Feed {
        gift: u32,
        count: u32,
        feed: Sender<u64>,
    },
    /// Fills the channel, and then goes on as fast as there is room.
    Lockstep {
        gift: u32,
        items: Sender<u64>,
        notes: Sender<()>,
    },
}

/// Makes a channel to give away. `None` if this process has no descriptors left for one.
pub(crate) fn make(me: &mut Me) -> Option<(Gift, Promise)> {
    let gift = ledger().next(Count::NextGift, GIFTS)?;
    let gift = u32::try_from(gift).expect("below the size of the ledger");
    let count = u32::try_from(me.random.below(20)).expect("below 20");
    if me.random.chance(50) {
        let ((items, rx), (notes, noted)) = (channel().ok()?, channel().ok()?);
        let promise = Promise::Lockstep { gift, items, notes };
        let (items, notes) = (rx, noted);
        return Some((Gift::Lockstep { gift, items, notes }, promise));
    }
    match channel() {
        Ok((tx, rx)) if me.random.chance(500) => {
            let promise = Promise::Reply { gift, answers: rx };
            let answer = tx;
            Some((
                Gift::Reply {
                    gift,
                    count,
                    answer,
                },
                promise,
            ))
        }
        Ok((tx, rx)) => {
            let promise = Promise::Feed {
                gift,
                count,
                feed: tx,
            };
            let items = rx;
            Some((Gift::Feed { gift, count, items }, promise))
        }
        Err(error) if is_out_of_fds(&error) => None,
        Err(error) => {
            me.violation(format_args!("a new channel: {}", describe(&error)));
            None
        }
    }
}

/// Does what the receiver of a gift has to do.
pub(crate) fn take(me: &mut Me, gift: Gift) {
    match gift {
        Gift::Reply {
            gift,
            count,
            answer,
        } => {
            me.doing(Op::Reply, None);
            give(me, gift, count, &answer);
        }
        Gift::Feed { gift, items, .. } => {
            me.doing(Op::Listen, None);
            listen(me, gift, 0, &items);
        }
        Gift::Lockstep { gift, items, notes } => {
            me.doing(Op::Follow, None);
            follow(me, gift, &items, &notes);
        }
    }
}

/// Does what the maker of a gift has to do after it is sent.
pub(crate) fn keep(me: &mut Me, promise: Promise) {
    match promise {
        Promise::Reply { gift, answers } => {
            me.doing(Op::AwaitReply, None);
            listen(me, gift, 0, &answers);
        }
        Promise::Feed { gift, count, feed } => {
            me.doing(Op::Feed, None);
            give(me, gift, count, &feed);
        }
        Promise::Lockstep { gift, items, notes } => {
            me.doing(Op::Lead, None);
            lead(me, gift, &items, &notes);
        }
    }
}

/// Notes that one more was tried or sent.
fn add(gift: u32, field: ledger::Gift) {
    let word = ledger().gift(gift as usize, field);
    word.fetch_add(1, Ordering::SeqCst);
}

/// How many steps two processes take together.
const STEPS: u32 = 8;

/// Fills a channel, says so, and then sends one item more each time that there is room, and says so.
///
/// The other side waits for that before it takes the next. If a blocked sender were not to notice that there is
/// room for one message, both would wait for ever.
fn lead(me: &Me, gift: u32, items: &Sender<u64>, notes: &Sender<()>) {
    let mut filled = None;
    for place in 0.. {
        if filled.is_some_and(|filled| place == filled + STEPS) {
            return;
        }
        add(gift, ledger::Gift::Tried);
        let item = item(gift, place);
        let mut sent = match filled {
            None => items.try_send(item),
            Some(_) => items.send(item),
        };
        if let (None, Err(Error::Full)) = (filled, &sent) {
            filled = Some(place);
            sent = notes.send(()).and_then(|()| items.send(item));
        }
        if sent.is_ok() {
            add(gift, ledger::Gift::Sent);
            if filled.is_some() {
                sent = notes.send(());
            }
        }
        match sent {
            Ok(()) => {}
            Err(Error::Disconnected) => return,
            Err(error) => {
                let error = describe(&error);
                me.violation(format_args!("send {place} of gift {gift}: {error}"));
                return;
            }
        }
    }
}

fn follow(me: &mut Me, gift: u32, items: &Receiver<u64>, notes: &Receiver<()>) {
    let mut place = 0;
    // The first says that the channel is full.
    while place < STEPS && notes.recv().is_ok() {
        match items.recv() {
            Ok(number) if number == item(gift, place) => place += 1,
            Err(Error::Disconnected) => break,
            wrong => {
                me.violation(format_args!("gift {gift}: {wrong:?} at place {place}"));
                return;
            }
        }
    }
    listen(me, gift, place, items);
}

fn give(me: &mut Me, gift: u32, count: u32, tx: &Sender<u64>) {
    let add = |field| add(gift, field);
    for place in 0..count {
        add(ledger::Gift::Tried);
        if me.sabotages(Sabotage::ShortReply) {
            add(ledger::Gift::Sent);
            continue;
        }
        let item = item(gift, place);
        // It fits the buffer, so nobody waits.
        let sent = match me.random.below(2) {
            0 => tx.send(item),
            _ => tx.try_send(item),
        };
        match sent {
            Ok(()) => add(ledger::Gift::Sent),
            Err(Error::Disconnected) => return,
            Err(error) => {
                let error = describe(&error);
                me.violation(format_args!("send {place} of gift {gift}: {error}"));
                return;
            }
        }
    }
}

/// Receives all that comes from a place on, and checks that it is all.
fn listen(me: &mut Me, gift: u32, mut place: u32, rx: &Receiver<u64>) {
    loop {
        let received = match me.random.below(2) {
            0 => rx.recv(),
            _ => rx.iter().next().unwrap_or(Err(Error::Disconnected)),
        };
        match received {
            Ok(number) if number == item(gift, place) => place += 1,
            Ok(number) => {
                me.violation(format_args!("gift {gift}: {number:x} at place {place}"));
                place += 1;
            }
            Err(Error::Disconnected) => break,
            Err(error) => {
                let error = describe(&error);
                me.violation(format_args!("receive {place} of gift {gift}: {error}"));
                break;
            }
        }
    }
    let get = |field| {
        let word = ledger().gift(gift as usize, field);
        word.load(Ordering::SeqCst)
    };
    let (tried, sent) = (get(ledger::Gift::Tried), get(ledger::Gift::Sent));
    if !(sent..=tried).contains(&u64::from(place)) {
        me.violation(format_args!(
            "gift {gift}: {place} received until the end, {sent} sent, {tried} begun"
        ));
    }
}
