//! The price of an awaited message between two processes: wormhole's ends in tokio and in async-io, beside its blocking
//! ends and beside what else there is for tokio.
//!
//! `cargo bench -p wormhole-bench --bench runtimes` takes about a minute. All ways take turns, round by round;
//! what it prints are medians, and ratios of medians. Each process has one thread, on a processor of its own.

#![allow(unsafe_code, reason = "the other process is a fork")]
#![allow(missing_docs, reason = "a program")]

use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{env, process};

use futures_util::StreamExt;
use futures_util::future::join_all;
use ipc_channel::ipc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio_seqpacket::UnixSeqpacket;
use wormhole::channel;

type Message = (u32, String, Vec<i32>);

const ROUNDS: usize = 300;
const MESSAGES: usize = 480;
const TASKS: usize = 16;

fn message() -> Message {
    (1776, "hello world!".to_owned(), vec![5, 4, 3, 2, 1])
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// One way, and the process at its other side.
struct Way {
    name: &'static str,
    child: Pid,
    told: File,
    round: Box<dyn FnMut()>,
}

impl Way {
    /// `other` runs in a process of its own, and calls what it is given after each round.
    fn new<F: FnMut() + 'static>(
        name: &'static str,
        other: impl FnOnce(&mut dyn FnMut()),
        own: impl FnOnce() -> F,
    ) -> Way {
        let (told, tell) = pipe().unwrap();
        // SAFETY: this process has one thread.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                drop(own);
                pin(1);
                let mut tell = File::from(tell);
                other(&mut || tell.write_all(&[1]).unwrap());
                process::exit(0)
            }
            ForkResult::Parent { child } => {
                drop(other);
                let (told, round) = (File::from(told), Box::new(own()));
                Way {
                    name,
                    child,
                    told,
                    round,
                }
            }
        }
    }

    fn round(&mut self) -> Duration {
        let start = Instant::now();
        (self.round)();
        self.told.read_exact(&mut [0]).unwrap();
        start.elapsed()
    }
}

/// Pins the calling process to one of the processors that it may use.
fn pin(place: usize) {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let processors: Vec<usize> = (0..CpuSet::count())
        .filter(|&cpu| allowed.is_set(cpu).unwrap())
        .collect();
    let mut one = CpuSet::new();
    one.set(processors[place % processors.len()]).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
}

/// Runs a future of this process's event loop.
trait BlockOn: Clone + 'static {
    fn block_on<F: Future>(&self, future: F) -> F::Output;
}

impl BlockOn for Rc<Runtime> {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        Runtime::block_on(self, future)
    }
}

#[derive(Clone)]
struct Smol;

impl BlockOn for Smol {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        async_io::block_on(future)
    }
}

fn blocking() -> Way {
    let (tx, rx) = channel::<Message>().unwrap();
    let other = move |tell: &mut dyn FnMut()| {
        loop {
            for _ in 0..MESSAGES {
                assert_eq!(rx.recv().unwrap().0, 1776);
            }
            tell();
        }
    };
    Way::new("wormhole, blocking", other, || {
        let message = message();
        move || (0..MESSAGES).for_each(|_| tx.by_ref().send(&message).unwrap())
    })
}

/// Both sides in an event loop, each with so many tasks.
macro_rules! awaited {
    ($name:literal, $ends:ident, $make:expr, $tasks:expr) => {{
        let (tx, rx) = channel::<Message>().unwrap();
        let other = move |tell: &mut dyn FnMut()| {
            let runs = $make;
            runs.block_on(async {
                let rx = wormhole::$ends::Receiver::new(rx).unwrap();
                let receive = |rx: wormhole::$ends::Receiver<Message>| async move {
                    for _ in 0..MESSAGES / $tasks {
                        assert_eq!(rx.recv().await.unwrap().0, 1776);
                    }
                };
                loop {
                    if $tasks == 1 {
                        receive(rx.clone()).await;
                    } else {
                        join_all((0..$tasks).map(|_| receive(rx.clone()))).await;
                    }
                    tell();
                }
            });
        };
        Way::new($name, other, || {
            let (runs, message) = ($make, message());
            let tx = runs.block_on(async { wormhole::$ends::Sender::new(tx) });
            let tx = tx.unwrap();
            move || {
                let send = || async {
                    for _ in 0..MESSAGES / $tasks {
                        tx.by_ref().send(&message).await.unwrap();
                    }
                };
                runs.block_on(async {
                    if $tasks == 1 {
                        send().await;
                    } else {
                        join_all((0..$tasks).map(|_| send())).await;
                    }
                });
            }
        })
    }};
}

