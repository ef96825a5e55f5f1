//! What a process knows about itself, and tells the ledger.

use std::fmt;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::ledger::{Count, Row, as_index, ledger, now};
use crate::random::Random;
use crate::sabotage::Sabotage;

/// What a process can be in the middle of. It is told when something hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Begin,
    Send,
    Receive,
    Accept,
    Connect,
    AwaitReply,
    Feed,
    Reply,
    Listen,
    Lead,
    Follow,
    Nested,
    Rest,
    Supervise,
    Drain,
    End,
}

const OPS: [Op; 16] = [
    Op::Begin,
    Op::Send,
    Op::Receive,
    Op::Accept,
    Op::Connect,
    Op::AwaitReply,
    Op::Feed,
    Op::Reply,
    Op::Listen,
    Op::Lead,
    Op::Follow,
    Op::Nested,
    Op::Rest,
    Op::Supervise,
    Op::Drain,
    Op::End,
];

/// Reads what `doing` wrote: the operation, and its channel.
pub(crate) fn read_doing(word: u64) -> (Option<Op>, Option<usize>) {
    let op = OPS.get(as_index(word >> 32)).copied();
    (op, as_index(word & 0xffff_ffff).checked_sub(1))
}

/// One incarnation of an actor.
#[derive(Debug)]
pub(crate) struct ThisProcess {
    pub(crate) row: usize,
    pub(crate) actor: usize,
    pub(crate) random: Random,
    pub(crate) pause: Duration,
    pub(crate) sabotage: Option<Sabotage>,
}

impl ThisProcess {
    /// Notes an operation that may take a while, so that a report of a hang can say which process waits for what.
    pub(crate) fn doing(&self, op: Op, channel: Option<usize>) {
        let channel = channel.map_or(0, |channel| channel as u64 + 1);
        let word = (op as u64) << 32 | channel;
        let set = |field, word| ledger().row(self.row, field).store(word, Ordering::SeqCst);
        set(Row::Doing, word);
        set(Row::Since, now());
    }

    /// Notes from which inputs a message may be on its way into this process, which would die with it.
    pub(crate) fn receiving(&self, inputs: u64) {
        let word = ledger().row(self.row, Row::Receiving);
        word.store(inputs, Ordering::SeqCst);
    }

    /// Rests, if its assignment is to be slow.
    pub(crate) fn rest(&self) {
        if !self.pause.is_zero() {
            self.doing(Op::Rest, None);
            thread::sleep(self.pause);
        }
    }

    /// Whether to do that wrong now, which is seldom.
    pub(crate) fn sabotages(&mut self, kind: Sabotage) -> bool {
        let now = self.sabotage == Some(kind) && self.random.chance(30);
        if now {
            ledger().add(Count::Sabotaged, 1);
        }
        now
    }

    /// Writes down what must not be.
    pub(crate) fn violation(&self, what: impl fmt::Display) {
        let (actor, row, pid) = (self.actor, self.row, std::process::id());
        ledger().violation(&format!("actor {actor} (row {row}, pid {pid}): {what}"));
    }
}

/// What an error says, with its cause.
pub(crate) fn describe(error: &wormhole::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Whether an error says that this process, or all of them, are out of descriptors.
pub(crate) fn is_out_of_fds(error: &wormhole::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE};
    match error {
        wormhole::Error::Io { source, .. } | wormhole::Error::Address { source, .. } => {
            matches!(source.raw_os_error(), Some(EMFILE | ENFILE))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_read_back() {
        for (index, op) in OPS.into_iter().enumerate() {
            assert_eq!(op as usize, index);
            let word = (index as u64) << 32 | 4;
            assert_eq!(read_doing(word), (Some(op), Some(3)));
        }
    }
}
