//! Starts everything, lets it go on for its time, and draws up the account.

use std::cell::RefCell;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::{Client, jetstream};
use clap::ValueEnum;
use futures_util::future::join_all;
use rustix::process::{Signal, WaitOptions, getpid, set_child_subreaper};
use tokio::process::Command;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use crate::bridge;
use crate::cli::{Options, Sabotage};
use crate::faults::{ACK_WAIT, Targets, What, inflict};
use crate::gathering::gather;
use crate::job::now;
use crate::ledger::{Fault, Ledger};
use crate::process::{Process, children};
use crate::random::Random;
use crate::report::report;
use crate::sending::send;
use crate::server::{self, Server};

/// Bridges, each of which is a machine.
pub(crate) const BRIDGES: usize = 3;

/// Jobs that are being sent at the same time.
const LANES: u64 = 4;

type Shared = (Rc<Targets>, Rc<RefCell<Ledger>>);

/// Runs it, and says what happened.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    // Workers whose bridge was killed come to this process, which sees whether they end.
    set_child_subreaper(Some(getpid()))?;
    let seed = options.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| u64::from(now.subsec_nanos()))
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ledger = Rc::new(RefCell::new(Ledger::new(seed)));
    let begin = Instant::now();
    let local = LocalSet::new();
    let done = local.block_on(&runtime, play(options, seed, &ledger));
    drop((local, runtime)); // and with them all processes that are still there
    done.with_context(|| format!("seed {seed}"))?;
    let left = left_over();
    let mut ledger = ledger.borrow_mut();
    if !left.is_empty() {
        let violation = format!("processes are left: {left:?}");
        ledger.violations.push(violation);
    }
    Ok(report(seed, begin.elapsed(), &mut ledger))
}