/// The ipc-channel's sender blocks; its stream has a thread.
fn ipc_stream() -> Way {
    let (tx, rx) = ipc::channel::<Message>().unwrap();
    let other = move |tell: &mut dyn FnMut()| {
        runtime().block_on(async {
            let mut stream = rx.to_stream();
            loop {
                for _ in 0..MESSAGES {
                    assert_eq!(stream.next().await.unwrap().unwrap().0, 1776);
                }
                tell();
            }
        });
    };
    Way::new("ipc-channel, stream", other, || {
        let message = message();
        move || (0..MESSAGES).for_each(|_| tx.send(message.clone()).unwrap())
    })
}

async fn send_packet(socket: &UnixSeqpacket, packet: &mut Vec<u8>, message: &Message) {
    packet.clear();
    serde_json::to_writer(&mut *packet, message).unwrap();
    socket.send(packet).await.unwrap();
}

async fn recv_packet(socket: &UnixSeqpacket, packet: &mut [u8]) -> Message {
    let len = socket.recv(packet).await.unwrap();
    serde_json::from_slice(&packet[..len]).unwrap()
}

fn seqpacket() -> Way {
    let make = runtime();
    let (tx, rx) = {
        let _entered = make.enter();
        let (tx, rx) = UnixSeqpacket::pair().unwrap();
        let raw = |socket: UnixSeqpacket| std::os::fd::OwnedFd::from(socket);
        (raw(tx), raw(rx))
    };
    let other = move |tell: &mut dyn FnMut()| {
        runtime().block_on(async {
            let rx = UnixSeqpacket::try_from(rx).unwrap();
            let mut packet = vec![0; 256 * 1024];
            loop {
                for _ in 0..MESSAGES {
                    assert_eq!(recv_packet(&rx, &mut packet).await.0, 1776);
                }
                tell();
            }
        });
    };
    Way::new("tokio-seqpacket by hand", other, || {
        let (runs, message) = (runtime(), message());
        let tx = runs
            .block_on(async { UnixSeqpacket::try_from(tx) })
            .unwrap();
        let mut packet = Vec::new();
        move || {
            runs.block_on(async {
                for _ in 0..MESSAGES {
                    send_packet(&tx, &mut packet, &message).await;
                }
            });
        }
    })
}

async fn send_line(stream: &mut UnixStream, line: &mut Vec<u8>, message: &Message) {
    line.clear();
    serde_json::to_writer(&mut *line, message).unwrap();
    line.push(b'\n');
    stream.write_all(line).await.unwrap();
}

async fn recv_line(stream: &mut BufReader<UnixStream>, line: &mut String) -> Message {
    line.clear();
    stream.read_line(line).await.unwrap();
    serde_json::from_str(line).unwrap()
}

fn from_std(stream: std::os::unix::net::UnixStream) -> UnixStream {
    stream.set_nonblocking(true).unwrap();
    UnixStream::from_std(stream).unwrap()
}

fn json_lines() -> Way {
    let (tx, rx) = std::os::unix::net::UnixStream::pair().unwrap();
    let other = move |tell: &mut dyn FnMut()| {
        runtime().block_on(async {
            let (mut rx, mut line) = (BufReader::new(from_std(rx)), String::new());
            loop {
                for _ in 0..MESSAGES {
                    assert_eq!(recv_line(&mut rx, &mut line).await.0, 1776);
                }
                tell();
            }
        });
    };
    Way::new("tokio UnixStream, JSON lines", other, || {
        let (runs, message, mut line) = (runtime(), message(), Vec::new());
        let mut tx = runs.block_on(async { from_std(tx) });
        move || {
            runs.block_on(async {
                for _ in 0..MESSAGES {
                    send_line(&mut tx, &mut line, &message).await;
                }
            });
        }
    })
}

/// There and back, so many times a round.
const TRIPS: usize = 100;

fn blocking_trips() -> Way {
    let (tx, far_rx) = channel::<Message>().unwrap();
    let (far_tx, rx) = channel::<Message>().unwrap();
    let other = move |tell: &mut dyn FnMut()| {
        loop {
            for _ in 0..TRIPS {
                far_tx.send(far_rx.recv().unwrap()).unwrap();
            }
            tell();
        }
    };
    Way::new("wormhole, blocking", other, || {
        let message = message();
        move || {
            for _ in 0..TRIPS {
                tx.by_ref().send(&message).unwrap();
                assert_eq!(rx.recv().unwrap().0, 1776);
            }
        }
    })
}

