//! The work that contenders are measured at: rows of a table, each with an entry per contender.

mod awaited;
mod bulk;
mod crowd;
mod descriptors;
mod idle;
mod many;
mod pool;
mod share;
mod start;
mod talk;

use std::sync::Arc;

use serde::Serialize;

use crate::Outcome;
use crate::message::{self, Message, Small};
use crate::peer::ipc_channel::IpcChannel;
use crate::peer::json_lines::JsonLines;
use crate::peer::raw::Raw;
use crate::peer::threads::Threads;
use crate::peer::tiny_nix_ipc::TinyNixIpc;
use crate::peer::unix_ipc::UnixIpc;
use crate::peer::wormhole::{Asleep, Selecting, Wormhole};
use crate::peer::{self, Carrier};
use crate::sample::Sample;

/// Measures so many operations of one contender, in the process of a leader.
pub(crate) type Run = Box<dyn Fn(u64) -> Outcome<Sample>>;

/// One contender in a row.
pub(crate) struct Entry {
    /// Its name.
    pub(crate) contender: &'static str,
    /// How it is measured, or why it is not.
    pub(crate) run: Result<Run, &'static str>,
}

impl Entry {
    fn new(contender: &'static str, run: impl Fn(u64) -> Outcome<Sample> + 'static) -> Self {
        Entry {
            contender,
            run: Ok(Box::new(run)),
        }
    }

    fn cannot(contender: &'static str, reason: &'static str) -> Self {
        Entry {
            contender,
            run: Err(reason),
        }
    }
}

/// How many operations make one measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// As many as take a certain time.
    Timed,
    /// That many in a full run, and that many in a quick one.
    Fixed(u64, u64),
}

/// What the numbers of a row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Unit {
    /// Nanoseconds for one operation.
    Time,
    /// Nanoseconds on the processor in a second of waiting.
    TimeASecond,
    /// Bytes.
    Bytes,
}

/// One piece of work.
pub(crate) struct Row {
    /// The item that it belongs to, for `--only`.
    pub(crate) item: &'static str,
    /// What is done.
    pub(crate) title: String,
    /// What makes the difference between the rows of an item: a size, a number.
    pub(crate) scale: Option<u32>,
    /// What the numbers are.
    pub(crate) unit: Unit,
    /// How many operations are measured at a time.
    pub(crate) pace: Pace,
    /// Makes the contenders and what they send, which may be large.
    pub(crate) entries: Box<dyn Fn() -> Vec<Entry>>,
}

impl Row {
    /// The row of an item whose operations are timed.
    fn timed(
        item: &'static str,
        title: String,
        scale: Option<u32>,
        entries: impl Fn() -> Vec<Entry> + 'static,
    ) -> Self {
        Row {
            item,
            title,
            scale,
            unit: Unit::Time,
            pace: Pace::Timed,
            entries: Box::new(entries),
        }
    }
}

/// The items, with a heading and what is done and measured.
pub(crate) const ITEMS: [(&str, &str, &str); 16] = [
    (
        "round-trip",
        "Round trip",
        "A small message to another process and the same back: `{a: u32, b: \"hello world!\", c: [5, 4, 3, 2, 1]}`. Time for both ways. On two cores each waits for the other to wake up.",
    ),
    (
        "stream",
        "One way",
        "The same message, one way, as fast as both processes can. Time for each message. A channel of lists, `channel::<Vec<T>>`, shares the cost of a send among its messages.",
    ),
    (
        "text",
        "One way, a text",
        "A `String` of lines of words, of that size as JSON, one way, on two cores.",
    ),
    (
        "records",
        "One way, a list of records",
        "A list of records with numbers, strings, flags and lists of strings, of that size as JSON, one way, on two cores.",
    ),
    (
        "descriptors",
        "Descriptors",
        "A message with that many descriptors, and an acknowledgement without any, on one core. ipc-channel carries ends of channels, the others an open file.",
    ),
    (
        "crowd",
        "Several senders and receivers",
        "The small message from and to that many processes on one channel. Time for each message that arrives, wherever. The scheduler chooses the cores.",
    ),
    (
        "awaited",
        "Awaited ends",
        "The small message between two processes with an event loop each, on a core of its own. \"wormhole\" are the ends in tokio here. So many tasks on each side share a channel, or one in each direction; those of ipc-channel's stream and of a stream of lines take turns by a lock.",
    ),
    (
        "create",
        "Create a channel",
        "Make a channel and drop both ends, in one process.",
    ),
    (
        "bulk",
        "Bytes in bulk",
        "Bytes made, sent, received and compared, and an acknowledgement, on two cores.",
    ),
    (
        "share",
        "The same bytes to eight processes",
        "A text that is ready to be sent to eight processes, and an acknowledgement by each, on one core. They look at its length and its last byte only. wormhole sends a `Blob`; eight small messages, and eight with the text in them, are there to compare it with.",
    ),
    (
        "spawn",
        "Start a process and wait for its end",
        "A child that does nothing, and its result, if there is one. A fresh child, and one of procspawn, is this program started anew. From a small process, from one that has written to 16 MB more of memory, and from one that has both ends of 1,000 channels of wormhole.",
    ),
    (
        "pool",
        "Jobs for a pool of worker processes",
        "A job is a number, its result the next one. \"By hand\" has channels of its own for each worker, with one job waiting where there are many, and nobody who notices when a worker dies. procspawn has a thread for each worker. The scheduler chooses the cores.",
    ),
    (
        "many",
        "Wait for one of many",
        "A message on one of that many receivers, a different one each time, and an acknowledgement, on one core.",
    ),
    (
        "paced",
        "A thousand messages a second",
        "The small message, one a millisecond, on two cores. Time from before the send until after the receive, and processor time for each message.",
    ),
    (
        "idle",
        "Waiting",
        "A receiver waits for a message that comes late. Processor time in a second of waiting.",
    ),
    (
        "memory",
        "Idle channels",
        "Growth of the process, in memory that it has written to, for each channel of many that are open and unused. What the kernel needs for them is not in it.",
    ),
];

