//! The account: what every process has done, written down where its death does not reach.
//!
//! Each fact is a word of shared memory, written by the process that knows it: a sender marks a message before it
//! tries to send it and after it knows how that went, a receiver when it has it, and when it is done
//! with it. So what a killed process did is known but for the one operation that it was in.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::shared::Shared;

/// How many incarnations of processes an epoch can have.
pub(crate) const ROWS: usize = 1024;
/// How many channels.
pub(crate) const CHANNELS: usize = 256;
/// How many streams: what one sender sends through one channel.
pub(crate) const STREAMS: usize = 2048;
/// How many messages of a stream.
pub(crate) const NUMBERS: usize = 16_384;
/// How many processes, whatever their incarnations.
pub(crate) const ACTORS: usize = 256;
/// How many channels that are given away in messages.
pub(crate) const ENCLOSED: usize = 65_536;
/// How many violations are written down. One is enough to fail.
const VIOLATIONS: usize = 32;
/// Words of each.
const VIOLATION: usize = 128;

/// What is counted over all processes, for the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// Not 0 once producers are to stop and everything flows out.
    Drains,
    NextRow,
    NextStream,
    NextEnclosed,
    NextViolation,
    Bytes,
    Spilled,
    Descriptors,
    Blobs,
    Ends,
    Kills,
    Stops,
    Restarts,
    Disconnects,
    FdsLost,
    Unclaimed,
    Full,
    TimedOut,
    InFlight,
    Refused,
    Undeliverable,
    Connections,
    Spawned,
    Nested,
    Ticks,
    Sabotaged,
    /// How many there are.
    Len,
}

/// What a row says about one incarnation of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Row {
    Pid,
    /// Which actor it is an incarnation of.
    Actor,
    /// What it is in the middle of: an operation, and the channel plus 1.
    Doing,
    /// Since when, in milliseconds.
    Since,
    /// From which of its inputs it may be taking a message right now, a bit each.
    Receiving,
    /// How it ended: `ended::…`.
    End,
    Len = 8,
}

/// How an incarnation ended, bit by bit.
pub(crate) mod ended {
    /// It came to the end of everything that it receives from.
    pub(crate) const WELL: u64 = 1;
    /// It left early, because nobody wants what it sends.
    pub(crate) const LEFT: u64 = 2;
    /// It was killed.
    pub(crate) const KILLED: u64 = 4;
}

/// What is known of a channel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Channel {
    /// The supervisor holds a receiver, so nobody may be told that all are gone.
    ReceiverKept,
    /// The supervisor holds a sender.
    SenderKept,
    /// Some receiver has come to its end.
    EndSeen,
    /// Messages that receivers lost for want of descriptors, with an error that said so.
    FdsLost,
    /// Messages that were refused because nobody claimed their descriptors.
    Unclaimed,
    Len = 8,
}

/// What is known of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    /// The row of its sender plus 1.
    Sender,
    Channel,
    /// How many numbers have been given out.
    Count,
    /// Of a connection: the row that received the first message, plus 1.
    Acceptor,
    /// Of a connection: its receiver has come to its end.
    EndSeen,
    Len = 8,
}

/// The state of a message, bit by bit. Above are the row of its receiver, and nothing else.
pub(crate) mod entry {
    /// Its sender is about to send it.
    pub(crate) const TRYING: u64 = 1;
    /// `send` has returned `Ok`.
    pub(crate) const SENT: u64 = 2;
    /// `send` has returned an error, so nobody may receive it.
    pub(crate) const FAILED: u64 = 4;
    pub(crate) const RECEIVED: u64 = 8;
    /// Its receiver has used it up, passed it on, or could not.
    pub(crate) const FINISHED: u64 = 16;
    /// It has or may have descriptors, so it can be lost for want of them.
    pub(crate) const FDS: u64 = 32;
    /// It has descriptors that no field claims.
    pub(crate) const BESIDE: u64 = 64;
    /// From here on: the row of its receiver.
    pub(crate) const RECEIVER: u32 = 16;
}

/// What is known of a channel that was given away in a message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Enclosed {
    /// How many messages its sender has begun to send.
    Tried,
    /// How many sends have returned `Ok`.
    Sent,
    Len,
}

const COUNTS_AT: usize = 0;
const VIOLATIONS_AT: usize = COUNTS_AT + Count::Len as usize;
const ROWS_AT: usize = VIOLATIONS_AT + VIOLATIONS * VIOLATION;
const CHANNELS_AT: usize = ROWS_AT + ROWS * Row::Len as usize;
const STREAMS_AT: usize = CHANNELS_AT + CHANNELS * Channel::Len as usize;
const ENCLOSED_AT: usize = STREAMS_AT + STREAMS * Stream::Len as usize;
const LAST_AT: usize = ENCLOSED_AT + ENCLOSED * Enclosed::Len as usize;
const ENTRIES_AT: usize = LAST_AT + ACTORS * STREAMS;
const LEN: usize = ENTRIES_AT + STREAMS * NUMBERS;

static LEDGER: OnceLock<Ledger> = OnceLock::new();

/// The account of this run.
#[derive(Debug)]
pub(crate) struct Ledger(Shared);

/// The account, which `create` or `open` has set up.
pub(crate) fn ledger() -> &'static Ledger {
    LEDGER.get().expect("set up at the start of the program")
}

/// Starts an account.
pub(crate) fn create() -> anyhow::Result<()> {
    let _ = LEDGER.set(Ledger(Shared::create(LEN)?));
    Ok(())
}

