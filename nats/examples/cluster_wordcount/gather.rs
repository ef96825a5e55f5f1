//! The machine that wants to know: it sends the names of the files, and gathers what became of them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::ProgressBar;
use wormhole::process::Failure;
use wormhole_nats::{Error, Queue, Sender};

use crate::options::Options;
use crate::{Counted, Job, Results, connect, files, queues, table};

/// Counts the files, and prints what `wc` prints.
pub(crate) async fn count(options: Options) -> Result<ExitCode, Failure> {
    let client = connect(&options.server).await?;
    let run = client.new_inbox(); // results of another one, given up half way, may still be there
    let (jobs, results) = queues(client, &options.name).await?;
    let (paths, found_all) = files::find(options.paths);
    let width = table::width(&paths);
    let send = send(jobs.sender(), &run, &paths);
    let gather = gather(&jobs, &results, &run, paths.len());
    let ((), results) = tokio::try_join!(send, gather)?;
    let counted_all = table::print(&paths, &results, width)?;
    Ok(ExitCode::from(u8::from(!(found_all && counted_all)))) // the reasons are on stderr
}

async fn send(jobs: Sender<Job>, run: &str, paths: &[PathBuf]) -> Result<(), Failure> {
    for (index, path) in paths.iter().enumerate() {
        let (run, path) = (run.to_owned(), std::path::absolute(path)?);
        jobs.send(Job { run, index, path }).await?;
    }
    Ok(())
}

/// A file may have two results, if a machine was lost between the result and the end of the job. They say the same.
async fn gather(
    jobs: &Queue<Job>,
    results: &Queue<Counted>,
    run: &str,
    files: usize,
) -> Result<Results, Failure> {
    let bar = ProgressBar::new(files as u64); // on stderr, if that is a terminal
    let (mut gathered, counted) = (Results::new(), results.receiver());
    while gathered.len() < files {
        match counted.recv_timeout(Duration::from_secs(2)).await {
            Ok(job) => {
                if job.run == run && job.index < files {
                    gathered.insert(job.index, job.counts.clone());
                }
                job.done().await?;
                bar.set_position(gathered.len() as u64);
            }
            // A result is stored before its job is done. So if there are no jobs, and no results after that, none will come.
            Err(Error::TimedOut { .. }) => {
                if jobs.is_empty().await? && results.is_empty().await? {
                    break;
                }
            }
            Err(error @ (Error::Decode { .. } | Error::Exhausted { .. })) => {
                bar.suspend(|| eprintln!("cluster_wordcount: {error:#}"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    bar.finish_and_clear();
    for index in 0..files {
        let given_up = || Err("all who tried to count it died".to_owned());
        gathered.entry(index).or_insert_with(given_up);
    }
    Ok(gathered)
}
