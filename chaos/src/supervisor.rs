//! A supervisor: makes the channels of its cluster, starts the actors, sees to it that faults befall them, starts
//! some of the dead again, and at the end lets everything flow out and reaps them all.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde::Serialize;
use wormhole::{Error, Options, Receiver, Select, Sender, spawn, spawn_command};

use crate::actor_process::{ActorProcess, Handle};
use crate::assignment::{Address, Assignment, Input, Output, Presence};
use crate::ledger::{self, Count, ROWS, Row, ended, ledger};
use crate::message::Message;
use crate::plan::{How, Kind, Plan, Role};
use crate::procs::children_are_gone;
use crate::random::Random;
use crate::run_assignment::{minus, open_fds, run_assignment};
use crate::sabotage::Sabotage;
use crate::this_process::{Op, ThisProcess, describe};

/// What a supervisor is given.
#[derive(Debug, Serialize)]
pub(crate) struct Charge {
    pub(crate) seed: u64,
    pub(crate) epoch: u64,
    pub(crate) duration: Duration,
    pub(crate) cluster: usize,
    pub(crate) row: usize,
    /// Where socket files go.
    pub(crate) directory: String,
    /// The processes that live on: their ids, and the channels of their assignments.
    pub(crate) workers: Vec<(u32, Sender<Assignment>)>,
    pub(crate) sabotage: Option<Sabotage>,
}

/// A supervisor's whole life.
pub(crate) fn supervise(charge: Charge) {
    let _ = set_pdeathsig(Signal::SIGKILL);
    let pid = ledger().row(charge.row, Row::Pid);
    pid.store(u64::from(std::process::id()), Ordering::SeqCst);
    let this = ThisProcess {
        row: charge.row,
        actor: ledger::ACTORS,
        random: Random::of(&[charge.seed, charge.row as u64]),
        pause: Duration::ZERO,
        sabotage: charge.sabotage,
    };
    let mut expected = open_fds();
    for (_, worker) in &charge.workers {
        expected.remove(&worker.as_fd().as_raw_fd());
    }
    let mut supervisor = Supervisor {
        plan: Plan::new(charge.seed, charge.epoch, charge.duration),
        charge,
        this,
        ends: HashMap::new(),
        presences: HashMap::new(),
        running: Vec::new(),
        start: Instant::now(),
        faults: 0,
    };
    if let Err(error) = supervisor.run() {
        supervisor
            .this
            .violation(format_args!("supervisor: {error:#}"));
    }
    let this = ThisProcess {
        random: Random::of(&[0]),
        ..supervisor.this
    };
    drop(supervisor.charge);
    drop((supervisor.ends, supervisor.presences, supervisor.running));
    let open = open_fds();
    if open != expected {
        let (more, fewer) = (minus(&open, &expected), minus(&expected, &open));
        this.violation(format_args!(
            "supervisor left open: {more:?}, closed: {fewer:?}"
        ));
    }
    let end = ledger().row(this.row, Row::End);
    end.store(ended::WELL, Ordering::SeqCst);
}

struct Supervisor {
    charge: Charge,
    plan: Plan,
    this: ThisProcess,
    /// Both ends of the channels that it keeps, or has not given away yet.
    ends: HashMap<usize, (Sender<Message>, Receiver<Message>)>,
    /// By channel, for listeners.
    presences: HashMap<usize, (Sender<()>, Receiver<()>)>,
    running: Vec<ActorProcess>,
    start: Instant,
    /// How many of the plan's faults have been seen to.
    faults: usize,
}

impl Supervisor {
    fn run(&mut self) -> anyhow::Result<()> {
        self.this.doing(Op::Supervise, None);
        self.make_channels()?;
        let mut cast: Vec<usize> = (0..self.plan.actors.len())
            .filter(|&actor| self.plan.actors[actor].cluster == self.charge.cluster)
            .collect();
        for index in (1..cast.len()).rev() {
            cast.swap(index, self.this.random.index(index + 1));
        }
        for actor in cast {
            self.start(actor)?;
        }
        self.ends
            .retain(|&channel, _| self.plan.channels[channel].kind == Kind::Kept);
        while self.start.elapsed() < self.plan.duration {
            self.step(false)?;
        }
        self.this.doing(Op::Drain, None);
        self.let_go();
        while !self.running.is_empty() {
            self.step(true)?;
        }
        self.reap_the_abandoned()
    }

