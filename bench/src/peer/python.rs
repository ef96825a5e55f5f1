//! Python's `multiprocessing.Pipe` between two processes.

use std::process::Command;

use anyhow::{Context, bail};

use crate::Outcome;
use crate::place::Place;
use crate::sample::Sample;

/// The same round trip, with the same checks. Prints wall and processor time in nanoseconds.
const PROGRAM: &str = r#"
import multiprocessing, os, resource, signal, sys, time

class Message:
    def __init__(self):
        self.a, self.b, self.c = 1776, "hello world!", [5, 4, 3, 2, 1]
    def fields(self):
        return (self.a, self.b, self.c)

def used(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime

def echo(pipe, count, core):
    signal.alarm(60)
    os.sched_setaffinity(0, {core})
    for turn in range(count):
        if turn == count // 11:
            start = used(resource.RUSAGE_SELF)
        message = pipe.recv()
        assert message.fields() == (1776, "hello world!", [5, 4, 3, 2, 1])
        pipe.send(Message())
    pipe.send(used(resource.RUSAGE_SELF) - start)

if __name__ == "__main__":
    signal.alarm(60)
    count = int(sys.argv[1])
    near, far = multiprocessing.Pipe()
    other = multiprocessing.get_context("fork").Process(target=echo, args=(far, count, int(sys.argv[2])), daemon=True)
    other.start()
    for turn in range(count):
        if turn == count // 11:
            wall, cpu = time.perf_counter(), used(resource.RUSAGE_SELF)
        near.send(Message())
        message = near.recv()
        assert message.fields() == (1776, "hello world!", [5, 4, 3, 2, 1])
    wall, cpu = time.perf_counter() - wall, used(resource.RUSAGE_SELF) - cpu
    cpu += near.recv()
    other.join()
    print(wall / (count - count // 11) * 1e9, cpu / (count - count // 11) * 1e9)
"#;

/// The version of the interpreter, if there is one.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("python3").arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().trim_start_matches("Python ").to_owned())
}

/// Round trips of the small message.
pub(crate) fn round_trip(place: Place, operations: u64) -> Outcome<Sample> {
    let count = operations + operations / 10 + 1;
    let other = place.core(1)?;
    place.settle(0)?;
    let output = Command::new("python3")
        .args(["-c", PROGRAM, &count.to_string(), &other.to_string()])
        .output()?;
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
