//! Messages between tasks of two event loops.

use std::future::Future;
use std::sync::Arc;

use anyhow::ensure;

use super::talk::{one_way, round_trip};
use super::{Entry, Row};
use crate::Outcome;
use crate::message::{Small, small};
use crate::peer::awaited::{
    Awaited, BLOCKING, EventLoop, IN_ASYNC_IO, IPC_STREAM, IpcChannelStream, JSON_LINES, Lines,
    SEQPACKET, SEQPACKET_FDS, Seqpacket, WormholeInAsyncIo, WormholeInTokio,
};
use crate::peer::wormhole::Wormhole;
use crate::peer::{self, Got};
use crate::place::Place;
use crate::process::{Side, beside};
use crate::sample::Sample;

/// How many tasks there are on each side.
const TASKS: [usize; 2] = [1, 16];

/// The rows of ends that are awaited.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (way, name) in [(Way::ThereAndBack, "there and back"), (Way::One, "one way")] {
        for tasks in TASKS {
            let title = match tasks {
                1 => format!("{name}, one task"),
                tasks => format!("{name}, {tasks} tasks"),
            };
            rows.push(Row::timed("awaited", title, None, move || {
                entries(way, tasks)
            }));
        }
    }
    rows
}

#[derive(Clone, Copy)]
enum Way {
    One,
    ThereAndBack,
}

fn entries(way: Way, tasks: usize) -> Vec<Entry> {
    vec![
        entry::<WormholeInTokio>(peer::WORMHOLE, way, tasks),
        entry::<WormholeInAsyncIo>(IN_ASYNC_IO, way, tasks),
        Entry::new(BLOCKING, move |operations| blocking(way, operations)),
        entry::<IpcChannelStream>(IPC_STREAM, way, tasks),
        entry::<Seqpacket<false>>(SEQPACKET, way, tasks),
        entry::<Seqpacket<true>>(SEQPACKET_FDS, way, tasks),
        entry::<Lines>(JSON_LINES, way, tasks),
    ]
}

fn entry<C: Awaited>(name: &'static str, way: Way, tasks: usize) -> Entry {
    Entry::new(name, move |operations| match way {
        Way::One => awaited_one_way::<C>(tasks, operations),
        Way::ThereAndBack => awaited_round_trip::<C>(tasks, operations),
    })
}

/// The ends that block, which know no tasks.
fn blocking(way: Way, operations: u64) -> Outcome<Sample> {
    let (place, load) = (Place::Apart, &small());
    match way {
        Way::One => Ok(one_way::<Wormhole, Small>(place, load, operations)?.per(operations)),
        Way::ThereAndBack => {
            round_trip::<Wormhole, Wormhole, Small, Small>(place, load, load, operations)
        }
    }
}

/// Starts an event loop and has each task do so many operations with its end, after a tenth as many to warm up.
fn repeat<L, E, F>(
    side: &mut Side,
    operations: u64,
    ends: impl FnOnce() -> Outcome<Vec<E>>,
    task: impl Fn(E, Arc<Small>, u64) -> F,
) -> Outcome<()>
where
    L: EventLoop,
    E: Send + 'static,
    F: Future<Output = Outcome<E>> + Send + 'static,
{
    let load = Arc::new(small());
    let share = |ends: Vec<E>, operations: u64| {
        let tasks = ends.into_iter();
        let tasks = tasks.map(|end| task(end, Arc::clone(&load), operations));
        L::all(tasks.collect())
    };
    L::start()?.run(async {
        let ends = share(ends()?, operations.div_ceil(10)).await?;
        side.start()?;
        share(ends, operations).await?;
        side.stop()
    })
}

/// What each task has to do.
fn share(operations: u64, tasks: usize) -> u64 {
    operations.div_ceil(tasks as u64)
}

/// Fails at the end of the channel.
fn expect(got: Got) -> Outcome<()> {
    ensure!(got == Got::Message, "the channel ended early");
    Ok(())
}

fn awaited_one_way<C: Awaited>(tasks: usize, operations: u64) -> Outcome<Sample> {
    let (tx, rx) = C::open()?;
    let share = share(operations, tasks);
    let send = |mut tx: C::Tx, load: Arc<Small>, share| async move {
        for _ in 0..share {
            C::send(&mut tx, &load).await?;
        }
        Ok(tx)
    };
    let receive = |mut rx: C::Rx, load: Arc<Small>, share| async move {
        for _ in 0..share {
            expect(C::recv(&mut rx, &load).await?)?;
        }
        Ok(rx)
    };
    let (usage, (), _) = beside(
        Place::Apart,
        false,
        move |side| {
            repeat::<C::Loop, _, _>(side, share, || C::senders(tx, tasks), send)?;
            Ok(Vec::new())
        },
        move |side| repeat::<C::Loop, _, _>(side, share, || C::receivers(rx, tasks), receive),
    )?;
    Ok(usage.per(share * tasks as u64))
}

fn awaited_round_trip<C: Awaited>(tasks: usize, operations: u64) -> Outcome<Sample> {
    let (tx, far_rx) = C::open()?;
    let (far_tx, rx) = C::open()?;
    let share = share(operations, tasks);
    let answer = |(mut tx, mut rx): (C::Tx, C::Rx), load: Arc<Small>, share| async move {
        for _ in 0..share {
            expect(C::recv(&mut rx, &load).await?)?;
            C::send(&mut tx, &load).await?;
        }
        Ok((tx, rx))
    };
    let ask = |(mut tx, mut rx): (C::Tx, C::Rx), load: Arc<Small>, share| async move {
        for _ in 0..share {
            C::send(&mut tx, &load).await?;
            expect(C::recv(&mut rx, &load).await?)?;
        }
        Ok((tx, rx))
    };
    let (usage, (), _) = beside(
        Place::Apart,
        false,
        move |side| {
            let ends = || pairs::<C>(far_tx, far_rx, tasks);
            repeat::<C::Loop, _, _>(side, share, ends, answer)?;
            Ok(Vec::new())
        },
        move |side| repeat::<C::Loop, _, _>(side, share, || pairs::<C>(tx, rx, tasks), ask),
    )?;
    Ok(usage.per(share * tasks as u64))
}

/// Both ends for each of so many tasks.
fn pairs<C: Awaited>(
    tx: C::Sending,
    rx: C::Receiving,
    tasks: usize,
) -> Outcome<Vec<(C::Tx, C::Rx)>> {
    let (senders, receivers) = (C::senders(tx, tasks)?, C::receivers(rx, tasks)?);
    Ok(senders.into_iter().zip(receivers).collect())
}
