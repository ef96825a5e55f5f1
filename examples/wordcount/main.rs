//! Counts lines, words and bytes, as `wc` does, in several processes. A file whose worker died is counted again.

mod count;
mod files;
mod table;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::{fs::File, num::NonZero, path::PathBuf, process::ExitCode};

use indicatif::ProgressBar;
use lexopt::{Arg, ValueExt};
use wormhole::{Error, JobError, Pool, process::Failure};

const HELP: &str = "Usage: wordcount [--workers N] [PATH]...\n
Count lines, words and bytes as wc does, of files and of all files in directories; by default, of this repository.";

/// What became of each file, by its index.
type Results = BTreeMap<usize, Result<count::Counts, String>>;

fn main() -> ExitCode {
    run().unwrap_or_else(|failure| {
        eprintln!("wordcount: {failure}");
        ExitCode::from(2)
    })
}

fn run() -> Result<ExitCode, Failure> {
    let (mut paths, mut workers) = (Vec::new(), 0); // 0: as many as there are processors
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Value(path) => paths.push(path.into()),
            Arg::Long("workers") => workers = arguments.value()?.parse::<NonZero<_>>()?.get(),
            Arg::Long("help") => {
                println!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let (paths, found_all) = files::find(paths);
    let width = table::width(&paths);
    let counted_all = table::print(&paths, &count_all(&paths, workers)?, width)?;
    Ok(ExitCode::from(u8::from(!(found_all && counted_all)))) // the reasons are on stderr
}

/// Counts the files in that many processes.
fn count_all(paths: &[PathBuf], workers: usize) -> Result<Results, Failure> {
    let mut pool = Pool::new(workers, count::count)?;
    let bar = ProgressBar::new(paths.len() as u64); // on stderr, if that is a terminal
    let mut todo: VecDeque<_> = (0..paths.len()).map(|index| (index, 1)).collect();
    let (mut in_work, mut results) = (HashMap::new(), Results::new());
    while results.len() < paths.len() {
        if let Some((index, attempt)) = todo.pop_front() {
            // Opened anew each time: all copies of a descriptor share one offset.
            let file = File::open(&paths[index]).map_err(Failure::from);
            match file.and_then(|file| Ok(pool.submit(count::Job(file))?)) {
                Ok(id) => drop(in_work.insert(id, (index, attempt))),
                Err(failure) => drop(results.insert(index, Err(failure.to_string()))),
            }
        }
        let next = match todo.is_empty() {
            true => pool.recv(),
            false => pool.try_recv(),
        };
        let (id, outcome) = match next {
            Err(Error::Empty | Error::Disconnected) => continue,
            next => next?,
        };
        let (index, attempt) = in_work.remove(&id).unwrap_or_default();
        if let Err(JobError::Died { pid, end }) = &outcome {
            bar.suspend(|| eprintln!("wordcount: worker {pid} died: {end}"));
            if attempt < 3 {
                todo.push_front((index, attempt + 1));
                continue;
            }
        }
        let counts = outcome.unwrap_or_else(|error| Err(error.to_string()));
        results.insert(index, counts);
        bar.set_position(results.len() as u64);
    }
    bar.finish_and_clear();
    Ok(results)
}
