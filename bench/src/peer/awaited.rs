//! The contenders whose ends are awaited, by tasks of an event loop.

use std::future::Future;
use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::os::unix::net;
use std::sync::Arc;

use anyhow::Context;
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, TryStreamExt};
use ipc_channel::asynch::IpcStream;
use ipc_channel::ipc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_seqpacket::UnixSeqpacket;

use super::Got;
use crate::Outcome;
use crate::message::Small;

/// Room for as many descriptors as a packet can carry, 253, and their header.
const CONTROL_LEN: usize = 253 * 4 + 16;

/// The names of those that are other than wormhole in tokio.
pub(crate) const BLOCKING: &str = "wormhole, blocking";
pub(crate) const IN_ASYNC_IO: &str = "wormhole, async-io";
pub(crate) const IPC_STREAM: &str = "ipc-channel, stream";
pub(crate) const SEQPACKET: &str = "tokio-seqpacket";
pub(crate) const SEQPACKET_FDS: &str = "tokio-seqpacket, fds";
pub(crate) const JSON_LINES: &str = "JSON lines, tokio";

/// An event loop in the calling thread.
pub(crate) trait EventLoop: Sized {
    /// Starts it.
    fn start() -> Outcome<Self>;

    /// Runs a future to its end.
    fn run<F: Future>(&self, future: F) -> F::Output;

    /// Inside of it: runs tasks to their end.
    fn all<F, T>(tasks: Vec<F>) -> impl Future<Output = Outcome<Vec<T>>>
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
        T: Send + 'static;
}

impl EventLoop for Runtime {
    fn start() -> Outcome<Self> {
        Ok(Builder::new_current_thread().enable_all().build()?)
    }

    fn run<F: Future>(&self, future: F) -> F::Output {
        self.block_on(future)
    }

    async fn all<F, T>(tasks: Vec<F>) -> Outcome<Vec<T>>
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
        T: Send + 'static,
    {
        let mut running: JoinSet<Outcome<T>> = tasks.into_iter().collect();
        let mut results = Vec::new();
        while let Some(result) = running.join_next().await {
            results.push(result??);
        }
        Ok(results)
    }
}

/// That of async-io. It has no executor, so the tasks are parts of one.
pub(crate) struct AsyncIo;

impl EventLoop for AsyncIo {
    fn start() -> Outcome<Self> {
        Ok(AsyncIo)
    }

    fn run<F: Future>(&self, future: F) -> F::Output {
        async_io::block_on(future)
    }

    async fn all<F, T>(tasks: Vec<F>) -> Outcome<Vec<T>>
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
        T: Send + 'static,
    {
        let running: FuturesUnordered<F> = tasks.into_iter().collect();
        running.try_collect().await
    }
}

/// A contender as a carrier of the small message between tasks of two processes.
pub(crate) trait Awaited {
    /// The event loop that its ends are for.
    type Loop: EventLoop;
    /// The sending end before it is registered.
    type Sending: Send;
    /// The receiving end before it is registered.
    type Receiving: Send;
    /// The sending end, as each task has it.
    type Tx: Send + 'static;
    /// The receiving end, as each task has it.
    type Rx: Send + 'static;

    /// Makes a channel.
    fn open() -> Outcome<(Self::Sending, Self::Receiving)>;

    /// Registers a sending end, for so many tasks.
    fn senders(end: Self::Sending, tasks: usize) -> Outcome<Vec<Self::Tx>>;

    /// Registers a receiving end, for so many tasks.
    fn receivers(end: Self::Receiving, tasks: usize) -> Outcome<Vec<Self::Rx>>;

    /// Sends a message of its own, equal to `load`: it is made for this send.
    fn send(tx: &mut Self::Tx, load: &Small) -> impl Future<Output = Outcome<()>> + Send;

    /// Receives a message, and fails unless it is equal to `load`.
    fn recv(rx: &mut Self::Rx, load: &Small) -> impl Future<Output = Outcome<Got>> + Send;
}

/// The same thing, so many times.
fn times<T: Clone>(thing: T, tasks: usize) -> Vec<T> {
    vec![thing; tasks]
}

/// wormhole's ends of a module.
macro_rules! wormhole_in {
    ($Name:ident, $Loop:ty, $module:ident) => {
        pub(crate) struct $Name;

        impl Awaited for $Name {
            type Loop = $Loop;
            type Sending = wormhole::Sender<Small>;
            type Receiving = wormhole::Receiver<Small>;
            type Tx = wormhole::$module::Sender<Small>;
            type Rx = wormhole::$module::Receiver<Small>;

            fn open() -> Outcome<(Self::Sending, Self::Receiving)> {
                Ok(wormhole::channel()?)
            }

            fn senders(end: Self::Sending, tasks: usize) -> Outcome<Vec<Self::Tx>> {
                Ok(times(Self::Tx::new(end)?, tasks))
            }

            fn receivers(end: Self::Receiving, tasks: usize) -> Outcome<Vec<Self::Rx>> {
                Ok(times(Self::Rx::new(end)?, tasks))
            }

            async fn send(tx: &mut Self::Tx, load: &Small) -> Outcome<()> {
                Ok(tx.send(load.clone()).await?)
            }

            async fn recv(rx: &mut Self::Rx, load: &Small) -> Outcome<Got> {
                Got::checked(rx.recv().await? == *load)
            }
        }
    };
}

wormhole_in!(WormholeInTokio, Runtime, tokio);
wormhole_in!(WormholeInAsyncIo, AsyncIo, async_io);

/// What tasks cannot share, with a lock around it where there are several.
pub(crate) enum Shared<T> {
    Alone(T),
    Among(Arc<Mutex<T>>),
}

