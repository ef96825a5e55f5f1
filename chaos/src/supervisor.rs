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

use crate::crew::{Handle, Running};
use crate::ledger::{self, Count, ROWS, Row, ended, ledger};
use crate::me::{Me, Op, describe};
use crate::message::Message;
use crate::part::{Hall, Input, Output, Part, Presence};
use crate::plan::{How, Kind, Plan, Role};
use crate::play::{minus, open_fds, play};
use crate::procs::children_are_gone;
use crate::random::Random;
use crate::sabotage::Sabotage;

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
    /// The processes that live on: their ids, and how to give them a part.
    pub(crate) veterans: Vec<(u32, Sender<Part>)>,
    pub(crate) sabotage: Option<Sabotage>,
}

/// A supervisor's whole life.
pub(crate) fn supervise(charge: Charge) {
    let _ = set_pdeathsig(Signal::SIGKILL);
    let pid = ledger().row(charge.row, Row::Pid);
    pid.store(u64::from(std::process::id()), Ordering::SeqCst);
    let me = Me {
        row: charge.row,
        actor: ledger::ACTORS,
        random: Random::of(&[charge.seed, charge.row as u64]),
        pause: Duration::ZERO,
        sabotage: charge.sabotage,
    };
    let mut expected = open_fds();
    for (_, veteran) in &charge.veterans {
        expected.remove(&veteran.as_fd().as_raw_fd());
    }
    let mut supervisor = Supervisor {
        plan: Plan::new(charge.seed, charge.epoch, charge.duration),
        charge,
        me,
        ends: HashMap::new(),
        presences: HashMap::new(),
        running: Vec::new(),
        start: Instant::now(),
        faults: 0,
    };
    if let Err(error) = supervisor.run() {
        supervisor
            .me
            .violation(format_args!("supervisor: {error:#}"));
    }
    let me = Me {
        random: Random::of(&[0]),
        ..supervisor.me
    };
    drop(supervisor.charge);
    drop((supervisor.ends, supervisor.presences, supervisor.running));
    let open = open_fds();
    if open != expected {
        let (more, fewer) = (minus(&open, &expected), minus(&expected, &open));
        me.violation(format_args!(
            "supervisor left open: {more:?}, closed: {fewer:?}"
        ));
    }
    let end = ledger().row(me.row, Row::End);
    end.store(ended::WELL, Ordering::SeqCst);
}

struct Supervisor {
    charge: Charge,
    plan: Plan,
    me: Me,
    /// Both ends of the channels that it keeps, or has not given away yet.
    ends: HashMap<usize, (Sender<Message>, Receiver<Message>)>,
    /// By hall.
    presences: HashMap<usize, (Sender<()>, Receiver<()>)>,
    running: Vec<Running>,
    start: Instant,
    /// How many of the plan's faults have been seen to.
    faults: usize,
}

impl Supervisor {
    fn run(&mut self) -> anyhow::Result<()> {
        self.me.doing(Op::Supervise, None);
        self.make_channels()?;
        let mut cast: Vec<usize> = (0..self.plan.actors.len())
            .filter(|&actor| self.plan.actors[actor].cluster == self.charge.cluster)
            .collect();
        for index in (1..cast.len()).rev() {
            cast.swap(index, self.me.random.index(index + 1));
        }
        for actor in cast {
            self.start(actor)?;
        }
        self.ends
            .retain(|&channel, _| self.plan.channels[channel].kind == Kind::Kept);
        while self.start.elapsed() < self.plan.duration {
            self.step(false)?;
        }
        self.me.doing(Op::Drain, None);
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
            if plan.kind == Kind::Hall {
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
            let part = self.part(actor, row)?;
            match self.hand_out(part, self.plan.actors[actor].how) {
                Err(Error::TooManyFdsInFlight) if patience > 0 => {
                    patience -= 1;
                    thread::sleep(Duration::from_millis(1));
                }
                handle => break handle.context("start an actor")?,
            }
        };
        ledger().add(Count::Spawned, 1);
        self.running.push(Running::new(actor, row, handle));
        Ok(())
    }

    /// Starts a process with this part, or gives it to one that runs.
    fn hand_out(&self, part: Part, how: How) -> wormhole::Result<Handle> {
        let play = |part| {
            let _ = set_pdeathsig(Signal::SIGKILL);
            play(part, None);
        };
        Ok(match how {
            How::Spawn => Handle::Child(spawn(part, play)?),
            How::Abandon => {
                drop(spawn(part, play)?);
                Handle::Abandoned
            }
            How::Command => {
                let mut command = Command::new("/proc/self/exe");
                command.args(["--actor-of", &ledger().path()]);
                Handle::Program(spawn_command(command, part)?)
            }
            How::Veteran(number) => {
                let (pid, veteran) = &self.charge.veterans[number];
                veteran.send(part)?;
                Handle::Veteran(*pid)
            }
        })
    }

    fn part(&self, actor: usize, row: usize) -> anyhow::Result<Part> {
        let plan = &self.plan.actors[actor];
        let mut part = Part {
            row: u32::try_from(row)?,
            actor: u32::try_from(actor)?,
            seed: self.charge.seed ^ self.charge.epoch.rotate_left(32),
            role: plan.role,
            inputs: Vec::new(),
            outputs: Vec::new(),
            hall: None,
            pause: plan.pause,
            spare_fds: plan.spare_fds,
            set: plan.set,
            tick: plan.tick,
            sabotage: self.charge.sabotage,
        };
        for &channel in plan.inputs.iter().chain(&plan.outputs) {
            if let Some((client, host)) = self.presences.get(&channel) {
                part.hall = Some(Hall {
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
                part.inputs.push(Input {
                    channel: u32::try_from(channel)?,
                    beside: self.plan.channels[channel].beside,
                    rx: rx.clone(),
                });
            }
        }
        for &channel in &plan.outputs {
            if let Some((tx, _)) = self.ends.get(&channel) {
                part.outputs.push(Output {
                    channel: u32::try_from(channel)?,
                    beside: self.plan.channels[channel].beside,
                    packet: self.plan.channels[channel].packet(),
                    tx: tx.clone(),
                });
            }
        }
        Ok(part)
    }

    /// The name of a hall: a path, or an abstract one.
    fn path(&self, channel: usize) -> String {
        let (epoch, directory) = (self.charge.epoch, &self.charge.directory);
        match channel % 2 {
            0 => format!("{directory}/{epoch}-{channel}"),
            _ => format!("\0{directory}/{epoch}-{channel}"),
        }
    }

    /// Does what is due, waits a little, and sees who has ended.
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
            if !self.running[index].has_ended(&self.me)? {
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
        let children: Vec<_> = self.running.iter().filter_map(Running::as_child).collect();
        let mut select = Select::new();
        for child in children {
            select.ready(child);
        }
        match select.select_timeout(timeout) {
            Ok(_) | Err(Error::TimedOut { .. }) => {}
            Err(error) => {
                let error = describe(&error);
                self.me
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
