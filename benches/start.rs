//! The price of starting a process from a large one: wormhole beside `std::process::Command`.
//!
//! `cargo bench --bench start` takes a minute and 4 GB of memory; `-- 1` takes one of 1 GB. All ways take turns, round by
//! round; what it prints are medians, and ratios of medians.

#![allow(missing_docs, reason = "a program")]

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, hint, thread};

use wormhole::process::{self, Builder};
use wormhole::{spawn, spawn_command, spawn_fresh};

const ROUNDS: usize = 60;

/// Makes a copy of this program end at once.
const END: &str = "END_AT_ONCE";

/// Starts a process and waits for its end. Gives how long the start took.
type Start = fn() -> Duration;

fn program() -> Command {
    let mut command = Command::new("true");
    command.stdin(Stdio::null());
    command
}

/// What `start` takes, before `wait` waits for what it has started.
fn timed<C>(start: impl FnOnce() -> C, wait: impl FnOnce(C)) -> Duration {
    let begun = Instant::now();
    let child = start();
    let taken = begun.elapsed();
    wait(child);
    taken
}

fn std_program() -> Duration {
    timed(
        || program().spawn().unwrap(),
        |mut child| assert!(child.wait().unwrap().success()),
    )
}

fn std_copy() -> Duration {
    timed(
        || Command::new("/proc/self/exe").env(END, "").spawn().unwrap(),
        |mut child| assert!(child.wait().unwrap().success()),
    )
}

fn wormhole_program() -> Duration {
    timed(
        || spawn_command(program(), ()).unwrap(),
        |mut child| assert!(child.wait().unwrap().success()),
    )
}

fn wormhole_child() -> Duration {
    let mut builder = Builder::new();
    builder.only_arguments(true);
    timed(
        || builder.spawn_command(program(), ()).unwrap(),
        |child| child.join().unwrap(),
    )
}

fn wormhole_copy() -> Duration {
    timed(
        || spawn_fresh((), |()| ()).unwrap(),
        |child| child.join().unwrap(),
    )
}

fn wormhole_fork() -> Duration {
    timed(
        || spawn((), |()| ()).unwrap(),
        |child| child.join().unwrap(),
    )
}

/// Prints what these ways take, and how that compares with the first of them.
fn compare(title: &str, rounds: usize, ways: &[(&str, Start)]) {
    let mut times = vec![[Vec::new(), Vec::new()]; ways.len()];
    for round in 0..rounds {
        for turn in 0..ways.len() {
            let way = (round + turn) % ways.len(); // none always comes after the same one
            let begun = Instant::now();
            let start = ways[way].1();
            times[way][0].push(start);
            times[way][1].push(begun.elapsed());
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e3
    };
    println!("\n{title}");
    let mut first = None;
    for ((name, _), times) in ways.iter().zip(&mut times) {
        let [start, whole] = times.each_mut().map(median);
        let (first_start, first_whole) = *first.get_or_insert((start, whole));
        println!(
            "  {name:34} start {start:8.3} ms, x {:7.2}; to its end {whole:8.3} ms, x {:7.2}",
            start / first_start,
            whole / first_whole
        );
    }
}

fn main() {
    process::init();
    if env::var_os(END).is_some() {
        return;
    }
    // `cargo bench` passes `--bench`; `cargo test --benches` does not.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }
    let gigabytes = env::args().find_map(|argument| argument.parse().ok());
    let bytes = gigabytes.unwrap_or(4) << 30;
    for memory in [0, bytes] {
        let memory = hint::black_box(vec![1_u8; memory]);
        let title = |threads: &str| format!("With {} MB written to, {threads}", memory.len() >> 20);
        let programs: [(&str, Start); 3] = [
            ("Command::spawn", std_program),
            ("spawn_command", wormhole_program),
            ("Builder, only its arguments", wormhole_child),
        ];
        let copies: [(&str, Start); 2] = [
            ("Command::spawn of this program", std_copy),
            ("spawn_fresh", wormhole_copy),
        ];
        compare(&title("one thread, `true`"), ROUNDS, &programs);
        compare(&title("one thread, a copy"), ROUNDS, &copies);
        compare(&title("one thread, a fork"), 5, &[("spawn", wormhole_fork)]);
        let (waits, wait) = mpsc::channel::<()>();
        let other = thread::spawn(move || wait.recv());
        compare(&title("two threads, `true`"), ROUNDS, &programs);
        compare(&title("two threads, a copy"), ROUNDS, &copies);
        drop(waits);
        assert!(other.join().unwrap().is_err());
    }
}
