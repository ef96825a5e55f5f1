//! Waiting for a message on one of many receivers.

use std::os::fd::AsFd;

use anyhow::{Context, ensure};
use ipc_channel::ipc::{IpcReceiverSet, IpcSelectionResult, IpcSender};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use wormhole::{Receiver, ReceiverSet, Select, Sender};

use super::talk::expect;
use super::{Entry, Row};
use crate::Outcome;
use crate::peer::ipc_channel::IpcChannel;
use crate::peer::raw::{End, Raw, Room, ends};
use crate::peer::wormhole::Wormhole;
use crate::peer::{self, Carrier, Got};
use crate::place::Place;
use crate::process::beside;
use crate::sample::Sample;

/// Numbers of receivers, if the process may have that many descriptors.
const COUNTS: [u32; 3] = [2, 100, 10_000];

/// Descriptors that a process has besides those of the receivers and senders.
const OTHERS: u64 = 100;

/// How many channels a process can have both ends of, up to `wanted`.
pub(super) fn channels(wanted: u32, descriptors: u64) -> u32 {
    let possible = descriptors.saturating_sub(OTHERS) / 2;
    u32::try_from(possible).map_or(wanted, |possible| wanted.min(possible))
}

/// The rows of waiting for many. `descriptors` is how many a process may have.
pub(super) fn rows(descriptors: u64) -> Vec<Row> {
    let row = |wanted| {
        let count = channels(wanted, descriptors);
        Row::timed(
            "many",
            format!("{count} receivers"),
            Some(count),
            move || entries(count),
        )
    };
    COUNTS.into_iter().map(row).collect()
}

fn entries(count: u32) -> Vec<Entry> {
    const ONE: &str = "no waiting for several";
    vec![
        entry::<WormholeSet, Wormhole>(peer::WORMHOLE, count),
        entry::<WormholeSelect, Wormhole>("wormhole, Select", count),
        entry::<RawSet, Raw>(peer::RAW, count),
        entry::<IpcSet, IpcChannel>(peer::IPC_CHANNEL, count),
        Entry::cannot(peer::UNIX_IPC, ONE),
        Entry::cannot(peer::TINY_NIX_IPC, ONE),
        Entry::cannot(peer::JSON_LINES, ONE),
    ]
}

fn entry<S: Set + 'static, D: Carrier<()> + 'static>(name: &'static str, count: u32) -> Entry {
    Entry::new(name, move |operations| {
        wait_for_one::<S, D>(count, operations)
    })
}

/// Receivers of numbers, of which one is waited for.
trait Set: Sized {
    /// A sending end of one of them.
    type Tx: Send;

    /// Makes that many channels.
    fn open(count: u32) -> Outcome<(Vec<Self::Tx>, Self)>;

    /// Sends a number.
    fn send(tx: &mut Self::Tx, number: u32) -> Outcome<()>;

    /// Receives the next number, whichever receiver it comes to.
    fn next(&mut self) -> Outcome<u32>;
}

/// A number to another receiver each time, and an acknowledgement.
fn wait_for_one<S: Set, D: Carrier<()>>(count: u32, operations: u64) -> Outcome<Sample> {
    let (mut txs, mut set) = S::open(count)?;
    let (mut ack, mut acked) = D::open(&())?;
    // A stride that meets all of them, in no order that would suit a cache.
    let which = move |turn: u64| u32::try_from(turn * 7919 % u64::from(count));
    let (usage, (), _) = beside(
        Place::Together,
        false,
        move |side| {
            side.repeat(operations, |turn| {
                let number = which(turn)?;
                let tx = txs.get_mut(number as usize).context("no such sender")?;
                S::send(tx, number)?;
                expect::<D, ()>(&mut acked, &())
            })?;
            Ok(Vec::new())
        },
        move |side| {
            side.repeat(operations, |turn| {
                let number = set.next()?;
                ensure!(number == which(turn)?, "{number} arrived on turn {turn}");
                D::send(&mut ack, &())
            })?;
            side.stop()
        },
    )?;
    Ok(usage.per(operations))
}

/// `ReceiverSet` of wormhole.
struct WormholeSet(ReceiverSet<u32>);

impl Set for WormholeSet {
    type Tx = Sender<u32>;

