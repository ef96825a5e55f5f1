//! The command line.

use std::num::NonZero;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};
use wormhole::process::Failure;

pub(crate) const HELP: &str = "Usage: cluster_wordcount work [--workers N] [--server URL] [--name NAME]
       cluster_wordcount count [--server URL] [--name NAME] [PATH]...\n
On each machine, work: N workers, by default as many as there are processors. On one, count lines, words and bytes as wc
does, of files and of all files in directories; by default, of this package. All machines must know the files by the same
paths. The server is nats://127.0.0.1:4222 by default. Counts that run at the same time need names of their own.";

#[derive(Clone, Copy)]
pub(crate) enum Command {
    Work,
    Count,
    Help,
}

pub(crate) struct Options {
    pub(crate) server: String,
    pub(crate) name: String,
    pub(crate) workers: usize,
    pub(crate) paths: Vec<PathBuf>,
}

/// Reads the command line.
pub(crate) fn read() -> Result<(Command, Options), Failure> {
    let mut options = Options {
        server: "nats://127.0.0.1:4222".to_owned(),
        name: "wordcount".to_owned(),
        workers: 0, // as many as there are processors
        paths: Vec::new(),
    };
    let mut command = None;
    let mut arguments = Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Value(word) if command.is_none() => {
                command = Some(match word.to_str() {
                    Some("work") => Command::Work,
                    Some("count") => Command::Count,
                    _ => return Err(Failure::new(format!("no command is called {word:?}"))),
                });
            }
            Arg::Value(path) if matches!(command, Some(Command::Count)) => {
                options.paths.push(path.into());
            }
            Arg::Long("workers") => {
                options.workers = arguments.value()?.parse::<NonZero<_>>()?.get();
            }
            Arg::Long("server") => options.server = arguments.value()?.string()?,
            Arg::Long("name") => options.name = arguments.value()?.string()?,
            Arg::Long("help") => return Ok((Command::Help, options)),
            other => return Err(other.unexpected().into()),
        }
    }
    let command = command.ok_or_else(|| Failure::new("a command is missing: work or count"))?;
    Ok((command, options))
}
