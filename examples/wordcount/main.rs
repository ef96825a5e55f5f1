//! Counts lines, words and bytes, as `wc` does, in several processes.
//!
//! The parent walks the directories and opens the files. It spawns the workers; they share one
//! channel of jobs, each of which carries an open file, and answer on another one. A worker that dies
//! is replaced, and its file is counted by another.

mod files;
mod jobs;
mod parent;
mod pool;
mod table;
mod worker;

use std::error::Error;
use std::iter::successors;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::available_parallelism;

use lexopt::{Arg, ValueExt};

const HELP: &str = "\
Usage: wordcount [--workers N] [PATH]...

Count lines, words and bytes as wc does: of files, and of all files in directories.
Without a PATH, count the repository that this program was built from.
";

fn main() -> ExitCode {
    let (paths, workers) = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("wordcount: {error}");
            return ExitCode::from(2);
        }
    };
    match run(paths, workers) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE, // the reasons are on stderr
        Err(error) => {
            eprintln!("wordcount: {}", explain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<(Vec<PathBuf>, usize), lexopt::Error> {
    let mut paths = Vec::new();
    let mut workers = available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Value(path) => paths.push(path.into()),
            Arg::Long("workers") => workers = parser.value()?.parse()?,
            Arg::Long("help") | Arg::Short('h') => {
                print!("{HELP}");
                std::process::exit(0);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok((paths, workers.get()))
}

/// Counts and prints. `false`: without some of the files.
fn run(paths: Vec<PathBuf>, workers: usize) -> Result<bool, Box<dyn Error>> {
    let (paths, complete) = files::find(paths);
    let width = table::width(&paths);
    let results = parent::count(&paths, workers)?;
    Ok(table::print(&paths, &results, width)? && complete)
}

/// The message of an error, with those of its causes.
fn explain(error: &(dyn Error + 'static)) -> String {
    let causes = successors(Some(error), |&error| error.source());
    causes
        .map(|error| error.to_string())
        .collect::<Vec<_>>()
        .join(": ")
}