    fn open(count: u32) -> Outcome<(Vec<Sender<u32>>, Self)> {
        let mut set = ReceiverSet::new()?;
        let mut txs = Vec::new();
        for _ in 0..count {
            let (tx, rx) = wormhole::channel()?;
            txs.push(tx);
            set.add(rx)?;
        }
        Ok((txs, WormholeSet(set)))
    }

    fn send(tx: &mut Sender<u32>, number: u32) -> Outcome<()> {
        Ok(tx.send(number)?)
    }

    fn next(&mut self) -> Outcome<u32> {
        let (_, number) = self.0.recv()?;
        Ok(number?)
    }
}

/// `Select` of wormhole.
struct WormholeSelect(Vec<Receiver<u32>>);

impl Set for WormholeSelect {
    type Tx = Sender<u32>;

    fn open(count: u32) -> Outcome<(Vec<Sender<u32>>, Self)> {
        let ends = (0..count).map(|_| wormhole::channel());
        let ends: Vec<_> = ends.collect::<Result<_, _>>()?;
        let (txs, rxs) = ends.into_iter().unzip();
        Ok((txs, WormholeSelect(rxs)))
    }

    fn send(tx: &mut Sender<u32>, number: u32) -> Outcome<()> {
        Ok(tx.send(number)?)
    }

    fn next(&mut self) -> Outcome<u32> {
        // As `select!` does, which makes a new set each time.
        let mut select = Select::new();
        for rx in &self.0 {
            select.recv(rx);
        }
        let selected = select.select()?;
        let rx = self.0.get(selected.index()).context("no such receiver")?;
        Ok(selected.recv(rx)?)
    }
}

/// epoll and sockets without a library: the floor.
struct RawSet {
    epoll: Epoll,
    rxs: Vec<End>,
    room: Room,
}

impl Set for RawSet {
    type Tx = (End, u32);

    fn open(count: u32) -> Outcome<(Vec<Self::Tx>, Self)> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let (mut txs, mut rxs) = (Vec::new(), Vec::new());
        for number in 0..count {
            let (tx, rx) = ends(&number.to_le_bytes())?;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, u64::from(number));
            epoll.add(rx.socket.as_fd(), event)?;
            txs.push((tx, number));
            rxs.push(rx);
        }
        let room = Room::new();
        Ok((txs, RawSet { epoll, rxs, room }))
    }

    fn send((tx, own): &mut Self::Tx, number: u32) -> Outcome<()> {
        ensure!(*own == number, "not the sender of {number}");
        tx.send()
    }

    fn next(&mut self) -> Outcome<u32> {
        let mut events = [EpollEvent::empty()];
        self.epoll.wait(&mut events, EpollTimeout::NONE)?;
        let number = u32::try_from(events[0].data())?;
        let rx = self.rxs.get(number as usize).context("no such receiver")?;
        let got = rx.recv(&mut self.room)?;
        ensure!(got == Got::Message, "the channel ended early");
        Ok(number)
    }
}

/// `IpcReceiverSet` of ipc-channel, which gives several results at a time.
struct IpcSet {
    set: IpcReceiverSet,
    results: Vec<IpcSelectionResult>,
}

impl Set for IpcSet {
    type Tx = IpcSender<u32>;

    fn open(count: u32) -> Outcome<(Vec<IpcSender<u32>>, Self)> {
        let mut set = IpcReceiverSet::new()?;
        let mut txs = Vec::new();
        for _ in 0..count {
            let (tx, rx) = ipc_channel::ipc::channel::<u32>()?;
            txs.push(tx);
            set.add(rx)?;
        }
        let results = Vec::new();
        Ok((txs, IpcSet { set, results }))
    }

    fn send(tx: &mut IpcSender<u32>, number: u32) -> Outcome<()> {
        Ok(tx.send(number)?)
    }

    fn next(&mut self) -> Outcome<u32> {
        if self.results.is_empty() {
            self.results = self.set.select()?;
        }
        match self.results.pop().context("no result")? {
            IpcSelectionResult::MessageReceived(_, message) => Ok(message.to()?),
            IpcSelectionResult::ChannelClosed(_) => anyhow::bail!("the channel ended early"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_channels_than_descriptors() {
        assert_eq!(channels(10_000, 1_048_576), 10_000);
        assert_eq!(channels(10_000, 20_000), 9_950);
        assert_eq!(channels(100, 20_000), 100);
        assert_eq!(channels(100, u64::MAX), 100);
    }
}
