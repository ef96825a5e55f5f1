//! A bridge: the process between the server and the workers of its machine.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use async_nats::{Client, ConnectOptions};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};
use wormhole::process::Builder;
use wormhole::tokio::Child;
use wormhole::{PoolOptions, Receiver, Sender, channel};
use wormhole_nats::{BridgeOptions, Error, Handed, Options, Queue, inbound, outbound};

use crate::cli::{Bridge, Form, Sabotage};
use crate::faults::ACK_WAIT;
use crate::job::{Done, Job, work};

pub(crate) const JOBS: &str = "chaos-jobs";
pub(crate) const RESULTS: &str = "chaos-results";

/// How a bridge ends whose pool has given up, as three workers in a row were killed before they had started.
pub(crate) const GIVEN_UP: u8 = 75;

/// Workers of a bridge.
const WORKERS: usize = 2;

/// Connects as soon as there is a server, and again and again.
pub(crate) async fn connect(url: &str) -> anyhow::Result<Client> {
    let options = ConnectOptions::new()
        .retry_on_initial_connect()
        .reconnect_delay_callback(|_| Duration::from_millis(50));
    Ok(options.connect(url).await?)
}

pub(crate) async fn queues(client: &Client) -> anyhow::Result<(Queue<Job>, Queue<Done>)> {
    // Each fault that hits a job is a delivery more.
    let options = || Options::new().ack_wait(ACK_WAIT).max_deliveries(u64::MAX);
    let jobs = Queue::open(client.clone(), JOBS, options()).await?;
    let results = Queue::open(client.clone(), RESULTS, options()).await?;
    Ok((jobs, results))
}

/// Is one until SIGTERM.
pub(crate) fn run(of: &Bridge) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let (jobs, results) = queues(&connect(&of.url).await?).await?;
        match of.form {
            Form::Pool => pool(&jobs, &results, &mut terminate).await,
            Form::Channels => channels(&jobs, &results, of.sabotage, &mut terminate).await,
        }
    })
}

fn options() -> BridgeOptions {
    BridgeOptions::new(WORKERS).on_problem(|error| eprintln!("wormhole-nats-chaos: {error:#}"))
}

async fn pool(
    jobs: &Queue<Job>,
    results: &Queue<Done>,
    terminate: &mut Signal,
) -> anyhow::Result<ExitCode> {
    let pool = PoolOptions::new(WORKERS).fresh().end_with_parent();
    let (jobs, results) = (jobs.receiver(), results.sender());
    let mut bridge = wormhole_nats::pool(jobs, pool.run(work)?, results, options())?;
    tokio::select! {
        ended = bridge.wait() => match ended {
            Err(Error::Local { .. }) => return Ok(ExitCode::from(GIVEN_UP)),
            ended => bail!("the bridge has ended: {ended:?}"),
        },
        _ = terminate.recv() => {}
    }
    bridge.stop().await?;
    Ok(ExitCode::SUCCESS)
}

/// What a worker behind channels is given.
#[derive(Serialize, Deserialize)]
struct Ends {
    jobs: Receiver<Handed<Job>>,
    results: Sender<Handed<Done>>,
    sabotage: Option<Sabotage>,
}

async fn channels(
    jobs: &Queue<Job>,
    results: &Queue<Done>,
    sabotage: Option<Sabotage>,
    terminate: &mut Signal,
) -> anyhow::Result<ExitCode> {
    let (job, jobs_of_workers) = channel()?;
    let (results_of_workers, result) = channel()?;
    let keep = || keep_worker(&jobs_of_workers, &results_of_workers, sabotage);
    let inbound = inbound(jobs.receiver(), job, options())?;
    let mut outbound = outbound(result, results.sender(), options())?;
    tokio::select! {
        ended = keep() => ended?,
        ended = keep() => ended?,
        ended = outbound.wait() => bail!("the outbound bridge has ended: {ended:?}"),
        _ = terminate.recv() => {}
    }
    // Workers are not started again; those that are left do what is in hand.
    inbound.stop().await?;
    outbound.stop().await?;
    Ok(ExitCode::SUCCESS)
}

/// Starts a worker, and another one when it has ended.
async fn keep_worker(
    jobs: &Receiver<Handed<Job>>,
    results: &Sender<Handed<Done>>,
    sabotage: Option<Sabotage>,
) -> anyhow::Result<()> {
    loop {
        let ends = Ends {
            jobs: jobs.clone(),
            results: results.clone(),
            sabotage,
        };
        let worker = Builder::new()
            .end_with_parent(true)
            .spawn_fresh(ends, work_on)?;
        // However it has ended: it may have been killed before it began.
        let _ = Child::new(worker)?.join().await;
    }
}

/// A worker: it says that it is done when its result is stored.
fn work_on(ends: Ends) {
    while let Ok(Handed { value, done }) = ends.jobs.recv() {
        let sabotage = ends.sabotage.filter(|_| value.seed % 3 == 0);
        let again = value.clone();
        if sabotage == Some(Sabotage::Early) {
            let _ = done.try_send(());
            // The bridge has heard it; and this moment, which is short otherwise, is hit.
            std::thread::sleep(Duration::from_millis(20));
            if value.seed % 4 == 0 {
                std::process::abort();
            }
        }
        let mut result = work(value);
        match sabotage {
            Some(Sabotage::Forget) => {
                let _ = done.try_send(());
                continue;
            }
            Some(Sabotage::Invent) => result.job += 1_000_000_000,
            Some(Sabotage::Tear) => result.sum ^= 1,
            Some(Sabotage::Again) => drop(store(&ends.results, work(again))),
            Some(Sabotage::Early) | None => {}
        }
        if store(&ends.results, result).is_ok() {
            // If nobody hears it, it is done again.
            let _ = done.try_send(());
        }
    }
}

/// Waits until the server has a result.
fn store(results: &Sender<Handed<Done>>, result: Done) -> wormhole::Result<()> {
    let (done, stored) = channel()?;
    results.send(Handed {
        value: result,
        done,
    })?;
    stored.recv()
}
