//! The run: one epoch after the other, each judged exactly.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::process::{Child as Program, Command, ExitCode};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;
use wormhole::{Child, Sender, channel, select, spawn, spawn_command};

use crate::assignment::Assignment;
use crate::cli::Options;
use crate::ledger::{Count, ROWS, ledger};
use crate::plan::{Plan, WORKERS};
use crate::procs::{children, own_memory, pid_of, reap_orphans};
use crate::report::Report;
use crate::run_assignment::{minus, open_fds};
use crate::settle;
use crate::supervisor::{Charge, supervise};
use crate::verify::{Verdict, verify};
use crate::watch::{Flatness, dump, memory_of_all};

/// A process that lives through all epochs.
#[derive(Debug)]
struct Worker {
    program: Program,
    assignments: Sender<Assignment>,
    flatness: Flatness,
}

/// Runs epochs until the time is up or something is wrong.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    settle_as_driver()?;
    let seed = options.seed.unwrap_or_else(any_seed);
    eprintln!("seed {seed}");
    let mut driver = Driver::new(options, seed)?;
    let total = Duration::from_secs_f64(options.minutes * 60.0);
    let bar = ProgressBar::new(total.as_secs()).with_style(ProgressStyle::with_template(
        "{wide_bar} {elapsed} of {len} s, {msg:<60}",
    )?);
    let start = Instant::now();
    let mut epoch = options.epoch.unwrap_or(0);
    let violations = loop {
        let violations = driver.epoch(epoch)?;
        driver.report.elapsed = start.elapsed();
        bar.set_position(start.elapsed().as_secs());
        bar.set_message(driver.report.line());
        if bar.is_hidden() && driver.report.epochs % 10 == 0 {
            eprintln!("{}", driver.report.line());
        }
        if !violations.is_empty() || options.epoch.is_some() || start.elapsed() >= total {
            break violations;
        }
        epoch += 1;
    };
    bar.finish_and_clear();
    driver.end();
    print!("{}", driver.report);
    if options.sabotage.is_some() {
        println!("sabotaged {} times", driver.report.sabotaged());
    }
    if violations.is_empty() {
        println!("nothing lost, torn, doubled, disordered, left open or stuck");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nVIOLATIONS in epoch {epoch} of seed {seed}:");
    for violation in violations {
        println!("- {violation}");
    }
    let millis = options.epoch_millis;
    println!("\nto see it again: --seed {seed} --epoch {epoch} --epoch-millis {millis}");
    Ok(ExitCode::FAILURE)
}

/// Takes in the children of dead processes, to see them end.
fn settle_as_driver() -> anyhow::Result<()> {
    settle()?;
    nix::sys::prctl::set_pdeathsig(None).context("prctl")?; // this one may outlive its shell
    set_child_subreaper(true).context("prctl")
}

pub(crate) fn any_seed() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::from(now.subsec_nanos()) ^ (now.as_secs() % 1_000_000)
}

struct Driver<'a> {
    options: &'a Options,
    seed: u64,
    directory: TempDir,
    workers: Vec<Worker>,
    flatness: Flatness,
    report: Report,
}

impl<'a> Driver<'a> {
    fn new(options: &'a Options, seed: u64) -> anyhow::Result<Self> {
        let mut workers = Vec::new();
        for _ in 0..WORKERS {
            let (assignments, rx) = channel().context("a channel for assignments")?;
            let mut command = Command::new("/proc/self/exe");
            command.args(["--worker-of", &ledger().path()]);
            workers.push(Worker {
                program: spawn_command(command, rx).context("start a worker")?,
                assignments,
                flatness: Flatness::default(),
            });
        }
        Ok(Driver {
            options,
            seed,
            directory: tempfile::tempdir().context("a directory for socket files")?,
            workers,
            flatness: Flatness::default(),
            report: Report::new(seed),
        })
    }

    /// Runs an epoch, and says what was wrong.
    fn epoch(&mut self, epoch: u64) -> anyhow::Result<Vec<String>> {
        ledger().clear()?;
        let before = open_fds();
        let duration = Duration::from_millis(self.options.epoch_millis);
        let plan = Plan::new(self.seed, epoch, duration);
        let mut supervisors = Vec::new();
        for cluster in 0..plan.clusters() {
            supervisors.push(Some(self.start_supervisor(epoch, cluster)?));
        }
        let mut violations = Vec::new();
        let stuck = self.watch(&plan, &mut supervisors)?;
        let verdict = match stuck {
            Some(dump) => {
                violations.push(dump);
                Verdict::default()
            }
            None => verify(&plan),
        };
        self.report.add(&verdict);
        violations.splice(0..0, ledger().violations());
        violations.extend(verdict.violations);
        if violations.is_empty() {
            drop(supervisors);
            self.look_for_leaks(&before, &mut violations)?;
        }
        Ok(violations)
    }

    fn start_supervisor(&self, epoch: u64, cluster: usize) -> anyhow::Result<Child<()>> {
        let row = ledger().next(Count::NextRow, ROWS).context("no row")?;
        let workers = self.workers.iter();
        let charge = Charge {
            seed: self.seed,
            epoch,
            duration: Duration::from_millis(self.options.epoch_millis),
            cluster,
            row,
            directory: self.directory.path().display().to_string(),
            workers: workers
                .map(|one| (one.program.id(), one.assignments.clone()))
                .collect(),
            sabotage: self.options.sabotage,
        };
        spawn(charge, supervise).context("start a supervisor")
    }