impl<T> Shared<T> {
    fn among(thing: T, tasks: usize) -> Vec<Self> {
        if tasks == 1 {
            return vec![Shared::Alone(thing)];
        }
        let shared = times(Arc::new(Mutex::new(thing)), tasks);
        shared.into_iter().map(Shared::Among).collect()
    }
}

/// Gives `thing` as a `&mut T`, locked while the rest of the block runs.
macro_rules! locked {
    ($shared:expr => $thing:ident) => {
        let mut guard;
        let $thing = match $shared {
            Shared::Alone(thing) => thing,
            Shared::Among(shared) => {
                guard = shared.lock().await;
                &mut *guard
            }
        };
    };
}

/// `ipc-channel`, whose sender blocks, and whose stream has a thread.
pub(crate) struct IpcChannelStream;

impl Awaited for IpcChannelStream {
    type Loop = Runtime;
    type Sending = ipc::IpcSender<Small>;
    type Receiving = ipc::IpcReceiver<Small>;
    type Tx = ipc::IpcSender<Small>;
    type Rx = Shared<IpcStream<Small>>;

    fn open() -> Outcome<(Self::Sending, Self::Receiving)> {
        Ok(ipc::channel()?)
    }

    fn senders(end: Self::Sending, tasks: usize) -> Outcome<Vec<Self::Tx>> {
        Ok(times(end, tasks))
    }

    fn receivers(end: Self::Receiving, tasks: usize) -> Outcome<Vec<Self::Rx>> {
        Ok(Shared::among(end.to_stream(), tasks))
    }

    async fn send(tx: &mut Self::Tx, load: &Small) -> Outcome<()> {
        Ok(tx.send(load.clone())?)
    }

    async fn recv(rx: &mut Self::Rx, load: &Small) -> Outcome<Got> {
        locked!(rx => stream);
        match stream.next().await {
            Some(message) => Got::checked(message? == *load),
            None => Ok(Got::End),
        }
    }
}

/// `tokio-seqpacket` with serde_json, as it is written by hand. Descriptors beside a message are lost, unless there is room
/// for as many as may come.
pub(crate) struct Seqpacket<const HAS_ROOM: bool>;

impl<const HAS_ROOM: bool> Awaited for Seqpacket<HAS_ROOM> {
    type Loop = Runtime;
    type Sending = OwnedFd;
    type Receiving = OwnedFd;
    type Tx = (Arc<UnixSeqpacket>, Vec<u8>);
    type Rx = (Arc<UnixSeqpacket>, Vec<u8>);

    fn open() -> Outcome<(OwnedFd, OwnedFd)> {
        let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        Ok(socketpair(family, kind, None, flags)?)
    }

    fn senders(end: OwnedFd, tasks: usize) -> Outcome<Vec<Self::Tx>> {
        let socket = Arc::new(UnixSeqpacket::try_from(end)?);
        Ok(times((socket, Vec::new()), tasks))
    }

    fn receivers(end: OwnedFd, tasks: usize) -> Outcome<Vec<Self::Rx>> {
        let socket = Arc::new(UnixSeqpacket::try_from(end)?);
        Ok(times((socket, vec![0; 256 * 1024]), tasks))
    }

    async fn send((socket, packet): &mut Self::Tx, load: &Small) -> Outcome<()> {
        packet.clear();
        serde_json::to_writer(&mut *packet, &load.clone())?;
        socket.send(packet).await?;
        Ok(())
    }

    async fn recv((socket, packet): &mut Self::Rx, load: &Small) -> Outcome<Got> {
        let len = match HAS_ROOM {
            false => socket.recv(packet).await?,
            true => {
                let (mut parts, mut room) = ([IoSliceMut::new(packet)], [0; CONTROL_LEN]);
                let received = socket.recv_vectored_with_ancillary(&mut parts, &mut room);
                received.await?.0
            }
        };
        let text = packet.get(..len).context("a packet beyond its buffer")?;
        Got::checked(serde_json::from_slice::<Small>(text)? == *load)
    }
}

/// tokio's `UnixStream`, and a line of JSON for each message, as it is written by hand.
pub(crate) struct Lines;

impl Lines {
    fn register(end: net::UnixStream) -> Outcome<UnixStream> {
        end.set_nonblocking(true)?;
        Ok(UnixStream::from_std(end)?)
    }
}

impl Awaited for Lines {
    type Loop = Runtime;
    type Sending = net::UnixStream;
    type Receiving = net::UnixStream;
    type Tx = Shared<(UnixStream, Vec<u8>)>;
    type Rx = Shared<(BufReader<UnixStream>, String)>;

    fn open() -> Outcome<(Self::Sending, Self::Receiving)> {
        Ok(net::UnixStream::pair()?)
    }

    fn senders(end: Self::Sending, tasks: usize) -> Outcome<Vec<Self::Tx>> {
        Ok(Shared::among((Self::register(end)?, Vec::new()), tasks))
    }

    fn receivers(end: Self::Receiving, tasks: usize) -> Outcome<Vec<Self::Rx>> {
        let reader = BufReader::new(Self::register(end)?);
        Ok(Shared::among((reader, String::new()), tasks))
    }

    async fn send(tx: &mut Self::Tx, load: &Small) -> Outcome<()> {
        locked!(tx => tx);
        let (stream, line) = tx;
        line.clear();
        serde_json::to_writer(&mut *line, &load.clone())?;
        line.push(b'\n');
        Ok(stream.write_all(line).await?)
    }

    async fn recv(rx: &mut Self::Rx, load: &Small) -> Outcome<Got> {
        locked!(rx => rx);
        let (stream, line) = rx;
        line.clear();
        if stream.read_line(line).await? == 0 {
            return Ok(Got::End);
        }
        Got::checked(serde_json::from_str::<Small>(line)? == *load)
    }
}