    fn make_channels(&mut self) -> anyhow::Result<()> {
        for (index, plan) in self.plan.channels.iter().enumerate() {
            if plan.cluster != self.charge.cluster {
                continue;
            }
            if plan.kind == Kind::Listener {
                let presence = wormhole::channel().context("a channel for presence")?;
                self.presences.insert(index, presence);
                continue;
            }
            let mut options = Options::new();
            if let Some(bytes) = plan.buffer {
                options = options.buffer(bytes);
            }
            if !plan.spins {
                options = options.spin(Duration::ZERO);
            }
            let kept = u64::from(plan.kind == Kind::Kept);
            set(index, ledger::Channel::SenderKept, kept);
            set(index, ledger::Channel::ReceiverKept, kept);
            let ends = options.channel().context("a channel")?;
            self.ends.insert(index, ends);
        }
        Ok(())
    }

    /// Starts an incarnation of an actor.
    fn start(&mut self, actor: usize) -> anyhow::Result<()> {
        let Some(row) = ledger().next(Count::NextRow, ROWS) else {
            return Ok(()); // the account is full, and the show goes on without
        };
        let number = ledger().row(row, Row::Actor);
        number.store(actor as u64 + 1, Ordering::SeqCst);
        let mut patience = 5000;
        let handle = loop {
            let assignment = self.assignment(actor, row)?;
            match self.hand_out(assignment, self.plan.actors[actor].how) {
                Err(Error::TooManyFdsInFlight) if patience > 0 => {
                    patience -= 1;
                    thread::sleep(Duration::from_millis(1));
                }
                handle => break handle.context("start an actor")?,
            }
        };
        ledger().add(Count::Spawned, 1);
        self.running.push(ActorProcess::new(actor, row, handle));
        Ok(())
    }

    /// Starts a process with this assignment, or gives it to one that runs.
    fn hand_out(&self, assignment: Assignment, how: How) -> wormhole::Result<Handle> {
        let run = |assignment| {
            let _ = set_pdeathsig(Signal::SIGKILL);
            run_assignment(assignment, None);
        };
        Ok(match how {
            How::Spawn => Handle::Child(spawn(assignment, run)?),
            How::Abandon => {
                drop(spawn(assignment, run)?);
                Handle::Abandoned
            }
            How::Command => {
                let mut command = Command::new("/proc/self/exe");
                command.args(["--actor-of", &ledger().path()]);
                Handle::Program(spawn_command(command, assignment)?)
            }
            How::Worker(number) => {
                let (pid, worker) = &self.charge.workers[number];
                worker.send(assignment)?;
                Handle::Worker(*pid)
            }
        })
    }

    fn assignment(&self, actor: usize, row: usize) -> anyhow::Result<Assignment> {
        let plan = &self.plan.actors[actor];
        let mut assignment = Assignment {
            row: u32::try_from(row)?,
            actor: u32::try_from(actor)?,
            seed: self.charge.seed ^ self.charge.epoch.rotate_left(32),
            role: plan.role,
            inputs: Vec::new(),
            outputs: Vec::new(),
            address: None,
            pause: plan.pause,
            spare_fds: plan.spare_fds,
            set: plan.set,
            tick: plan.tick,
            sabotage: self.charge.sabotage,
        };
        for &channel in plan.inputs.iter().chain(&plan.outputs) {
            if let Some((client, host)) = self.presences.get(&channel) {
                assignment.address = Some(Address {
                    channel: u32::try_from(channel)?,
                    path: self.path(channel),
                    presence: match plan.role {
                        Role::Host => Presence::Host(host.clone()),
                        _ => Presence::Client(client.clone()),
                    },
                });
            }
        }
        for &channel in &plan.inputs {
            if let Some((_, rx)) = self.ends.get(&channel) {
                assignment.inputs.push(Input {
                    channel: u32::try_from(channel)?,
                    beside: self.plan.channels[channel].beside,
                    rx: rx.clone(),
                });
            }
        }
        for &channel in &plan.outputs {
            if let Some((tx, _)) = self.ends.get(&channel) {
                assignment.outputs.push(Output {
                    channel: u32::try_from(channel)?,
                    beside: self.plan.channels[channel].beside,
                    packet: self.plan.channels[channel].packet(),
                    tx: tx.clone(),
                });
            }
        }
        Ok(assignment)
    }

