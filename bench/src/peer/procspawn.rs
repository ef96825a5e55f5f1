//! procspawn: functions in fresh copies of this program, and a pool of such workers. Its messages are those of
//! ipc-channel.

use std::collections::VecDeque;

use anyhow::{Context, ensure};
use procspawn::{JoinHandle, Pool};

use crate::Outcome;
use crate::process::together;
use crate::sample::Sample;

/// What its processes do first, of which this may be one.
pub(crate) fn init() {
    procspawn::init();
}

/// A child that does nothing, and its result.
pub(crate) fn child() -> Outcome<()> {
    Ok(procspawn::spawn((), |()| ()).join()?)
}

/// A pool whose workers have started.
fn pool(workers: usize) -> Outcome<Pool> {
    let pool = Pool::new(workers)?;
    let first: Vec<_> = (0..workers).map(|_| pool.spawn((), |()| ())).collect();
    first.into_iter().try_for_each(JoinHandle::join)?;
    Ok(pool)
}

/// Jobs one at a time.
pub(crate) fn one_by_one(jobs: u64, work: fn(u64) -> u64) -> Outcome<Sample> {
    let pool = pool(1)?;
    let (usage, (), _) = together(Vec::new(), |side| {
        side.repeat(jobs, |number| {
            ensure!(pool.spawn(number, work).join()? == number + 1);
            Ok(())
        })?;
        side.stop()
    })?;
    pool.kill();
    Ok(usage.per(jobs))
}

/// Jobs for two workers, with one that waits for each.
pub(crate) fn many(jobs: u64, work: fn(u64) -> u64) -> Outcome<Sample> {
    let pool = pool(2)?;
    let (usage, (), _) = together(Vec::new(), |side| {
        let mut handles: VecDeque<_> = (0..4).map(|number| pool.spawn(number, work)).collect();
        side.repeat(jobs, |number| {
            let oldest = handles.pop_front().context("a job")?;
            handles.push_back(pool.spawn(number + 4, work));
            ensure!(oldest.join()? == number + 1);
            Ok(())
        })?;
        side.stop()
    })?;
    pool.kill();
    Ok(usage.per(jobs))
}

/// From giving a worker a job that it dies of to the result of the next one, by another worker.
pub(crate) fn die(deaths: u64, work: fn(u64) -> u64) -> Outcome<Sample> {
    let pool = pool(1)?;
    let (usage, (), _) = together(Vec::new(), |side| {
        side.repeat(deaths, |number| {
            ensure!(pool.spawn(u64::MAX, work).join().is_err());
            ensure!(pool.spawn(number, work).join()? == number + 1);
            Ok(())
        })?;
        side.stop()
    })?;
    pool.kill();
    Ok(usage.per(deaths))
}