/// All rows. `descriptors` is how many a process may have.
pub(crate) fn rows(descriptors: u64) -> Vec<Row> {
    let mut rows = talk::rows();
    rows.extend(descriptors::rows());
    rows.extend(crowd::rows());
    rows.extend(awaited::rows());
    rows.extend(talk::creation());
    rows.extend(bulk::rows());
    rows.extend(share::rows());
    rows.extend(start::rows());
    rows.extend(pool::rows());
    rows.extend(many::rows(descriptors));
    rows.extend(idle::rows(descriptors));
    rows
}

/// What can be done with messages of any type, by every contender that encodes them.
trait Job: Copy + 'static {
    fn run<C: Carrier<T>, T: Message>(self, load: &T, operations: u64) -> Outcome<Sample>;
}

/// The entries of all contenders for a job with this message.
fn every<T: Message>(job: impl Job, load: T) -> Vec<Entry> {
    fn entry<C: Carrier<T>, T: Message>(name: &'static str, job: impl Job, load: &Arc<T>) -> Entry {
        let load = Arc::clone(load);
        Entry::new(name, move |operations| job.run::<C, T>(&load, operations))
    }
    let load = &Arc::new(load);
    vec![
        entry::<Wormhole, T>(peer::WORMHOLE, job, load),
        entry::<Raw, T>(peer::RAW, job, load),
        entry::<IpcChannel, T>(peer::IPC_CHANNEL, job, load),
        entry::<UnixIpc, T>(peer::UNIX_IPC, job, load),
        entry::<TinyNixIpc, T>(peer::TINY_NIX_IPC, job, load),
        entry::<JsonLines, T>(peer::JSON_LINES, job, load),
        entry::<Threads, T>(peer::THREADS, job, load),
    ]
}

/// Those of a job that sends the small message.
fn every_small(job: impl Job) -> Vec<Entry> {
    every(job, message::small())
}

/// Those, and the ways of waiting that wormhole has.
fn every_wait(job: impl Job) -> Vec<Entry> {
    fn entry<C: Carrier<Small>>(name: &'static str, job: impl Job) -> Entry {
        let load = message::small();
        Entry::new(name, move |operations| job.run::<C, _>(&load, operations))
    }
    let mut entries = every_small(job);
    let ways = [
        entry::<Asleep>("wormhole, no spinning", job),
        entry::<Selecting>("wormhole, select!", job),
    ];
    entries.splice(1..1, ways);
    entries
}

/// A size in bytes as text.
fn size_name(size: u32) -> String {
    match size {
        ..0x400 => format!("{size} B"),
        0x400..0x10_0000 => format!("{} KB", size >> 10),
        _ => format!("{} MB", size >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_belongs_to_an_item_and_has_wormhole_in_it() {
        let rows = rows(20_000);
        for row in &rows {
            assert!(ITEMS.iter().any(|(item, _, _)| *item == row.item));
            let first = (row.entries)().first().map(|entry| entry.contender);
            assert_eq!(first, Some(peer::WORMHOLE), "{}", row.title);
        }
        for (item, _, _) in ITEMS {
            assert!(rows.iter().any(|row| row.item == item), "{item}");
        }
    }

    #[test]
    fn sizes_have_short_names() {
        assert_eq!(size_name(64), "64 B");
        assert_eq!(size_name(128 << 10), "128 KB");
        assert_eq!(size_name(16 << 20), "16 MB");
    }
}
