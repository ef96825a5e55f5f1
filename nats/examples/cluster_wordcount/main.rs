//! Counts lines, words and bytes, as `wc` does, by workers on any number of machines that see the same files.
//!
//! It is the example `wordcount` with two queues in between: how files are found and counted, and what is printed, are
//! the same code.

#[path = "../../../examples/wordcount/count.rs"]
mod count;
#[path = "../../../examples/wordcount/files.rs"]
mod files;
mod gather;
mod options;
#[path = "../../../examples/wordcount/table.rs"]
mod table;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use async_nats::Client;
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;
use wormhole::process::Failure;
use wormhole_nats::Queue;

use crate::options::Command;

/// What became of each file, by its index.
type Results = BTreeMap<usize, Result<count::Counts, String>>;

/// A file to count. An open one would not leave this machine, so it has a name.
#[derive(Serialize, Deserialize)]
struct Job {
    run: String,
    index: usize,
    path: PathBuf,
}

/// What became of a file.
#[derive(Serialize, Deserialize)]
struct Counted {
    run: String,
    index: usize,
    counts: Result<count::Counts, String>,
}

fn main() -> ExitCode {
    wormhole::process::init(); // the workers are fresh copies of this program
    run().unwrap_or_else(|failure| {
        eprintln!("cluster_wordcount: {failure}");
        ExitCode::from(2)
    })
}

fn run() -> Result<ExitCode, Failure> {
    let (command, options) = options::read()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    match command {
        Command::Work => runtime.block_on(work::work(options)),
        Command::Count => runtime.block_on(gather::count(options)),
        Command::Help => {
            println!("{}", options::HELP);
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn connect(server: &str) -> Result<Client, Failure> {
    let connected = async_nats::connect(server).await;
    connected.map_err(|error| Failure::from(error).context(format!("cannot connect to {server}")))
}

/// Opens both queues, and makes them if they are not there.
async fn queues(client: Client, name: &str) -> Result<(Queue<Job>, Queue<Counted>), Failure> {
    // A machine that is lost has its files for so long.
    let options = || wormhole_nats::Options::new().ack_wait(Duration::from_secs(5));
    let jobs = Queue::open(client.clone(), &format!("{name}-jobs"), options()).await?;
    let results = Queue::open(client, &format!("{name}-results"), options()).await?;
    Ok((jobs, results))
}
