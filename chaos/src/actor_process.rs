//! A running incarnation of an actor, as its supervisor holds it: stopped, continued, killed and reaped.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use wormhole::{Child, ChildEnd, Error};

use crate::ledger::{Count, Row, ended, ledger};
use crate::procs::pid_of;
use crate::this_process::ThisProcess;

/// How a supervisor gets at a process.
#[derive(Debug)]
pub(crate) enum Handle {
    Child(Child<()>),
    Program(std::process::Child),
    /// The process id of one that carries out an assignment and then lives on.
    Worker(u32),
    /// Only the ledger tells of it.
    Abandoned,
}

#[derive(Debug)]
pub(crate) struct ActorProcess {
    pub(crate) actor: usize,
    pub(crate) row: usize,
    handle: Handle,
    stopped_until: Option<Instant>,
    was_killed: bool,
}

impl ActorProcess {
    pub(crate) fn new(actor: usize, row: usize, handle: Handle) -> Self {
        ActorProcess {
            actor,
            row,
            handle,
            stopped_until: None,
            was_killed: false,
        }
    }

    pub(crate) fn as_child(&self) -> Option<&Child<()>> {
        match &self.handle {
            Handle::Child(child) => Some(child),
            _ => None,
        }
    }

    /// Stops it for a while.
    pub(crate) fn stop(&mut self, length: Duration) -> anyhow::Result<()> {
        if self.stopped_until.is_none() && self.signal(Signal::SIGSTOP)? {
            ledger().add(Count::Stops, 1);
            self.stopped_until = Some(Instant::now() + length);
        }
        Ok(())
    }

    /// Lets it go on if it was stopped for long enough.
    pub(crate) fn go_on_if_due(&mut self) -> anyhow::Result<()> {
        if self
            .stopped_until
            .is_some_and(|until| until <= Instant::now())
        {
            self.go_on()?;
        }
        Ok(())
    }

    fn go_on(&mut self) -> anyhow::Result<()> {
        self.stopped_until = None;
        self.signal(Signal::SIGCONT).map(drop)
    }

    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        match &mut self.handle {
            Handle::Child(child) => child.kill().context("kill a child")?,
            Handle::Program(child) => child.kill().context("kill a program")?,
            Handle::Worker(_) | Handle::Abandoned => return Ok(()),
        }
        self.was_killed = true;
        ledger().add(Count::Kills, 1);
        Ok(())
    }

    /// Sends a signal to it. It has not been reaped, so the number is its own.
    fn signal(&self, signal: Signal) -> anyhow::Result<bool> {
        let pid = match &self.handle {
            Handle::Child(child) => child.pid(),
            Handle::Program(child) => child.id(),
            Handle::Worker(pid) => *pid,
            Handle::Abandoned => return Ok(false),
        };
        match kill(pid_of(pid)?, signal) {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(errno) => Err(errno).context("send a signal"),
        }
    }

    /// Whether it has ended, or has carried out its assignment. Reaps it, and notes how it ended.
    pub(crate) fn has_ended(&mut self, this: &ThisProcess) -> anyhow::Result<bool> {
        let row = ledger().row(self.row, Row::End);
        let is_accounted = row.load(Ordering::SeqCst) != 0;
        let (died_of, other) = match &mut self.handle {
            Handle::Child(child) => match child.try_join() {
                Ok(None) => return Ok(false),
                Ok(Some(())) => (None, None),
                Err(Error::Child {
                    end: ChildEnd::Killed { signal, .. },
                    ..
                }) => (Some(signal), None),
                Err(error) => (None, Some(error.to_string())),
            },
            Handle::Program(child) => match child.try_wait().context("wait for a program")? {
                None => return Ok(false),
                Some(status) => {
                    use std::os::unix::process::ExitStatusExt;
                    let failed = status.signal().is_none() && !status.success();
                    (status.signal(), failed.then(|| status.to_string()))
                }
            },
            Handle::Worker(_) => {
                if is_accounted && self.stopped_until.is_some() {
                    self.go_on()?;
                }
                return Ok(is_accounted);
            }
            Handle::Abandoned => return Ok(is_accounted),
        };
        let actor = self.actor;
        if died_of.is_some() && row.load(Ordering::SeqCst) == 0 {
            row.store(ended::KILLED, Ordering::SeqCst);
        }
        if row.load(Ordering::SeqCst) == 0 {
            this.violation(format_args!(
                "actor {actor} ended before its assignment did: {other:?}"
            ));
            row.store(ended::LEFT, Ordering::SeqCst);
        } else if other.is_some() || (died_of.is_some() && !self.was_killed) {
            this.violation(format_args!("actor {actor} ended by {died_of:?} {other:?}"));
        }
        Ok(true)
    }
}
