//! The worker processes: spawned, and replaced when they die.

use indicatif::ProgressBar;
use wormhole::{Child, ChildEnd, Error, Receiver, Result, Sender, spawn};

use crate::explain;
use crate::worker::{self, Answer, Job};

pub(crate) struct Pool {
    size: usize,
    workers: Vec<Child<()>>,
    // What every worker gets. This process keeps both for the workers that it has yet to spawn.
    jobs: Receiver<Job>,
    answers: Sender<Answer>,
}

impl Pool {
    pub(crate) fn new(size: usize, jobs: Receiver<Job>, answers: Sender<Answer>) -> Self {
        Pool {
            size,
            workers: Vec::new(),
            jobs,
            answers,
        }
    }

    /// Spawns the workers that are missing.
    pub(crate) fn fill(&mut self) -> Result<()> {
        while self.workers.len() < self.size {
            let ends = (self.jobs.clone(), self.answers.clone());
            self.workers.push(spawn(ends, work)?);
        }
        Ok(())
    }

    /// Forgets the workers that have died, and reports them.
    pub(crate) fn reap(&mut self, bar: &ProgressBar) {
        self.workers.retain_mut(|worker| {
            let cause = match worker.try_join() {
                Ok(None) => return true,
                Ok(Some(())) => "exit status 0".to_owned(),
                Err(Error::Child { end, .. }) => match end {
                    ChildEnd::Killed { signal, .. } => format!("signal {signal}"),
                    ChildEnd::Exited { code } => format!("exit status {code}"),
                    end => end.to_string(),
                },
                Err(error) => explain(&error),
            };
            let pid = worker.pid();
            bar.suspend(|| eprintln!("wordcount: worker {pid} died ({cause})"));
            false
        });
    }

    /// Waits for the workers to end, as they do when the sender of the jobs is dropped.
    pub(crate) fn join(self) {
        for worker in self.workers {
            let _ = worker.join(); // all files are counted, so how it ended does not matter
        }
    }
}

/// The life of a worker.
fn work((jobs, answers): (Receiver<Job>, Sender<Answer>)) {
    match worker::run(&jobs, &answers) {
        // No more jobs, or the parent is gone.
        Ok(()) | Err(Error::Disconnected) => {}
        Err(error) => {
            eprintln!("wordcount: worker: {}", explain(&error));
            std::process::exit(1)
        }
    }
}
