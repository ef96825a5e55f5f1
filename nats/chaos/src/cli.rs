//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

/// Soaks wormhole-nats: random faults, and an account of every job.
///
/// Prints what happened, and ends with status 0 if every job has a result and every duplicate a reason, else with 1.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    /// How long jobs are sent; what is left is done afterwards
    #[arg(long, default_value_t = 0.5, value_parser = minutes)]
    pub(crate) minutes: f64,
    /// How many jobs, evenly over that time, unless the machine is too slow for it
    #[arg(long, default_value_t = 3000)]
    pub(crate) jobs: u64,
    /// What determines the jobs and the faults; random unless given
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// No faults: then nothing may come twice
    #[arg(long)]
    pub(crate) calm: bool,
    /// How long it may take until all is done, in seconds, before it counts as a loss
    #[arg(long, default_value_t = 60)]
    pub(crate) deadline: u64,
    /// Do something wrong, to see that it is noticed
    #[arg(long, hide = true)]
    pub(crate) sabotage: Option<Sabotage>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Be one of the bridges, until SIGTERM
    #[command(hide = true)]
    Bridge(Bridge),
}

#[derive(Debug, Args)]
pub(crate) struct Bridge {
    pub(crate) url: String,
    #[arg(long)]
    pub(crate) form: Form,
    #[arg(long)]
    pub(crate) sabotage: Option<Sabotage>,
}

/// How jobs come from the queue to the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// A pool of the library.
    Pool,
    /// Channels to workers, which say themselves that they are done, when their result is stored.
    Channels,
}

/// What is done wrong now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Sabotage {
    /// A job is acknowledged before its result is stored.
    Early,
    /// A job is acknowledged, and nothing else.
    Forget,
    /// A result comes of a job that nobody has sent.
    Invent,
    /// A job is done twice, for no reason.
    Again,
    /// A result is not that of its job.
    Tear,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match minutes {
        0.0..=100_000.0 => Ok(minutes),
        _ => Err("not between 0 and 100000".to_owned()),
    }
}
