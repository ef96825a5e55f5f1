//! A machine with workers: a pool whose jobs come from one queue, and whose results go to another.

use std::fs::File;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use wormhole::PoolOptions;
use wormhole::process::Failure;
use wormhole_nats::BridgeOptions;

use crate::options::Options;
use crate::{Counted, Job, connect, count, queues};

/// Works until it is told to end.
pub(crate) async fn work(options: Options) -> Result<ExitCode, Failure> {
    let client = connect(&options.server).await?;
    let (jobs, results) = queues(client, &options.name).await?;
    let pool = PoolOptions::new(options.workers)
        .fresh()
        .end_with_parent()
        .run(count_one)?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let options = BridgeOptions::new(0).on_problem(|error| eprintln!("{error:#}"));
    let mut bridge = wormhole_nats::pool(jobs.receiver(), pool, results.sender(), options)?;
    tokio::select! {
        ended = bridge.wait() => ended?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    bridge.stop().await?;
    Ok(ExitCode::SUCCESS)
}

/// What a worker does.
fn count_one(Job { run, index, path }: Job) -> Counted {
    let file = File::open(path).map_err(|error| error.to_string());
    let counts = file.and_then(|file| count::count(count::Job(file)));
    Counted { run, index, counts }
}