macro_rules! awaited_trips {
    ($name:literal, $ends:ident, $make:expr) => {{
        let (tx, far_rx) = channel::<Message>().unwrap();
        let (far_tx, rx) = channel::<Message>().unwrap();
        let other = move |tell: &mut dyn FnMut()| {
            let runs = $make;
            runs.block_on(async {
                let rx = wormhole::$ends::Receiver::new(far_rx).unwrap();
                let tx = wormhole::$ends::Sender::new(far_tx).unwrap();
                loop {
                    for _ in 0..TRIPS {
                        tx.send(rx.recv().await.unwrap()).await.unwrap();
                    }
                    tell();
                }
            });
        };
        Way::new($name, other, || {
            let (runs, message) = ($make, message());
            let (tx, rx) = runs.block_on(async {
                (
                    wormhole::$ends::Sender::new(tx).unwrap(),
                    wormhole::$ends::Receiver::new(rx).unwrap(),
                )
            });
            move || {
                runs.block_on(async {
                    for _ in 0..TRIPS {
                        tx.by_ref().send(&message).await.unwrap();
                        assert_eq!(rx.recv().await.unwrap().0, 1776);
                    }
                });
            }
        })
    }};
}

fn seqpacket_trips() -> Way {
    let make = runtime();
    let (near, far) = {
        let _entered = make.enter();
        let (near, far) = UnixSeqpacket::pair().unwrap();
        let raw = |socket: UnixSeqpacket| std::os::fd::OwnedFd::from(socket);
        (raw(near), raw(far))
    };
    let other = move |tell: &mut dyn FnMut()| {
        runtime().block_on(async {
            let far = UnixSeqpacket::try_from(far).unwrap();
            let (mut packet, mut room) = (Vec::new(), vec![0; 256 * 1024]);
            loop {
                for _ in 0..TRIPS {
                    let message = recv_packet(&far, &mut room).await;
                    send_packet(&far, &mut packet, &message).await;
                }
                tell();
            }
        });
    };
    Way::new("tokio-seqpacket by hand", other, || {
        let (runs, message) = (runtime(), message());
        let near = runs
            .block_on(async { UnixSeqpacket::try_from(near) })
            .unwrap();
        let (mut packet, mut room) = (Vec::new(), vec![0; 256 * 1024]);
        move || {
            runs.block_on(async {
                for _ in 0..TRIPS {
                    send_packet(&near, &mut packet, &message).await;
                    assert_eq!(recv_packet(&near, &mut room).await.0, 1776);
                }
            });
        }
    })
}

fn measure(title: &str, operations: usize, mut ways: Vec<Way>) {
    pin(0);
    let mut times = vec![Vec::new(); ways.len()];
    for number in 0..ROUNDS {
        for turn in 0..ways.len() {
            let way = (number + turn) % ways.len(); // none always comes after the same one
            times[way].push(ways[way].round());
        }
    }
    let medians: Vec<f64> = times
        .iter_mut()
        .map(|times| {
            times.sort_unstable();
            times[times.len() / 2].as_secs_f64() * 1e9 / operations as f64
        })
        .collect();
    println!("\n{title}");
    for (way, median) in ways.iter().zip(&medians) {
        let ratio = median / medians[0];
        println!("  {:30} {median:7.0} ns, {ratio:.2} of blocking", way.name);
    }
    for way in ways {
        kill(way.child, Signal::SIGKILL).unwrap();
        waitpid(way.child, None).unwrap();
    }
}

fn main() {
    // `cargo bench` passes `--bench`; `cargo test --benches` does not.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }
    // SAFETY: this process has one thread. async-io starts one in the process that uses it first, so that the
    // measurements run in a process each.
    let apart = |measured: fn()| match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            measured();
            process::exit(0)
        }
        ForkResult::Parent { child } => drop(waitpid(child, None).unwrap()),
    };
    apart(|| {
        let ways = vec![
            blocking(),
            awaited!("wormhole in tokio", tokio, Rc::new(runtime()), 1),
            awaited!(
                "wormhole in tokio, 16 tasks",
                tokio,
                Rc::new(runtime()),
                TASKS
            ),
            ipc_stream(),
            seqpacket(),
            json_lines(),
            awaited!("wormhole in async-io", async_io, Smol, 1),
        ];
        measure("One way, a message", MESSAGES, ways);
    });
    apart(|| {
        let ways = vec![
            blocking_trips(),
            awaited_trips!("wormhole in tokio", tokio, Rc::new(runtime())),
            seqpacket_trips(),
            awaited_trips!("wormhole in async-io", async_io, Smol),
        ];
        measure("There and back", TRIPS, ways);
    });
}
