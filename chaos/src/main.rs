//! Soaks wormhole: dozens of real processes in random topologies, random faults, and an exact account of every
//! message. README.md says how to run it and what it checks.
//!
//! A run is a row of epochs. `plan` derives from the seed what happens in one; `driver` starts its supervisors;
//! a `supervisor` starts actors, each of which gets an `assignment` and carries it out in `run_assignment`
//! (`producer`, `consumer`, `host`), and injects faults. All of them note in the `ledger` what they do, through
//! `sending`, `receiving` and `enclosed`, and `verify` draws up the account.

mod actor_process;
mod assignment;
mod cli;
mod consumer;
mod driver;
mod enclosed;
mod host;
mod ledger;
mod message;
mod plan;
mod pool;
mod procs;
mod producer;
mod random;
mod receiving;
mod report;
mod run_assignment;
mod sabotage;
mod sending;
mod shared;
mod supervisor;
mod this_process;
mod ticks;
mod verify;
mod watch;
mod worker;

use std::process::ExitCode;

use clap::Parser;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::assignment::Assignment;
use crate::cli::Options;
use crate::ledger::ledger;

fn main() -> ExitCode {
    wormhole::process::init();
    let options = Options::parse();
    let done = if let Some(path) = &options.actor_of {
        ledger::open(path).and_then(|()| actor())
    } else if let Some(path) = &options.worker_of {
        ledger::open(path).and_then(|()| worker::serve())
    } else if options.pool {
        let length = std::time::Duration::from_secs_f64(options.minutes * 60.0);
        pool::run(length, options.seed.unwrap_or_else(driver::any_seed))
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

/// Carries out one assignment.
fn actor() -> anyhow::Result<ExitCode> {
    settle()?;
    run_assignment::run_assignment(wormhole::inherit::<Assignment>()?, None);
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
