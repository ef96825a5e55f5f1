//! The jobs that were handed out and are not answered yet.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fs::File;
use std::path::PathBuf;

use wormhole::{Error, Receiver, Sender, channel};

use crate::worker::Job;

/// How many workers may die of one file.
const MAX_DEATHS: u32 = 3;

pub(crate) struct Jobs<'a> {
    paths: &'a [PathBuf],
    sender: Sender<Job>,
    outstanding: BTreeMap<usize, Outstanding>,
}

struct Outstanding {
    /// How many workers this job has cost so far.
    deaths: u32,
    /// The other end travels with the job.
    lifeline: Receiver<()>,
}

impl<'a> Jobs<'a> {
    pub(crate) fn new(paths: &'a [PathBuf], sender: Sender<Job>) -> Self {
        Jobs {
            paths,
            sender,
            outstanding: BTreeMap::new(),
        }
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Hands out a job, or once more one that was lost, to whichever worker is free first.
    pub(crate) fn submit(&mut self, index: usize) -> Result<(), Box<dyn StdError>> {
        let lost = self.outstanding.remove(&index);
        let deaths = lost.map_or(0, |job| job.deaths + 1);
        if deaths == MAX_DEATHS {
            return Err(format!("not counted, {deaths} workers died of it").into());
        }
        // Opened anew each time: all copies of a descriptor share one offset, which the worker that
        // died has moved.
        let file = File::open(&self.paths[index])?;
        let (end, lifeline) = channel()?;
        self.sender.send(Job {
            index,
            file,
            lifeline: end,
        })?; // given away, so now the job holds the only copy of `end`
        let job = Outstanding { deaths, lifeline };
        self.outstanding.insert(index, job);
        Ok(())
    }

    /// Forgets a job that is done.
    pub(crate) fn settle(&mut self, index: usize) {
        self.outstanding.remove(&index);
    }

    /// The jobs that are neither in the queue nor in the hands of a worker.
    pub(crate) fn vanished(&self) -> Vec<usize> {
        let vanished = self.outstanding.iter().filter(|(_, job)| {
            // `Empty` would mean that the other end exists: nothing is ever sent.
            matches!(job.lifeline.try_recv(), Err(Error::Disconnected))
        });
        vanished.map(|(&index, _)| index).collect()
    }
}
