//! Python: its own `multiprocessing`, a `Pipe` between two processes or a `Process`, and this repository's client with
//! Rust at the other end.

use std::process::Command;

use anyhow::{Context, bail, ensure};
use wormhole::{channel, spawn_command};

use crate::Outcome;
use crate::message;
use crate::place::Place;
use crate::process::processor_time;
use crate::sample::Sample;

/// The same work, with the same checks. Prints wall and processor time in nanoseconds for each operation.
const PIPE: &str = r#"
import multiprocessing, os, resource, signal, sys, time

class Message:
    def __init__(self):
        self.a, self.b, self.c = 1776, "hello world!", [5, 4, 3, 2, 1]
    def fields(self):
        return (self.a, self.b, self.c)

def used(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime

def settle(core):
    signal.alarm(60)
    if core >= 0:
        os.sched_setaffinity(0, {core})

def check(message):
    assert message.fields() == (1776, "hello world!", [5, 4, 3, 2, 1])

def other_side(pipe, count, warmup, core, replies):
    settle(core)
    for turn in range(count):
        if turn == warmup:
            start = used(resource.RUSAGE_SELF)
        check(pipe.recv())
        if replies:
            pipe.send(Message())
    pipe.send(used(resource.RUSAGE_SELF) - start)

def nothing():
    pass

if __name__ == "__main__":
    work, count, core, other_core = sys.argv[1], *map(int, sys.argv[2:])
    settle(core)
    context = multiprocessing.get_context("fork")
    warmup = count // 11
    near, far = multiprocessing.Pipe()
    other = None
    if work != "process":
        replies = work == "round-trip"
        other = context.Process(target=other_side, args=(far, count, warmup, other_core, replies), daemon=True)
        other.start()
    for turn in range(count):
        if turn == warmup:
            wall, cpu = time.perf_counter(), used(resource.RUSAGE_SELF) + used(resource.RUSAGE_CHILDREN)
        if work == "process":
            child = context.Process(target=nothing)
            child.start()
            child.join()
            assert child.exitcode == 0
            continue
        near.send(Message())
        if work == "round-trip":
            check(near.recv())
    if work == "one-way":
        there = near.recv() # when it has received all of them
    wall, cpu = time.perf_counter() - wall, used(resource.RUSAGE_SELF) + used(resource.RUSAGE_CHILDREN) - cpu
    if work == "round-trip":
        there = near.recv()
    if other:
        other.join()
        cpu += there
    print(wall / (count - warmup) * 1e9, cpu / (count - warmup) * 1e9)
"#;

/// The same through two channels whose other ends Rust has.
const WORMHOLE: &str = r#"
import os, resource, signal, sys, time
from dataclasses import dataclass
from typing import List, Tuple
import wormhole_ipc
from wormhole_ipc import I32, Receiver, Sender, U32

@dataclass
class Message:
    a: U32
    b: str
    c: List[I32]

def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

signal.alarm(60)
count, core, tx, rx, report = wormhole_ipc.inherit(
    Tuple[int, int, Sender[Message], Receiver[Message], Sender[Tuple[float, float]]])
os.sched_setaffinity(0, {core})
for turn in range(count):
    if turn == count // 11:
        wall, cpu = time.perf_counter(), used()
    tx.send(Message(1776, "hello world!", [5, 4, 3, 2, 1]))
    message = rx.recv()
    assert (message.a, message.b, message.c) == (1776, "hello world!", [5, 4, 3, 2, 1])
report.send(((time.perf_counter() - wall) * 1e9, (used() - cpu) * 1e9))
"#;

/// A `ProcessPoolExecutor`, one job at a time or two workers with as many as they take.
const POOL: &str = r#"
import concurrent.futures, multiprocessing, resource, signal, sys, time

def work(number):
    return number + 1

def used():
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))

