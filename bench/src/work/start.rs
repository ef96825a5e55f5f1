//! Starting a process, and waiting for its end.

#![allow(unsafe_code, reason = "fork")]

use anyhow::ensure;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::{Entry, Row};
use crate::Outcome;
use crate::peer::{self, procspawn, python};
use crate::place::Place;
use crate::process::together;
use crate::sample::Sample;

/// What the process has that starts another one, and where the two run.
#[derive(Clone, Copy)]
struct Parent {
    /// Bytes of memory that it has written to.
    memory: usize,
    /// Channels of wormhole that it has both ends of.
    channels: usize,
    /// Not left to the scheduler.
    on_one_core: bool,
}

const SMALL: Parent = Parent {
    memory: 0,
    channels: 0,
    on_one_core: true,
};

/// The rows of starting processes.
pub(super) fn rows() -> Vec<Row> {
    vec![
        row("on one core", SMALL),
        row(
            "on any core",
            Parent {
                on_one_core: false,
                ..SMALL
            },
        ),
        row(
            "with 16 MB",
            Parent {
                memory: 16 << 20,
                ..SMALL
            },
        ),
        row(
            "with 1,000 channels",
            Parent {
                channels: 1_000,
                ..SMALL
            },
        ),
    ]
}

fn row(title: &str, parent: Parent) -> Row {
    Row::timed("spawn", title.to_owned(), None, move || entries(parent))
}

fn entries(parent: Parent) -> Vec<Entry> {
    let small = parent.memory == 0 && parent.channels == 0;
    vec![
        entry(peer::WORMHOLE, parent, spawned),
        entry(peer::FRESH_CHILD, parent, fresh),
        entry(peer::PROCSPAWN, parent, procspawn::child),
        entry(peer::RAW_FORK, parent, forked),
        entry(peer::THREAD, parent, thread),
        match python::version() {
            Some(_) if small => Entry::new(peer::PYTHON_PROCESS, move |operations| {
                python::processes(parent.on_one_core, operations)
            }),
            Some(_) => Entry::cannot(peer::PYTHON_PROCESS, "measured from a small process only"),
            None => Entry::cannot(peer::PYTHON_PROCESS, "no python3 here"),
        },
    ]
}

fn entry(name: &'static str, parent: Parent, once: fn() -> Outcome<()>) -> Entry {
    Entry::new(name, move |operations| {
        start_and_end(parent, once, operations)
    })
}

fn start_and_end(parent: Parent, once: fn() -> Outcome<()>, operations: u64) -> Outcome<Sample> {
    if parent.on_one_core {
        Place::Together.settle(0)?;
    }
    let memory = vec![1_u8; parent.memory];
    let channels = (0..parent.channels).map(|_| wormhole::channel::<()>());
    let channels: Vec<_> = channels.collect::<Result<_, _>>()?;
    let (usage, (), _) = together(Vec::new(), |side| {
        side.repeat(operations, |_| once())?;
        side.stop()
    })?;
    drop((std::hint::black_box(memory), channels));
    Ok(usage.per(operations))
}

/// A child that does nothing, and its result.
fn spawned() -> Outcome<()> {
    Ok(wormhole::spawn((), |()| ())?.join()?)
}

/// The same in a fresh copy of this program.
fn fresh() -> Outcome<()> {
    Ok(wormhole::spawn_fresh((), |()| ())?.join()?)
}

/// The floor: a child that ends at once.
fn forked() -> Outcome<()> {
    // SAFETY: the child only ends.
    let child = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        // SAFETY: has no preconditions.
        ForkResult::Child => unsafe { nix::libc::_exit(0) },
    };
    ensure!(waitpid(child, None)? == WaitStatus::Exited(child, 0));
    Ok(())
}

/// A thread that does nothing, for scale.
fn thread() -> Outcome<()> {
    let joined = std::thread::spawn(|| ()).join();
    ensure!(joined.is_ok(), "the thread panicked");
    Ok(())
}