    /// Waits until all supervisors have ended. If that takes too long it says which process waits for what, and ends them.
    fn watch(
        &mut self,
        plan: &Plan,
        supervisors: &mut [Option<Child<()>>],
    ) -> anyhow::Result<Option<String>> {
        let start = Instant::now();
        let deadline = plan.duration + Duration::from_secs(self.options.deadline);
        let mut stops = plan.supervisor_stops.iter().peekable();
        let mut stopped: Vec<(Instant, usize)> = Vec::new();
        let mut rounds = 0_u32;
        loop {
            for slot in supervisors.iter_mut() {
                match slot.as_mut().map(Child::try_join) {
                    None | Some(Ok(None)) => continue,
                    Some(Ok(Some(()))) => {}
                    Some(Err(error)) => ledger().violation(&format!("a supervisor: {error}")),
                }
                *slot = None;
            }
            let Some(first) = supervisors.iter().flatten().next() else {
                return Ok(None);
            };
            select! {
                ready(first) => {}
                default(Duration::from_millis(20)) => {}
            }
            while let Some((_, cluster, length)) = stops.next_if(|stop| stop.0 <= start.elapsed()) {
                if let Some(Some(child)) = supervisors.get(*cluster) {
                    signal(child, Signal::SIGSTOP)?;
                    ledger().add(Count::Stops, 1);
                    stopped.push((Instant::now() + *length, *cluster));
                }
            }
            let (due, later): (Vec<_>, Vec<_>) = stopped
                .into_iter()
                .partition(|stop| stop.0 <= Instant::now());
            stopped = later;
            for (_, cluster) in due {
                if let Some(Some(child)) = supervisors.get(cluster) {
                    signal(child, Signal::SIGCONT)?;
                }
            }
            self.report.orphans += reap_orphans(&self.own(supervisors))?;
            rounds += 1;
            if rounds % 16 == 0 {
                let all = memory_of_all() + own_memory(std::process::id());
                self.report.peak_of_all = self.report.peak_of_all.max(all);
            }
            if start.elapsed() > deadline {
                let text = format!(
                    "not finished after {:.1} s; {}",
                    start.elapsed().as_secs_f64(),
                    dump(plan)
                );
                self.end_all(supervisors);
                return Ok(Some(text));
            }
        }
    }

    fn own(&self, supervisors: &[Option<Child<()>>]) -> Vec<u32> {
        let workers = self.workers.iter().map(|worker| worker.program.id());
        let supervisors = supervisors.iter().flatten().map(Child::pid);
        workers.chain(supervisors).collect()
    }

    /// Ends everybody. Actors end with their supervisors.
    fn end_all(&mut self, supervisors: &mut [Option<Child<()>>]) {
        for child in supervisors.iter_mut().filter_map(Option::take) {
            let _ = child.kill();
            let _ = child.join();
        }
        for worker in &mut self.workers {
            let _ = worker.program.kill();
            let _ = worker.program.wait();
        }
        self.workers.clear();
    }

    /// Checks that nothing is left of an epoch that has ended well.
    fn look_for_leaks(
        &mut self,
        before: &BTreeMap<RawFd, String>,
        violations: &mut Vec<String>,
    ) -> anyhow::Result<()> {
        let own = self.own(&[]);
        let patience = Instant::now() + Duration::from_secs(10);
        // The child of a killed actor dies with it, but may take a moment to do so.
        let strangers = loop {
            self.report.orphans += reap_orphans(&own)?;
            let mut all = children();
            all.retain(|pid| !own.contains(pid));
            if all.is_empty() || Instant::now() > patience {
                break all;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        if !strangers.is_empty() {
            violations.push(format!("processes are left over: {strangers:?}"));
        }
        let after = open_fds();
        if &after != before {
            let (more, fewer) = (minus(&after, before), minus(before, &after));
            violations.push(format!("the driver left open: {more:?}, closed: {fewer:?}"));
        }
        let round = usize::try_from(self.report.epochs)? - 1;
        self.report
            .memory
            .resize(1 + WORKERS, (String::new(), 0, 0));
        let mut all = vec![(
            "the driver".to_owned(),
            std::process::id(),
            &mut self.flatness,
        )];
        for (number, worker) in self.workers.iter_mut().enumerate() {
            if let Some(status) = worker.program.try_wait()? {
                violations.push(format!("worker {number} has ended: {status}"));
            }
            let name = format!("worker {number}");
            all.push((name, worker.program.id(), &mut worker.flatness));
        }
        for (slot, (name, pid, flatness)) in self.report.memory.iter_mut().zip(all) {
            let bytes = own_memory(pid);
            self.report.peak_of_one = self.report.peak_of_one.max(bytes);
            if let Some(grown) = flatness.add(round, bytes) {
                violations.push(format!("{name}: {grown}"));
            }
            let early = if round < 4 { bytes.max(slot.1) } else { slot.1 };
            *slot = (name, early, bytes);
        }
        Ok(())
    }

    /// Lets the workers go.
    fn end(&mut self) {
        for worker in self.workers.drain(..) {
            let Worker {
                mut program,
                assignments,
                ..
            } = worker;
            drop(assignments);
            let _ = program.wait();
        }
    }
}

fn signal(child: &Child<()>, signal: Signal) -> anyhow::Result<()> {
    // It has not been joined, so the number is still its own.
    kill(pid_of(child.pid())?, signal).with_context(|| format!("send {signal}"))
}
