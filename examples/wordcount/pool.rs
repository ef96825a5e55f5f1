//! The worker processes: forked, and replaced when they die.

use indicatif::ProgressBar;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use wormhole::{Error, Receiver, Sender};

use crate::explain;
use crate::worker::{self, Answer, Job};

pub(crate) struct Pool {
    size: usize,
    workers: Vec<Pid>,
    // What every worker inherits. This process keeps both for the workers that it has yet to fork.
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

    /// Forks the workers that are missing. The ends of channels that the parent uses itself have to be
    /// in `parent`: a worker drops its copy of them, or the last job would never be the last to it.
    pub(crate) fn fill<P>(&mut self, parent: P) -> nix::Result<P> {
        while self.workers.len() < self.size {
            #[allow(unsafe_code, reason = "fork is how a process gets copies of itself")]
            // SAFETY: there is one thread only, so nothing in the copy is half done, and no lock is held.
            let forked = unsafe { fork() }?;
            match forked {
                ForkResult::Parent { child } => self.workers.push(child),
                ForkResult::Child => {
                    drop(parent);
                    self.work()
                }
            }
        }
        Ok(parent)
    }

    fn work(&self) -> ! {
        match worker::run(&self.jobs, &self.answers) {
            // No more jobs, or nobody left who wants to know.
            Ok(()) | Err(Error::Disconnected) => std::process::exit(0),
            Err(error) => {
                eprintln!("wordcount: worker: {}", explain(&error));
                std::process::exit(1)
            }
        }
    }

    /// Forgets the workers that have died, and reports them.
    pub(crate) fn reap(&mut self, bar: &ProgressBar) {
        self.workers.retain(|&worker| {
            let cause = match waitpid(worker, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return true,
                Ok(WaitStatus::Signaled(_, signal, _)) => format!("signal {}", signal as i32),
                Ok(WaitStatus::Exited(_, status)) => format!("exit status {status}"),
                other => format!("{other:?}"),
            };
            bar.suspend(|| eprintln!("wordcount: worker {worker} died ({cause})"));
            false
        });
    }

    /// Waits for the workers to end, as they do when the sender of the jobs is dropped.
    pub(crate) fn join(self) {
        for worker in self.workers {
            // An error means that it has been reaped by someone else: it has ended, too.
            let _ = waitpid(worker, None);
        }
    }
}
