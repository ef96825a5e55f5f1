//! Jobs for worker processes: one at a time, many through two workers, and what the death of a worker costs.

use anyhow::{Context, ensure};
use wormhole::{Child, Pool, PoolOptions, Receiver, Sender, channel, spawn};

use super::{Entry, Row};
use crate::Outcome;
use crate::peer::{self, procspawn, python};
use crate::process::together;
use crate::sample::Sample;

/// The rows of pools.
pub(super) fn rows() -> Vec<Row> {
    const NO: &str = "not what it is for";
    let row = |title: &str, entries: fn() -> Vec<Entry>| {
        Row::timed("pool", title.to_owned(), None, entries)
    };
    vec![
        row("a job and its result", || {
            vec![
                Entry::new(peer::WORMHOLE, |jobs| one_by_one(jobs, PoolOptions::new(1))),
                Entry::new(peer::FRESH, |jobs| {
                    one_by_one(jobs, PoolOptions::new(1).fresh())
                }),
                Entry::new(peer::BY_HAND, one_by_hand),
                Entry::new(peer::PROCSPAWN, |jobs| procspawn::one_by_one(jobs, work)),
                python_pool("one"),
            ]
        }),
        row("a job of many, two workers", || {
            vec![
                Entry::new(peer::WORMHOLE, |jobs| {
                    map(jobs, PoolOptions::new(2).ahead(1))
                }),
                Entry::new(peer::FRESH, |jobs| {
                    map(jobs, PoolOptions::new(2).ahead(1).fresh())
                }),
                Entry::new(peer::BY_HAND, by_hand),
                Entry::new(peer::PROCSPAWN, |jobs| procspawn::many(jobs, work)),
                python_pool("many"),
            ]
        }),
        row("a job of many, 256 workers", || {
            vec![
                Entry::new(peer::WORMHOLE, |jobs| map(jobs, PoolOptions::new(256))),
                Entry::cannot(peer::FRESH, NO),
                Entry::cannot(peer::BY_HAND, NO),
                Entry::cannot(peer::PROCSPAWN, NO),
                Entry::cannot(peer::PYTHON_POOL, NO),
            ]
        }),
        row("a worker dies, the next one works", || {
            vec![
                Entry::new(peer::WORMHOLE, |deaths| die(deaths, PoolOptions::new(1))),
                Entry::new(peer::FRESH, |deaths| {
                    die(deaths, PoolOptions::new(1).fresh())
                }),
                Entry::cannot(peer::BY_HAND, NO),
                Entry::new(peer::PROCSPAWN, |deaths| procspawn::die(deaths, work)),
                Entry::cannot(peer::PYTHON_POOL, "one death ends its whole pool"),
            ]
        }),
    ]
}

fn python_pool(work: &'static str) -> Entry {
    match python::version() {
        Some(_) => Entry::new(peer::PYTHON_POOL, move |jobs| python::pool(work, jobs)),
        None => Entry::cannot(peer::PYTHON_POOL, "no python3 here"),
    }
}

/// What a worker does.
fn work(number: u64) -> u64 {
    match number {
        u64::MAX => std::process::exit(1),
        number => number + 1,
    }
}

fn one_by_one(jobs: u64, options: PoolOptions) -> Outcome<Sample> {
    let mut pool: Pool<u64, u64> = options.run(work)?;
    pool.submit(0)?; // waits until the worker has started
    let (usage, (), _) = together(Vec::new(), |side| {
        side.repeat(jobs, |number| {
            ensure!(pool.recv()?.1.is_ok());
            pool.submit(number)?;
            Ok(())
        })?;
        side.stop()
    })?;
    Ok(usage.per(jobs))
}

/// A worker with channels of its own, supervised by nobody.
type Worker = (Sender<u64>, Receiver<u64>, Child<()>);

fn worker() -> Outcome<Worker> {
    let (job, jobs) = channel()?;
    let (result, results) = channel()?;
    let child = spawn(
        (jobs, result),
        |(jobs, result): (Receiver<u64>, Sender<u64>)| {
            for number in &jobs {
                let sent = number.map(|number| result.send(work(number)));
                assert!(matches!(sent, Ok(Ok(()))));
            }
        },
    )?;
    Ok((job, results, child))
}

fn one_by_hand(jobs: u64) -> Outcome<Sample> {
    let (job, results, child) = worker()?;
    let (usage, (), _) = together(Vec::new(), |side| {
        side.repeat(jobs, |number| {
            job.send(number)?;
            ensure!(results.recv()? == number + 1);
            Ok(())
        })?;
        side.stop()
    })?;
    drop(job);
    child.join()?;
    Ok(usage.per(jobs))
}

fn map(jobs: u64, options: PoolOptions) -> Outcome<Sample> {
    let mut pool: Pool<u64, u64> = options.run(work)?;
    let mut results = pool.map(0..);
    // Waits until the workers have started.
    ensure!(results.next().is_some_and(|(_, result)| result.is_ok()));
    let (usage, (), _) = together(Vec::new(), |side| {
        side.repeat(jobs, |_| {
            let (number, result) = results.next().context("an end")?;
            ensure!(result == Ok(number + 1));
            Ok(())
        })?;
        side.stop()
    })?;
    Ok(usage.per(jobs))
}

/// Two workers that have two jobs each, and get the next one for each result.
fn by_hand(jobs: u64) -> Outcome<Sample> {
    let workers = [worker()?, worker()?];
    let mut sent = 0;
    for (job, _, _) in workers.iter().chain(&workers) {
        job.send(sent)?;
        sent += 1;
    }
    let (usage, (), _) = together(Vec::new(), |side| {
        side.repeat(jobs, |turn| {
            let (job, results, _) = if turn % 2 == 0 {
                &workers[0]
            } else {
                &workers[1]
            };
            results.recv()?;
            job.send(sent)?;
            sent += 1;
            Ok(())
        })?;
        side.stop()
    })?;
    for (job, _, child) in workers {
        drop(job);
        child.join()?;
    }
    Ok(usage.per(jobs))
}

/// From giving a worker a job that it dies of to the result of the next one, by another worker.
fn die(deaths: u64, options: PoolOptions) -> Outcome<Sample> {
    let mut pool: Pool<u64, u64> = options.run(work)?;
    let (usage, (), _) = together(Vec::new(), |side| {
        side.repeat(deaths, |number| {
            pool.submit(u64::MAX)?;
            ensure!(pool.recv()?.1.is_err());
            pool.submit(number)?;
            ensure!(pool.recv()?.1 == Ok(number + 1));
            Ok(())
        })?;
        side.stop()
    })?;
    Ok(usage.per(deaths))
}