/// Children that have not ended some time after they should have.
fn left_over() -> Vec<u32> {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        let left = children(std::process::id());
        if left.is_empty() || std::time::Instant::now() > deadline {
            return left;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

async fn play(options: &Options, seed: u64, ledger: &Rc<RefCell<Ledger>>) -> anyhow::Result<()> {
    let program = server::newest().context("no nats-server is installed")?;
    let server = Server::start(&program);
    let url = server.url();
    let targets = Rc::new(Targets::default());
    let shared: Shared = (targets.clone(), ledger.clone());
    let server = spawn_local(keep_server(seed, server, shared.clone()));

    let client = bridge::connect(&url).await?;
    let (jobs, results) = bridge::queues(&client).await?;
    let (jobs, results) = (jobs.sender(), results.receiver());
    let bridges: Vec<_> = (0..BRIDGES)
        .map(|index| {
            spawn_local(keep_bridge(
                options.sabotage,
                index,
                url.clone(),
                shared.clone(),
            ))
        })
        .collect();
    let mut gathering = pin!(gather(seed, options.calm, &results, ledger));
    let faults = async {
        match options.calm {
            true => std::future::pending().await,
            false => inflict(seed, &targets, ledger).await,
        }
    };
    // First with faults, and then without, until all is done.
    tokio::select! {
        _ = join_all((0..LANES).map(|lane| send(options, seed, lane, &jobs, ledger))) => {}
        () = faults => {}
        () = &mut gathering => {}
    }
    tokio::select! {
        settled = settle(options, &client, ledger) => settled?,
        () = &mut gathering => {}
    }
    targets.ending.set(true);
    for bridge in &targets.bridges {
        if let Some(bridge) = &*bridge.borrow() {
            bridge.signal(Signal::TERM);
        }
    }
    for bridge in bridges {
        let ended = timeout(Duration::from_secs(20), bridge).await;
        ended.context("a bridge that was told to end does not")???;
    }
    server.abort();
    Ok(())
}

/// Starts the server again after it was killed, some time later.
async fn keep_server(
    seed: u64,
    mut server: Server,
    (targets, ledger): Shared,
) -> anyhow::Result<()> {
    let mut random = Random::of(&[seed, 4]);
    loop {
        let pid = server.pid().context("the server has ended")?;
        targets.server.replace(Some(Process::open(pid)?));
        targets.server_killed.notified().await;
        targets.server.take();
        sleep(Duration::from_millis(random.below(1000))).await;
        let restarted = tokio::task::spawn_blocking(move || {
            server.restart();
            server
        });
        server = restarted.await?;
        ledger.borrow_mut().server_is_back();
    }
}

/// Starts a bridge, and again after it was killed.
async fn keep_bridge(
    sabotage: Option<Sabotage>,
    index: usize,
    url: String,
    (targets, ledger): Shared,
) -> anyhow::Result<()> {
    let form = if index == 0 { "channels" } else { "pool" };
    loop {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bridge", &url, "--form", form]);
        if let Some(sabotage) = sabotage.and_then(|sabotage| sabotage.to_possible_value()) {
            command.args(["--sabotage", sabotage.get_name()]);
        }
        let mut process = command.kill_on_drop(true).spawn()?;
        let pid = process.id().context("a bridge without a process")?;
        targets.bridges[index].replace(Some(Process::open(pid)?));
        let status = process.wait().await?;
        targets.bridges[index].take();
        let is_ending = targets.ending.get();
        let was_killed = status.signal() == Some(Signal::KILL.as_raw());
        let has_given_up = status.code() == Some(bridge::GIVEN_UP.into());
        let as_told = match is_ending {
            true => status.success(),
            false => was_killed || has_given_up,
        };
        if has_given_up {
            let at = now();
            ledger.borrow_mut().faults.push(Fault {
                what: What::GiveUp,
                pid,
                begin: at,
                end: at,
            });
        }
        if !as_told {
            let violation = format!("bridge {index} ({form}) has ended: {status}");
            ledger.borrow_mut().violations.push(violation);
        }
        if is_ending {
            return Ok(());
        }
        sleep(Duration::from_millis(if as_told { 0 } else { 500 })).await;
    }
}

/// Waits until nothing is left to be done: each job has a result, and the server has nothing more to deliver.
///
/// A server that was killed may know less than it did: it keeps messages that were acknowledged, or counts some as in
/// hand that it has removed. Neither is delivered any more. So then it is enough if nothing moves.
async fn settle(
    options: &Options,
    client: &Client,
    ledger: &RefCell<Ledger>,
) -> anyhow::Result<()> {
    let context = jetstream::new(client.clone());
    let deadline = Instant::now() + Duration::from_secs(options.deadline);
    let (mut last, mut since) = (None, Instant::now());
    loop {
        let missing = ledger.borrow().missing();
        // Nothing is known for as long as the server is away.
        let jobs = at_the_server(&context, bridge::JOBS).await.ok();
        let results = at_the_server(&context, bridge::RESULTS).await.ok();
        let now = (ledger.borrow().results(), jobs, results);
        if last != Some(now) {
            (last, since) = (Some(now), Instant::now());
        }
        if let (true, Some(jobs), Some(results)) = (missing.is_empty(), jobs, results) {
            let mut ledger = ledger.borrow_mut();
            let is_still = since.elapsed() > 3 * ACK_WAIT && ledger.was_killed();
            if is_still || (jobs.to_deliver, results.to_deliver) == (0, 0) {
                ledger.kept = jobs.stored + results.stored;
                return Ok(());
            }
        }
        if Instant::now() > deadline {
            let seconds = options.deadline;
            ledger.borrow_mut().violations.push(format!(
                "{seconds} s after the last job: {} have no result, the first of them {:?}; at the server: {jobs:?}, \
                 {results:?}",
                missing.len(),
                &missing[..missing.len().min(10)]
            ));
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// What the server says about a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AtTheServer {
    /// Messages that were not delivered yet, or not acknowledged.
    to_deliver: u64,
    stored: u64,
}

async fn at_the_server(context: &jetstream::Context, name: &str) -> anyhow::Result<AtTheServer> {
    let stream = context.get_stream(name).await?;
    let consumer = stream.get_consumer("workers").await;
    let consumer: PullConsumer = consumer.map_err(anyhow::Error::from_boxed)?;
    let info = consumer.cached_info();
    Ok(AtTheServer {
        to_deliver: info.num_pending + info.num_ack_pending as u64,
        stored: stream.cached_info().state.messages,
    })
}
