//! Soaks wormhole: dozens of real processes in random topologies, random faults, and an exact account of every
//! message. README.md says how to run it and what it checks.
//!
//! A run is a row of epochs. `plan` makes of the seed what happens in one; `driver` starts its supervisors;
//! a `supervisor` starts actors, which `play` their parts (`producer`, `consumer`, `hall`), and lets faults
//! befall them. All of them write down in the `ledger` what they do, through `outlet`, `inlet` and `gift`, and
//! `verify` draws up the account.

mod cli;
mod consumer;
mod crew;
mod driver;
mod gift;
mod hall;
mod inlet;
mod ledger;
mod me;
mod message;
mod outlet;
mod part;
mod plan;
mod play;
mod procs;
mod producer;
mod random;
mod report;
mod sabotage;
mod shared;
mod supervisor;
mod ticks;
mod verify;
mod veteran;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::cli::Options;
use crate::ledger::ledger;
use crate::part::Part;

fn main() -> ExitCode {
    let options = Options::parse();
    let done = if let Some(path) = &options.actor_of {
        ledger::open(path).and_then(|()| actor())
    } else if let Some(path) = &options.veteran_of {
        ledger::open(path).and_then(|()| veteran::serve())
    } else {
        ledger::create().and_then(|()| driver::run(&options))
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("wormhole-chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// One part, and no more.
fn actor() -> anyhow::Result<ExitCode> {
    settle()?;
    play::play(wormhole::inherit::<Part>()?, None);
    Ok(ExitCode::SUCCESS)
}

/// Makes this process end with the one that started it, and panics violations.
fn settle() -> anyhow::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    std::panic::set_hook(Box::new(|info| {
        let pid = std::process::id();
        ledger().violation(&format!("pid {pid}: {info}"));
    }));
    Ok(())
}