    /// The address of a listener: a path, or an abstract one.
    fn path(&self, channel: usize) -> String {
        let (epoch, directory) = (self.charge.epoch, &self.charge.directory);
        match channel % 2 {
            0 => format!("{directory}/{epoch}-{channel}"),
            _ => format!("\0{directory}/{epoch}-{channel}"),
        }
    }

    /// Does what is due, waits a little, and sees which actors have ended.
    fn step(&mut self, drains: bool) -> anyhow::Result<()> {
        let elapsed = self.start.elapsed();
        while let Some(fault) = self.plan.faults.get(self.faults) {
            if fault.at > elapsed {
                break;
            }
            let victim = self
                .running
                .iter_mut()
                .find(|running| running.actor == fault.actor);
            match (victim, fault.stop) {
                (None, _) => {}
                (Some(victim), Some(length)) => victim.stop(length)?,
                (Some(victim), None) => victim.kill()?,
            }
            self.faults += 1;
        }
        for running in &mut self.running {
            running.go_on_if_due()?;
        }
        self.wait(Duration::from_millis(10));
        for index in (0..self.running.len()).rev() {
            if !self.running[index].has_ended(&self.this)? {
                continue;
            }
            let running = self.running.swap_remove(index);
            let end = ledger().row(running.row, Row::End).load(Ordering::SeqCst);
            if end == ended::KILLED && self.plan.actors[running.actor].restarts && !drains {
                ledger().add(Count::Restarts, 1);
                self.start(running.actor)?;
            }
        }
        Ok(())
    }

    /// Waits until some child has ended, but not for long.
    fn wait(&self, timeout: Duration) {
        let children: Vec<_> = self
            .running
            .iter()
            .filter_map(ActorProcess::as_child)
            .collect();
        let mut select = Select::new();
        for child in children {
            select.ready(child);
        }
        match select.select_timeout(timeout) {
            Ok(_) | Err(Error::TimedOut { .. }) => {}
            Err(error) => {
                let error = describe(&error);
                self.this
                    .violation(format_args!("wait for children: {error}"));
            }
        }
    }

    /// Gives up all ends. From now on everything comes to its end by itself.
    fn let_go(&mut self) {
        ledger().add(Count::Drains, 1);
        for &channel in self.ends.keys() {
            set(channel, ledger::Channel::SenderKept, 0);
            set(channel, ledger::Channel::ReceiverKept, 0);
        }
        if self.charge.sabotage == Some(Sabotage::Stray) {
            if let Some((tx, _)) = self.ends.values().next() {
                ledger().add(Count::Sabotaged, 1);
                std::mem::forget(tx.clone());
            }
        }
        self.ends.clear();
        self.presences.clear();
    }

    /// Checks that no child is left, dead or alive, once the library has had its chance to reap those whose
    /// handles were dropped.
    fn reap_the_abandoned(&mut self) -> anyhow::Result<()> {
        if self.charge.sabotage == Some(Sabotage::Zombie) {
            ledger().add(Count::Sabotaged, 1);
            let child = Command::new("/proc/self/exe")
                .arg("--version")
                .stdout(std::process::Stdio::null())
                .spawn();
            drop(child.context("a child to be forgotten")?);
        }
        let patience = Instant::now() + Duration::from_secs(5);
        loop {
            spawn((), |()| ())
                .and_then(wormhole::Child::join)
                .context("spawn and join")?;
            if children_are_gone()? {
                return Ok(());
            }
            if Instant::now() > patience {
                bail!("children were left that nobody reaped");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn set(channel: usize, field: ledger::Channel, word: u64) {
    ledger()
        .channel(channel, field)
        .store(word, Ordering::SeqCst);
}
