//! Messages between two sides: there and back, one way, of several sizes. And making a channel.

use anyhow::ensure;

use super::{Entry, Job, Row, every, every_small, every_wait, size_name};
use crate::Outcome;
use crate::message::{self, Message};
use crate::peer::{self, Carrier, Got, python};
use crate::place::Place;
use crate::process::beside;
use crate::sample::{Sample, Usage};

/// The sizes of texts and lists, in bytes of JSON.
const SIZES: [u32; 6] = [64, 1 << 10, 16 << 10, 128 << 10, 1 << 20, 16 << 20];

/// Where the two sides are, and what that is called.
const PLACES: [(Place, &str); 2] = [
    (Place::Apart, "on two cores"),
    (Place::Together, "on one core"),
];

/// Receives, and fails at the end of the channel.
pub(super) fn expect<C: Carrier<L>, L>(rx: &mut C::Rx, load: &L) -> Outcome<()> {
    let got = C::recv(rx, load)?;
    ensure!(got == Got::Message, "the channel ended early");
    Ok(())
}

/// Sends a load and receives another one in return, `operations` times.
pub(super) fn round_trip<C, D, L, M>(
    place: Place,
    there: &L,
    back: &M,
    operations: u64,
) -> Outcome<Sample>
where
    C: Carrier<L>,
    D: Carrier<M>,
    L: Sync,
    M: Sync,
{
    let (mut tx, mut far_rx) = C::open(there)?;
    let (mut far_tx, mut rx) = D::open(back)?;
    let (usage, (), _) = beside(
        place,
        C::IN_THREADS,
        move |side| {
            side.repeat(operations, |_| {
                expect::<C, L>(&mut far_rx, there)?;
                D::send(&mut far_tx, back)
            })?;
            Ok(Vec::new())
        },
        move |side| {
            side.repeat(operations, |_| {
                C::send(&mut tx, there)?;
                expect::<D, M>(&mut rx, back)
            })?;
            side.stop()
        },
    )?;
    Ok(usage.per(operations))
}

/// Sends a load `operations` times, and receives it on the other side.
pub(super) fn one_way<C: Carrier<L>, L: Sync>(
    place: Place,
    load: &L,
    operations: u64,
) -> Outcome<Usage> {
    let (mut tx, mut rx) = C::open(load)?;
    let (usage, (), _) = beside(
        place,
        C::IN_THREADS,
        move |side| {
            side.repeat(operations, |_| C::send(&mut tx, load))?;
            Ok(Vec::new())
        },
        move |side| {
            side.repeat(operations, |_| expect::<C, L>(&mut rx, load))?;
            side.stop()?;
            let got = C::recv(&mut rx, load);
            ensure!(
                !matches!(got, Ok(Got::Message)),
                "more messages arrived than were sent"
            );
            Ok(())
        },
    )?;
    Ok(usage)
}

#[derive(Clone, Copy)]
struct RoundTrip(Place);

impl Job for RoundTrip {
    fn run<C: Carrier<T>, T: Message>(self, load: &T, operations: u64) -> Outcome<Sample> {
        round_trip::<C, C, T, T>(self.0, load, load, operations)
    }
}

#[derive(Clone, Copy)]
struct OneWay(Place);

impl Job for OneWay {
    fn run<C: Carrier<T>, T: Message>(self, load: &T, operations: u64) -> Outcome<Sample> {
        Ok(one_way::<C, T>(self.0, load, operations)?.per(operations))
    }
}

/// One way, so many messages in each send.
#[derive(Clone, Copy)]
struct InBatches(Place);

/// How many messages.
const BATCH: u64 = 64;

impl Job for InBatches {
    fn run<C: Carrier<T>, T: Message>(self, load: &T, operations: u64) -> Outcome<Sample> {
        let sends = operations.div_ceil(BATCH);
        Ok(one_way::<C, T>(self.0, load, sends)?.per(sends * BATCH))
    }
}

#[derive(Clone, Copy)]
struct Create;

impl Job for Create {
    fn run<C: Carrier<T>, T: Message>(self, load: &T, operations: u64) -> Outcome<Sample> {
        let (usage, (), _) = crate::process::together(Vec::new(), |side| {
            side.repeat(operations, |_| {
                drop(C::open(load)?);
                Ok(())
            })?;
            side.stop()
        })?;
        Ok(usage.per(operations))
    }
}

/// The rows of two sides that talk.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (place, name) in PLACES {
        let entries = move || trips(place);
        rows.push(Row::timed("round-trip", name.to_owned(), None, entries));
    }
    for (place, name) in PLACES {
        let entries = move || streams(place);
        rows.push(Row::timed("stream", name.to_owned(), None, entries));
    }
    let title = format!("{BATCH} messages a send, on two cores");
    rows.push(Row::timed("stream", title, None, || {
        let batch = (0..BATCH).map(|_| message::small()).collect::<Vec<_>>();
        every(InBatches(Place::Apart), batch)
    }));
    for size in SIZES {
        let texts = move || every(OneWay(Place::Apart), message::text(size as usize));
        rows.push(Row::timed("text", size_name(size), Some(size), texts));
    }
    for size in SIZES {
        let lists = move || every(OneWay(Place::Apart), message::records(size as usize));
        rows.push(Row::timed("records", size_name(size), Some(size), lists));
    }
    rows
}

/// The row of making channels.
pub(super) fn creation() -> Vec<Row> {
    let entries = || every_small(Create);
    vec![Row::timed(
        "create",
        "one channel".to_owned(),
        None,
        entries,
    )]
}

fn trips(place: Place) -> Vec<Entry> {
    let mut entries = every_wait(RoundTrip(place));
    entries.push(in_python(peer::PYTHON, move |operations| {
        python::round_trip(place, operations)
    }));
    entries.push(in_python(peer::WORMHOLE_PYTHON, move |operations| {
        python::round_trip_to_rust(place, operations)
    }));
    entries
}

fn streams(place: Place) -> Vec<Entry> {
    let mut entries = every_small(OneWay(place));
    entries.push(in_python(peer::PYTHON, move |operations| {
        python::one_way(place, operations)
    }));
    entries
}

fn in_python(name: &'static str, run: impl Fn(u64) -> Outcome<Sample> + 'static) -> Entry {
    match python::version() {
        Some(_) => Entry::new(name, run),
        None => Entry::cannot(name, "no python3 here"),
    }
}
