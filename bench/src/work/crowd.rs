//! Several senders and receivers on one channel.

use anyhow::{Context, ensure};

use super::{Entry, Row};
use crate::Outcome;
use crate::message::{Message, Small, small};
use crate::peer::ipc_channel::IpcChannel;
use crate::peer::raw::Raw;
use crate::peer::threads::{CAPACITY, Threads};
use crate::peer::tiny_nix_ipc::TinyNixIpc;
use crate::peer::wormhole::Wormhole;
use crate::peer::{self, Carrier, Got};
use crate::process::{Part, Side, Tally, ThreadPart, threads, together};
use crate::sample::Sample;

/// Numbers of senders and receivers.
const CROWDS: [(u64, u64); 3] = [(4, 1), (1, 4), (4, 4)];

/// The rows of several senders and receivers.
pub(super) fn rows() -> Vec<Row> {
    CROWDS.into_iter().map(row).collect()
}

fn row((senders, receivers): (u64, u64)) -> Row {
    Row::timed(
        "crowd",
        format!("from {senders} to {receivers}"),
        None,
        move || entries(senders, receivers),
    )
}

fn entries(senders: u64, receivers: u64) -> Vec<Entry> {
    const TORN: &str = "a message is several writes or reads: two senders or receivers tear it";
    const ALONE: &str = "a channel has one receiver";
    let alone = |entry: Entry| match receivers {
        1 => entry,
        _ => Entry::cannot(entry.contender, ALONE),
    };
    vec![
        entry::<Wormhole>(peer::WORMHOLE, senders, receivers),
        entry::<Raw>(peer::RAW, senders, receivers),
        alone(entry::<IpcChannel>(peer::IPC_CHANNEL, senders, receivers)),
        Entry::cannot(peer::UNIX_IPC, TORN),
        entry::<TinyNixIpc>(peer::TINY_NIX_IPC, senders, receivers),
        Entry::cannot(peer::JSON_LINES, TORN),
        alone(Entry::new(peer::THREADS, move |operations| {
            in_threads(senders, operations)
        })),
    ]
}

fn entry<C: Carrier<Small> + 'static>(name: &'static str, senders: u64, receivers: u64) -> Entry {
    Entry::new(name, move |operations| {
        in_processes::<C, Small>(&small(), senders, receivers, operations)
    })
}

/// How many of `operations` a sender sends, one at least.
fn share(operations: u64, senders: u64) -> u64 {
    operations.div_ceil(senders)
}

/// Every side is a process, and the leader only waits for them.
fn in_processes<C: Carrier<T>, T: Message>(
    load: &T,
    senders: u64,
    receivers: u64,
    operations: u64,
) -> Outcome<Sample> {
    let ends = std::cell::Cell::new(Some(C::open(load)?));
    let share = share(operations, senders);
    // After the fork every process has the ends, and keeps the one that it needs.
    let sender = |side: &mut Side| -> Outcome<Tally> {
        let (mut tx, rx) = ends.take().context("the ends are taken")?;
        drop(rx);
        side.start()?;
        for _ in 0..share {
            C::send(&mut tx, load)?;
        }
        Ok(Vec::new())
    };
    let receiver = |side: &mut Side| -> Outcome<Tally> {
        let (tx, mut rx) = ends.take().context("the ends are taken")?;
        drop(tx);
        side.start()?;
        let mut count = 0;
        while C::recv(&mut rx, load)? == Got::Message {
            count += 1;
        }
        Ok(vec![count])
    };
    let mut parts: Vec<Part<'_>> = Vec::new();
    for _ in 0..senders {
        parts.push(Box::new(sender));
    }
    for _ in 1..receivers {
        parts.push(Box::new(receiver));
    }
    let (usage, own, others) = together(parts, |side| receiver(side))?;
    let arrived: u64 = own.iter().chain(others.iter().flatten()).sum();
    ensure!(
        arrived == share * senders,
        "{arrived} of {} messages arrived",
        share * senders
    );
    Ok(usage.per(arrived))
}

/// The same in threads, with one receiver.
fn in_threads(senders: u64, operations: u64) -> Outcome<Sample> {
    let share = share(operations, senders);
    let (tx, mut rx) = std::sync::mpsc::sync_channel(CAPACITY);
    let load = small();
    let mut parts: Vec<ThreadPart<'_>> = Vec::new();
    for _ in 0..senders {
        let (mut tx, load) = (tx.clone(), load.clone());
        parts.push(Box::new(move |side| {
            side.start()?;
            for _ in 0..share {
                <Threads as Carrier<Small>>::send(&mut tx, &load)?;
            }
            Ok(Vec::new())
        }));
    }
    drop(tx);
    let (usage, arrived, _) = threads(parts, |side| {
        side.start()?;
        let mut count = 0;
        while Threads::recv(&mut rx, &load)? == Got::Message {
            count += 1;
        }
        Ok(count)
    })?;
    ensure!(arrived == share * senders, "{arrived} messages arrived");
    Ok(usage.per(arrived))
}