if __name__ == "__main__":
    signal.alarm(60)
    kind, count = sys.argv[1], int(sys.argv[2])
    context = multiprocessing.get_context("fork")
    pool = concurrent.futures.ProcessPoolExecutor(1 if kind == "one" else 2, mp_context=context)
    assert pool.submit(work, 1).result() == 2
    wall, cpu = time.perf_counter(), used()
    if kind == "one":
        for number in range(count):
            assert pool.submit(work, number).result() == number + 1
    else:
        for number, result in enumerate(pool.map(work, range(count))):
            assert result == number + 1
    wall = time.perf_counter() - wall
    pool.shutdown()
    print(wall / count * 1e9, (used() - cpu) / count * 1e9)
"#;

/// Jobs through a `ProcessPoolExecutor`.
pub(crate) fn pool(work: &str, jobs: u64) -> Outcome<Sample> {
    numbers_of(Command::new("python3").args(["-c", POOL, work, &jobs.to_string()]))
}

/// The version of the interpreter, if there is one.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("python3").arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().trim_start_matches("Python ").to_owned())
}

/// Round trips of the small message through a Pipe.
pub(crate) fn round_trip(place: Place, operations: u64) -> Outcome<Sample> {
    run("round-trip", operations, [place.core(0)?, place.core(1)?])
}

/// The small message, one way.
pub(crate) fn one_way(place: Place, operations: u64) -> Outcome<Sample> {
    run("one-way", operations, [place.core(0)?, place.core(1)?])
}

/// Processes that do nothing, started by forking.
pub(crate) fn processes(on_one_core: bool, operations: u64) -> Outcome<Sample> {
    if on_one_core {
        Place::Together.settle(0)?;
    }
    run("process", operations, [])
}

/// Runs the program on these cores, or wherever this process may run.
fn run<const N: usize>(work: &str, operations: u64, cores: [usize; N]) -> Outcome<Sample> {
    let count = operations + operations / 10 + 1;
    let cores = cores.map(|core| core.to_string());
    let anywhere = ["-1".to_owned(), "-1".to_owned()];
    let mut command = Command::new("python3");
    command.args(["-c", PIPE, work, &count.to_string()]);
    numbers_of(command.args(if N == 0 { &anywhere[..] } else { &cores[..] }))
}

/// Runs a program that prints wall and processor time.
fn numbers_of(command: &mut Command) -> Outcome<Sample> {
    let output = command.output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout)?;
    let (value, cpu) = text.trim().split_once(' ').context("no two numbers")?;
    Ok(Sample {
        value: value.parse()?,
        cpu: cpu.parse()?,
    })
}

/// Round trips of the small message from this repository's Python client to Rust and back.
pub(crate) fn round_trip_to_rust(place: Place, operations: u64) -> Outcome<Sample> {
    let count = operations + operations / 10 + 1;
    let measured = count - count / 11;
    let load = message::small();
    let (there, requests) = channel::<message::Small>()?;
    let (answers, back) = channel::<message::Small>()?;
    let (report, reported) = channel::<(f64, f64)>()?;
    let mut command = Command::new("python3");
    command.args(["-c", WORMHOLE]);
    command.env(
        "PYTHONPATH",
        concat!(env!("CARGO_MANIFEST_DIR"), "/../clients/python"),
    );
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let arguments = (count, place.core(0)?, there, back, report);
    let mut child = spawn_command(command, arguments)?;
    place.settle(1)?;
    let mut start = processor_time()?;
    for turn in 0..count {
        if turn == count / 11 {
            start = processor_time()?;
        }
        let message = requests.recv().context("Python has ended early")?;
        ensure!(message == load, "something else arrived than was sent");
        answers.send(load.clone())?;
    }
    let cpu = processor_time()?.saturating_sub(start);
    let (wall, other_cpu) = reported.recv()?;
    child.wait()?;
    #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let measured = measured as f64;
    Ok(Sample {
        value: wall / measured,
        cpu: (cpu.as_secs_f64() * 1e9 + other_cpu) / measured,
    })
}
