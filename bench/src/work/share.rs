//! The same bytes to several processes.

use std::sync::Arc;

use anyhow::{Context, ensure};
use ipc_channel::ipc::{
    IpcBytesReceiver, IpcBytesSender, IpcReceiver, IpcSender, IpcSharedMemory, bytes_channel,
};
use wormhole::{Blob, Receiver, Sender};

use super::talk::expect;
use super::{Entry, Row, size_name};
use crate::Outcome;
use crate::message;
use crate::peer::ipc_channel::IpcChannel;
use crate::peer::wormhole::Wormhole;
use crate::peer::{self, Carrier};
use crate::place::Place;
use crate::process::{Part, Side, together};
use crate::sample::Sample;

/// How many processes receive them.
const RECEIVERS: usize = 8;

/// How many bytes.
const SIZES: [u32; 3] = [64 << 10, 1 << 20, 16 << 20];

/// The rows of bytes for several.
pub(super) fn rows() -> Vec<Row> {
    SIZES.into_iter().map(row).collect()
}

fn row(size: u32) -> Row {
    Row::timed("share", size_name(size), Some(size), move || entries(size))
}

fn entries(size: u32) -> Vec<Entry> {
    let text = &Arc::new(message::text(size as usize));
    vec![
        entry::<Shared, Wormhole>(peer::WORMHOLE, text),
        entry::<Small, Wormhole>("wormhole, small messages", text),
        entry::<Copies, Wormhole>("wormhole, in the message", text),
        entry::<IpcShared, IpcChannel>("ipc-channel, shared memory", text),
        entry::<IpcBytes, IpcChannel>("ipc-channel, bytes channel", text),
    ]
}

fn entry<S: Share + 'static, D: Carrier<()> + 'static>(
    name: &'static str,
    text: &Arc<String>,
) -> Entry {
    let text = Arc::clone(text);
    Entry::new(name, move |operations| to_all::<S, D>(&text, operations))
}

/// A way to get a text to several processes, made ready once and sent often.
trait Share {
    type Ready;
    type Tx;
    type Rx;

    fn ready(text: &str) -> Outcome<Self::Ready>;
    fn open() -> Outcome<(Self::Tx, Self::Rx)>;
    fn send(tx: &Self::Tx, ready: &Self::Ready) -> Outcome<()>;
    /// Receives it, and looks at its length and its last byte.
    fn recv(rx: &Self::Rx, text: &str) -> Outcome<()>;
}

/// To all of them, and an acknowledgement by each.
fn to_all<S: Share, D: Carrier<()>>(text: &str, operations: u64) -> Outcome<Sample> {
    let ready = S::ready(text)?;
    let (ack, mut acked) = D::open(&())?;
    let ack = std::cell::Cell::new(Some(ack));
    let mut txs = Vec::new();
    let mut parts: Vec<Part<'_>> = Vec::new();
    for _ in 0..RECEIVERS {
        let (tx, rx) = S::open()?;
        txs.push(tx);
        let ack = &ack;
        parts.push(Box::new(move |side: &mut Side| {
            Place::Together.settle(1)?;
            let mut ack = ack.take().context("the sender is taken")?;
            side.repeat(operations, |_| {
                S::recv(&rx, text)?;
                D::send(&mut ack, &())
            })?;
            Ok(Vec::new())
        }));
    }
    let (usage, (), _) = together(parts, |side| {
        drop(ack.take());
        Place::Together.settle(0)?;
        side.repeat(operations, |_| {
            for tx in &txs {
                S::send(tx, &ready)?;
            }
            for _ in 0..RECEIVERS {
                expect::<D, ()>(&mut acked, &())?;
            }
            Ok(())
        })?;
        side.stop()
    })?;
    Ok(usage.per(operations))
}

fn check(received: &[u8], text: &str) -> Outcome<()> {
    let same = received.len() == text.len() && received.last() == text.as_bytes().last();
    ensure!(same, "something else arrived than was sent");
    Ok(())
}

/// One `Blob` for all.
struct Shared;

impl Share for Shared {
    type Ready = Blob;
    type Tx = Sender<Blob>;
    type Rx = Receiver<Blob>;

    fn ready(text: &str) -> Outcome<Blob> {
        Ok(Blob::from_bytes(text.as_bytes())?)
    }

    fn open() -> Outcome<(Self::Tx, Self::Rx)> {
        Ok(wormhole::channel()?)
    }

    fn send(tx: &Self::Tx, blob: &Blob) -> Outcome<()> {
        Ok(tx.by_ref().send(blob)?)
    }

    fn recv(rx: &Self::Rx, text: &str) -> Outcome<()> {
        check(&rx.recv()?, text)
    }
}

/// A small message instead, for comparison: nothing of the text.
struct Small;

impl Share for Small {
    type Ready = message::Small;
    type Tx = Sender<message::Small>;
    type Rx = Receiver<message::Small>;

    fn ready(_: &str) -> Outcome<message::Small> {
        Ok(message::small())
    }

    fn open() -> Outcome<(Self::Tx, Self::Rx)> {
        Ok(wormhole::channel()?)
    }

    fn send(tx: &Self::Tx, small: &message::Small) -> Outcome<()> {
        Ok(tx.by_ref().send(small)?)
    }

    fn recv(rx: &Self::Rx, _: &str) -> Outcome<()> {
        ensure!(rx.recv()? == message::small(), "something else arrived");
        Ok(())
    }
}

/// The text as the message.
struct Copies;

impl Share for Copies {
    type Ready = String;
    type Tx = Sender<String>;
    type Rx = Receiver<String>;

    fn ready(text: &str) -> Outcome<String> {
        Ok(text.to_owned())
    }

    fn open() -> Outcome<(Self::Tx, Self::Rx)> {
        Ok(wormhole::channel()?)
    }

    fn send(tx: &Self::Tx, text: &String) -> Outcome<()> {
        Ok(tx.by_ref().send(text)?)
    }

    fn recv(rx: &Self::Rx, text: &str) -> Outcome<()> {
        check(rx.recv()?.as_bytes(), text)
    }
}

/// The shared memory of ipc-channel, one for all.
struct IpcShared;

impl Share for IpcShared {
    type Ready = IpcSharedMemory;
    type Tx = IpcSender<IpcSharedMemory>;
    type Rx = IpcReceiver<IpcSharedMemory>;

    fn ready(text: &str) -> Outcome<IpcSharedMemory> {
        Ok(IpcSharedMemory::from_bytes(text.as_bytes()))
    }

    fn open() -> Outcome<(Self::Tx, Self::Rx)> {
        Ok(ipc_channel::ipc::channel()?)
    }

    fn send(tx: &Self::Tx, memory: &IpcSharedMemory) -> Outcome<()> {
        Ok(tx.send(memory.clone())?)
    }

    fn recv(rx: &Self::Rx, text: &str) -> Outcome<()> {
        check(&rx.recv()?, text)
    }
}

/// The bytes in packets of ipc-channel.
struct IpcBytes;

impl Share for IpcBytes {
    type Ready = Vec<u8>;
    type Tx = IpcBytesSender;
    type Rx = IpcBytesReceiver;

    fn ready(text: &str) -> Outcome<Vec<u8>> {
        Ok(text.as_bytes().to_owned())
    }

    fn open() -> Outcome<(Self::Tx, Self::Rx)> {
        Ok(bytes_channel()?)
    }

    fn send(tx: &Self::Tx, bytes: &Vec<u8>) -> Outcome<()> {
        Ok(tx.send(bytes)?)
    }

    fn recv(rx: &Self::Rx, text: &str) -> Outcome<()> {
        check(&rx.recv()?, text)
    }
}
