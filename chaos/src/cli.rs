//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::sabotage::Sabotage;

/// Soaks wormhole: dozens of processes, random faults, and an exact account of every message.
///
/// Prints what happened, and ends with status 0 if nothing was lost, torn, doubled, disordered, left open or
/// stuck, else with 1.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Options {
    /// How long to run
    #[arg(long, default_value_t = 1.0, value_parser = minutes)]
    pub(crate) minutes: f64,
    /// What determines the processes, the channels and the faults; random unless given
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Run this epoch only, for as long as it takes
    #[arg(long)]
    pub(crate) epoch: Option<u64>,
    /// How long an epoch goes on before everything flows out, in milliseconds
    #[arg(long, default_value_t = 2500, value_parser = clap::value_parser!(u64).range(50..=600_000))]
    pub(crate) epoch_millis: u64,
    /// How long it may take to flow out, in seconds, before it counts as a hang
    #[arg(long, default_value_t = 60)]
    pub(crate) deadline: u64,
    /// Play with a pool instead: jobs that their workers die of, and workers that are killed at any moment
    #[arg(long)]
    pub(crate) pool: bool,
    /// Do something wrong, to see that it is noticed
    #[arg(long, hide = true)]
    pub(crate) sabotage: Option<Sabotage>,
    /// Carry out an assignment for the owner of this ledger
    #[arg(long, hide = true, value_name = "LEDGER")]
    pub(crate) actor_of: Option<PathBuf>,
    /// Carry out assignments for the owner of this ledger until there are no more
    #[arg(long, hide = true, value_name = "LEDGER")]
    pub(crate) worker_of: Option<PathBuf>,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match minutes {
        0.0..=100_000.0 => Ok(minutes),
        _ => Err("not between 0 and 100000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_understood() {
        let arguments = [
            "chaos",
            "--minutes",
            "0.5",
            "--seed",
            "7",
            "--sabotage",
            "leak-fd",
        ];
        let options = Options::try_parse_from(arguments).unwrap();
        assert_eq!((options.minutes, options.seed), (0.5, Some(7)));
        assert_eq!(options.sabotage, Some(Sabotage::LeakFd));
    }

    #[test]
    fn nonsense_is_refused() {
        for arguments in [
            ["chaos", "--minutes", "-1"],
            ["chaos", "--minutes", "NaN"],
            ["chaos", "--epoch-millis", "0"],
            ["chaos", "--sabotage", "nothing"],
            ["chaos", "--seeds", "1"],
        ] {
            assert!(Options::try_parse_from(arguments).is_err(), "{arguments:?}");
        }
    }
}
