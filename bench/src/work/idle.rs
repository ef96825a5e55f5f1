//! What waiting costs: few messages, none, and unused channels.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::time::{ClockId, clock_gettime};

use super::many::channels;
use super::talk::expect;
use super::{Entry, Job, Pace, Row, Unit, every_small, every_wait};
use crate::Outcome;
use crate::message::Message;
use crate::peer::Carrier;
use crate::place::Place;
use crate::process::{beside, together};
use crate::sample::Sample;
use crate::stats::spread;

/// The time from one message to the next.
const GAP: Duration = Duration::from_millis(1);

/// How many messages go first: a forked process pays for the memory that it touches for the first time.
const FIRST: u32 = 100;

/// How many unused channels there are, if the process may have that many descriptors.
const CHANNELS: u32 = 10_000;

/// The rows of waiting. `descriptors` is how many a process may have.
pub(super) fn rows(descriptors: u64) -> Vec<Row> {
    let count = channels(CHANNELS, descriptors);
    let memory = format!("each of {count} channels");
    let count = u64::from(count);
    vec![
        row(
            "paced",
            "one message a millisecond".to_owned(),
            Unit::Time,
            Pace::Fixed(300, 30),
            || every_wait(Paced),
        ),
        row(
            "idle",
            "no message".to_owned(),
            Unit::TimeASecond,
            Pace::Fixed(500, 50),
            || every_wait(Idle),
        ),
        row(
            "memory",
            memory,
            Unit::Bytes,
            Pace::Fixed(count, count),
            || every_small(Memory),
        ),
    ]
}

fn row(
    item: &'static str,
    title: String,
    unit: Unit,
    pace: Pace,
    entries: fn() -> Vec<Entry>,
) -> Row {
    Row {
        item,
        title,
        scale: None,
        unit,
        pace,
        entries: Box::new(entries),
    }
}

/// Now, in nanoseconds, on a clock that all processes share.
fn now() -> Outcome<u64> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    Ok(u64::try_from(now.as_nanos())?)
}

#[derive(Clone, Copy)]
struct Paced;

impl Job for Paced {
    fn run<C: Carrier<T>, T: Message>(self, load: &T, operations: u64) -> Outcome<Sample> {
        let (mut tx, mut rx) = C::open(load)?;
        let (usage, arrivals, tallies) = beside(
            Place::Apart,
            C::IN_THREADS,
            move |side| {
                let mut departures = Vec::new();
                for _ in 0..FIRST {
                    C::send(&mut tx, load)?;
                }
                side.start()?;
                let mut due = Instant::now();
                for _ in 0..operations {
                    due += GAP;
                    sleep(due.saturating_duration_since(Instant::now()));
                    departures.push(now()?);
                    C::send(&mut tx, load)?;
                }
                Ok(departures)
            },
            move |side| {
                let mut arrivals = Vec::new();
                for _ in 0..FIRST {
                    expect::<C, T>(&mut rx, load)?;
                }
                side.start()?;
                for _ in 0..operations {
                    expect::<C, T>(&mut rx, load)?;
                    arrivals.push(now()?);
                }
                side.stop()?;
                Ok(arrivals)
            },
        )?;
        let departures = tallies.first().context("the sender has no numbers")?;
        ensure!(departures.len() == arrivals.len(), "messages are missing");
        #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let delays = departures
            .iter()
            .zip(&arrivals)
            .map(|(from, to)| to.saturating_sub(*from) as f64);
        let delay = spread(delays).context("no messages")?;
        Ok(Sample {
            value: delay.median,
            ..usage.per(operations)
        })
    }
}

#[derive(Clone, Copy)]
struct Idle;

impl Job for Idle {
    fn run<C: Carrier<T>, T: Message>(self, load: &T, operations: u64) -> Outcome<Sample> {
        let (mut tx, mut rx) = C::open(load)?;
        let (usage, (), _) = beside(
            Place::Apart,
            C::IN_THREADS,
            move |side| {
                for _ in 0..FIRST {
                    C::send(&mut tx, load)?;
                }
                side.start()?;
                sleep(Duration::from_millis(operations));
                C::send(&mut tx, load)?;
                Ok(Vec::new())
            },
            move |side| {
                for _ in 0..FIRST {
                    expect::<C, T>(&mut rx, load)?;
                }
                side.start()?;
                expect::<C, T>(&mut rx, load)?;
                side.stop()
            },
        )?;
        let a_second = usage.cpu.as_secs_f64() / usage.wall.as_secs_f64() * 1e9;
        Ok(Sample {
            value: a_second,
            cpu: a_second,
        })
    }
}

#[derive(Clone, Copy)]
struct Memory;

impl Job for Memory {
    fn run<C: Carrier<T>, T: Message>(self, load: &T, operations: u64) -> Outcome<Sample> {
        let count = usize::try_from(operations)?;
        let mut channels = Vec::with_capacity(count);
        let (usage, grown, _) = together(Vec::new(), |side| {
            let before = own_memory()?;
            side.start()?;
            for _ in 0..operations {
                channels.push(C::open(load)?);
            }
            side.stop()?;
            Ok(own_memory()?.saturating_sub(before))
        })?;
        #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        Ok(Sample {
            value: grown as f64 / operations as f64,
            ..usage.per(operations)
        })
    }
}

/// How much memory this process has that it does not share with the one it was forked from, in bytes. `VmRSS`
/// would miss what is written to memory that was there before.
fn own_memory() -> Outcome<u64> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let mut lines = rollup.lines();
    let line = lines.find_map(|line| line.strip_prefix("Private_Dirty:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kilobytes.context("no Private_Dirty")?.parse::<u64>()? * 1024)
}
