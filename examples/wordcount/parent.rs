//! The parent: hands out jobs, takes in answers, and sees to it that no job dies with its worker.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use wormhole::{Error, Receiver, channel};

use crate::explain;
use crate::jobs::Jobs;
use crate::pool::Pool;
use crate::worker::{Answer, Counts};

/// How often to look for dead workers.
const TICK: Duration = Duration::from_millis(50);

/// What became of each file, by its index: its counts, or why there are none.
pub(crate) type Results = BTreeMap<usize, Result<Counts, String>>;

struct Parent<'a> {
    jobs: Jobs<'a>,
    answers: Receiver<Answer>,
    results: Results,
}

/// Counts the files in that many processes.
pub(crate) fn count(paths: &[PathBuf], workers: usize) -> Result<Results, Box<dyn StdError>> {
    let bar = ProgressBar::new(paths.len() as u64); // on stderr, if that is a terminal
    let (jobs, job_queue) = channel()?;
    let (reply, answers) = channel()?;
    let mut pool = Pool::new(workers.min(paths.len()), job_queue, reply);
    pool.fill()?;
    let mut parent = Parent {
        jobs: Jobs::new(paths, jobs),
        answers,
        results: Results::new(),
    };
    // One job in work and one waiting for each worker, but never more than a channel holds: else this
    // process could block in sending jobs while all workers block in sending answers.
    let limit = workers.saturating_mul(2).min(256);
    let mut todo = 0..paths.len();
    let mut checked = Instant::now();
    loop {
        while parent.jobs.outstanding() < limit {
            let Some(index) = todo.next() else { break };
            parent.submit(index);
        }
        if parent.jobs.outstanding() == 0 {
            break;
        }
        match parent.answers.recv_timeout(TICK) {
            Ok(answer) => parent.settle(answer),
            Err(Error::TimedOut { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        bar.set_position(parent.results.len() as u64);
        if checked.elapsed() >= TICK {
            pool.reap(&bar);
            pool.fill()?;
            parent.recover()?;
            checked = Instant::now();
        }
    }
    bar.finish_and_clear();
    drop(parent.jobs);
    pool.join();
    Ok(parent.results)
}

impl Parent<'_> {
    fn submit(&mut self, index: usize) {
        if let Err(error) = self.jobs.submit(index) {
            let counts = Err(explain(error.as_ref()));
            self.settle(Answer { index, counts });
        }
    }

    fn settle(&mut self, answer: Answer) {
        self.jobs.settle(answer.index);
        self.results.entry(answer.index).or_insert(answer.counts); // no file counts twice
    }

    fn recover(&mut self) -> wormhole::Result<()> {
        let vanished = self.jobs.vanished();
        // A worker answers before it lets go of the lifeline. So a job has vanished because it is done
        // if its answer is there by now, and because its worker died if not.
        for answer in self.answers.clone().try_iter() {
            self.settle(answer?);
        }
        for index in vanished {
            if !self.results.contains_key(&index) {
                self.submit(index);
            }
        }
        Ok(())
    }
}
