//! Soaks wormhole-nats: jobs go through a server to workers behind bridges, while workers, bridges and the server are
//! killed and stopped, and every job is accounted for. README.md says how to run it and what it checks.
//!
//! The `driver` starts the server and the bridges, and again when they were killed. It sends jobs (`sending`) and gathers
//! results (`gathering`), while `faults` derives from the seed what happens to whom. All of that is noted in the `ledger`.

mod bridge;
mod cli;
mod driver;
mod faults;
mod gathering;
mod job;
mod ledger;
mod process;
#[path = "../../../chaos/src/random.rs"]
mod random;
mod report;
mod sending;
#[allow(unreachable_pub, reason = "several programs include it")]
#[path = "../../tests/support/server.rs"]
mod server;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Command, Options};

fn main() -> ExitCode {
    wormhole::process::init(); // the workers are fresh copies of this program
    let options = Options::parse();
    let done = match &options.command {
        Some(Command::Bridge(of)) => bridge::run(of),
        None => driver::run(&options),
    };
    done.unwrap_or_else(|error| {
        eprintln!("wormhole-nats-chaos: {error:#}");
        ExitCode::from(2)
    })
}