/// Opens the account of the process that started this program.
pub(crate) fn open(path: &Path) -> anyhow::Result<()> {
    let _ = LEDGER.set(Ledger(Shared::open(path)?));
    Ok(())
}

impl Ledger {
    /// Where other programs open it.
    pub(crate) fn path(&self) -> String {
        self.0.path()
    }

    /// Makes it blank for the next epoch.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        self.0.clear()
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        &self.0.words()[index]
    }

    pub(crate) fn count(&self, count: Count) -> &AtomicU64 {
        self.word(COUNTS_AT + count as usize)
    }

    /// The count at a place among all of them.
    pub(crate) fn count_at(&self, index: usize) -> u64 {
        self.word(COUNTS_AT + index).load(Ordering::SeqCst)
    }

    pub(crate) fn add(&self, count: Count, more: u64) {
        self.count(count).fetch_add(more, Ordering::SeqCst);
    }

    pub(crate) fn get(&self, count: Count) -> u64 {
        self.count(count).load(Ordering::SeqCst)
    }

    /// Gives out the next index of a kind, below a bound.
    pub(crate) fn next(&self, count: Count, bound: usize) -> Option<usize> {
        let index = as_index(self.count(count).fetch_add(1, Ordering::SeqCst));
        (index < bound).then_some(index)
    }

    /// How many indices of a kind have been given out.
    pub(crate) fn used(&self, count: Count, bound: usize) -> usize {
        as_index(self.get(count)).min(bound)
    }

    pub(crate) fn row(&self, row: usize, field: Row) -> &AtomicU64 {
        assert!(row < ROWS);
        self.word(ROWS_AT + row * Row::Len as usize + field as usize)
    }

    pub(crate) fn channel(&self, channel: usize, field: Channel) -> &AtomicU64 {
        assert!(channel < CHANNELS);
        self.word(CHANNELS_AT + channel * Channel::Len as usize + field as usize)
    }

    pub(crate) fn stream(&self, stream: usize, field: Stream) -> &AtomicU64 {
        assert!(stream < STREAMS);
        self.word(STREAMS_AT + stream * Stream::Len as usize + field as usize)
    }

    pub(crate) fn enclosed(&self, id: usize, field: Enclosed) -> &AtomicU64 {
        assert!(id < ENCLOSED);
        self.word(ENCLOSED_AT + id * Enclosed::Len as usize + field as usize)
    }

    /// The number after the last that an actor has received of a stream, in whatever incarnation.
    pub(crate) fn last(&self, actor: usize, stream: usize) -> &AtomicU64 {
        assert!(actor < ACTORS && stream < STREAMS);
        self.word(LAST_AT + actor * STREAMS + stream)
    }

    /// A message. `None` if there cannot be one of that name.
    pub(crate) fn entry(&self, stream: usize, number: usize) -> Option<&AtomicU64> {
        let exists = stream < STREAMS && number < NUMBERS;
        exists.then(|| self.word(ENTRIES_AT + stream * NUMBERS + number))
    }

    /// Whether producers are to stop.
    pub(crate) fn drains(&self) -> bool {
        self.get(Count::Drains) != 0
    }

    /// Writes down what must not be.
    pub(crate) fn violation(&self, text: &str) {
        let Some(slot) = self.next(Count::NextViolation, VIOLATIONS) else {
            return;
        };
        let at = VIOLATIONS_AT + slot * VIOLATION;
        let bytes = &text.as_bytes()[..text.len().min((VIOLATION - 1) * 8)];
        for (index, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let word = u64::from_le_bytes(word);
            self.word(at + 1 + index).store(word, Ordering::SeqCst);
        }
        self.word(at).store(bytes.len() as u64, Ordering::SeqCst);
    }

    /// What has been found so far.
    pub(crate) fn violations(&self) -> Vec<String> {
        let used = self.used(Count::NextViolation, VIOLATIONS);
        let text = |slot: usize| {
            let at = VIOLATIONS_AT + slot * VIOLATION;
            let len = as_index(self.word(at).load(Ordering::SeqCst));
            let words = (1..VIOLATION).map(|index| self.word(at + index).load(Ordering::SeqCst));
            let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).take(len).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let texts = (0..used).map(text).filter(|text| !text.is_empty());
        texts.collect()
    }
}

/// A word as an index. Those in the ledger are small, or nonsense that no bound lets through.
pub(crate) fn as_index(word: u64) -> usize {
    usize::try_from(word).unwrap_or(usize::MAX)
}

/// The time in milliseconds, the same for all processes.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    let millis = time.unwrap_or_default().as_millis();
    u64::try_from(millis).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_are_read_back() {
        let ledger = Ledger(Shared::create(LEN).unwrap());
        assert!(ledger.violations().is_empty());
        ledger.violation("one");
        ledger.violation(&"x".repeat(2000));
        let violations = ledger.violations();
        assert_eq!(violations[0], "one");
        assert_eq!(violations[1], "x".repeat((VIOLATION - 1) * 8));
    }

    #[test]
    fn only_messages_that_can_exist_have_an_entry() {
        let ledger = Ledger(Shared::create(LEN).unwrap());
        assert!(ledger.entry(STREAMS - 1, NUMBERS - 1).is_some());
        assert!(ledger.entry(STREAMS, 0).is_none());
        assert!(ledger.entry(0, NUMBERS).is_none());
    }
}
