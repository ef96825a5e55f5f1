//! The play of the pool: jobs that panic, abort, exit, hang and take long, workers that somebody kills and stops at any
//! moment, jobs that are cancelled; and for every job exactly one outcome.
//!
//! The account is in shared memory, so it survives every kill: for each job how often it was begun and done by workers, and
//! what outcomes it had.

use std::ffi::c_int;
use std::fs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use memmap2::MmapRaw;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{ftruncate, getpid};
use wormhole::process::Failure;
use wormhole::{Error, JobError, JobId, Pool, PoolOptions, Receiver, channel, spawn};

use crate::random::Random;

/// Jobs in one round.
const JOBS: usize = 4000;

/// A job: its number, and what it draws from.
type Job = (u32, u64);
/// A result: the number again, and a load that may fill more than a packet.
type Load = (u32, String);

/// Counts in memory that all processes share.
struct Account {
    map: MmapRaw,
    memfd: std::os::fd::OwnedFd,
}

/// What is counted of each job.
#[derive(Clone, Copy)]
enum Column {
    Begun,
    Done,
    Outcomes,
}

impl Account {
    fn new() -> anyhow::Result<Self> {
        let memfd = memfd_create("pool", MFdFlags::MFD_CLOEXEC)?;
        ftruncate(&memfd, i64::try_from(JOBS * 3 * 4)?)?;
        let map = MmapRaw::map_raw(&memfd)?;
        Ok(Account { map, memfd })
    }

    #[allow(unsafe_code, reason = "memory that processes share")]
    fn of(&self, job: u32, column: Column) -> &AtomicU32 {
        let index = (job as usize % JOBS) * 3 + column as usize;
        let counts = self.map.as_mut_ptr().cast::<AtomicU32>();
        // SAFETY: the map has so many of them.
        let count = unsafe { counts.add(index) };
        // SAFETY: it is mapped for as long as `self` is there, and used as an atomic by all.
        unsafe { &*count }
    }
}

/// What a worker is given: the account, as a descriptor.
#[derive(serde::Serialize, serde::Deserialize)]
struct Args(#[serde(with = "wormhole::fd")] std::os::fd::OwnedFd);

fn init(Args(memfd): &Args) -> Result<Account, Failure> {
    std::panic::set_hook(Box::new(|_| {}));
    let memfd = memfd.try_clone()?;
    let map = MmapRaw::map_raw(&memfd)?;
    Ok(Account { map, memfd })
}

fn work(account: &mut Account, (job, seed): Job) -> Load {
    account
        .of(job, Column::Begun)
        .fetch_add(1, Ordering::SeqCst);
    let mut random = Random::of(&[seed, job.into()]);
    let load = match random.below(200) {
        0 => panic!("in a job"),
        1 => std::process::abort(),
        2 => std::process::exit(3),
        3 => loop {
            std::thread::park();
        },
        4..10 => 400_000,
        10..20 => {
            std::thread::sleep(Duration::from_millis(random.below(5)));
            0
        }
        _ => random.index(300),
    };
    account.of(job, Column::Done).fetch_add(1, Ordering::SeqCst);
    (job, "x".repeat(load))
}

/// Kills and stops workers of its parent until it is told to end.
fn harass((stop, seed): (Receiver<()>, u64)) -> u64 {
    let parent = std::os::unix::process::parent_id();
    let path = format!("/proc/{parent}/task/{parent}/children");
    let mut random = Random::of(&[seed, 1]);
    let mut hits = 0;
    while matches!(stop.try_recv(), Err(Error::Empty)) {
        std::thread::sleep(Duration::from_micros(random.below(30_000)));
        let children = fs::read_to_string(&path).unwrap_or_default();
        let children: Vec<i32> = children.split_whitespace().flat_map(str::parse).collect();
        if children.is_empty() {
            continue;
        }
        let victim = children[random.index(children.len())];
        let signal = if random.chance(800) {
            libc_kill()
        } else {
            libc_stop()
        };
        if victim != getpid().as_raw() && signal_child(victim, parent, signal) {
            hits += 1;
        }
    }
    hits
}

fn libc_kill() -> c_int {
    nix::libc::SIGKILL
}

fn libc_stop() -> c_int {
    nix::libc::SIGSTOP
}

/// Signals a process if it is a child of that parent, and never another one of the same number.
#[allow(unsafe_code, reason = "pidfds without rustix")]
fn signal_child(pid: i32, parent: u32, signal: c_int) -> bool {
    use nix::libc::{SYS_pidfd_open, SYS_pidfd_send_signal, close, syscall};
    // SAFETY: opens a descriptor for a process.
    let pidfd = unsafe { syscall(SYS_pidfd_open, pid, 0) };
    if pidfd < 0 {
        return false;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let is_child = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok())
        == Some(parent);
    // SAFETY: sends a signal to that process.
    let hit = is_child && unsafe { syscall(SYS_pidfd_send_signal, pidfd, signal, 0, 0) } == 0;
    // SAFETY: it was opened here.
    unsafe { close(c_int::try_from(pidfd).unwrap_or(-1)) };
    hit
}

/// What became of the jobs of a run.
#[derive(Debug, Default)]
struct Totals {
    jobs: u64,
    results: u64,
    panicked: u64,
    died: u64,
    timed_out: u64,
    cancelled: u64,
    undelivered: u64,
    hits: u64,
}

/// Runs rounds for that long.
pub(crate) fn run(length: Duration, seed: u64) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let mut totals = Totals::default();
    for round in 0.. {
        let mut random = Random::of(&[seed, round]);
        one_round(&mut random, &mut totals)
            .with_context(|| format!("seed {seed}, round {round}"))?;
        if start.elapsed() >= length {
            break;
        }
    }
    println!("seed {seed}: every job had one outcome, and none was begun twice\n{totals:#?}");
    Ok(ExitCode::SUCCESS)
}

fn one_round(random: &mut Random, totals: &mut Totals) -> anyhow::Result<()> {
    let before = fs::read_dir("/proc/self/fd")?.count();
    let account = Account::new()?;
    let mut options = PoolOptions::new(1 + random.index(6))
        .deadline(Duration::from_millis(50))
        .ahead(random.index(4))
        .keep(JOBS);
    if random.chance(300) {
        options = options.jobs_per_worker(1 + random.below(50));
    }
    let is_fresh = random.chance(300);
    let jobs = if is_fresh { JOBS / 10 } else { JOBS };
    if is_fresh {
        options = options.fresh();
    }
    let seed = random.next();
    let (stop, told) = channel()?;
    let harasser = spawn((told, seed), harass)?;
    let args = Args(account.memfd.try_clone()?);
    let mut pool: Pool<Job, Load> = options.start(args, init, work)?;
    let mut numbers = std::collections::HashMap::new();
    for job in 0..u32::try_from(jobs)? {
        // Where three workers in a row were killed while they started, the pool is given up, and rightly so.
        let id = match pool.submit((job, seed)) {
            Ok(id) => id,
            Err(Error::Child { .. }) => break,
            Err(error) => return Err(error.into()),
        };
        numbers.insert(id, job);
        totals.jobs += 1;
        if random.chance(20) {
            pool.cancel(id)?;
        }
        while random.chance(600) {
            match pool.try_recv() {
                Ok((id, outcome)) => settle(&account, &numbers, id, outcome, totals)?,
                Err(Error::Empty | Error::Disconnected) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    loop {
        match pool.recv_timeout(Duration::from_secs(30)) {
            Ok((id, outcome)) => settle(&account, &numbers, id, outcome, totals)?,
            Err(Error::Disconnected) => break,
            Err(error) => return Err(error.into()),
        }
    }
    for job in numbers.values() {
        let outcomes = account.of(*job, Column::Outcomes).load(Ordering::SeqCst);
        ensure!(outcomes == 1, "job {job} has {outcomes} outcomes");
    }
    stop.send(())?;
    totals.hits += harasser.join()?;
    drop(pool);
    drop((account, stop));
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", getpid()))?;
    ensure!(children.is_empty(), "children left: {children}");
    let after = fs::read_dir("/proc/self/fd")?.count();
    ensure!(
        before == after,
        "{before} descriptors before, {after} after"
    );
    Ok(())
}

fn settle(
    account: &Account,
    numbers: &std::collections::HashMap<JobId, u32>,
    id: JobId,
    outcome: Result<Load, JobError>,
    totals: &mut Totals,
) -> anyhow::Result<()> {
    let job = *numbers.get(&id).context("an outcome of no job")?;
    let outcomes = account
        .of(job, Column::Outcomes)
        .fetch_add(1, Ordering::SeqCst);
    ensure!(outcomes == 0, "job {job} has a second outcome: {outcome:?}");
    let begun = account.of(job, Column::Begun).load(Ordering::SeqCst);
    let done = account.of(job, Column::Done).load(Ordering::SeqCst);
    ensure!(begun <= 1, "job {job} was begun {begun} times");
    match outcome {
        Ok((of, load)) => {
            ensure!(of == job && done == 1, "job {job} has the result of {of}");
            ensure!(load.bytes().all(|byte| byte == b'x'), "job {job}: torn");
            totals.results += 1;
        }
        Err(JobError::Panicked { .. }) => {
            ensure!(
                begun == 1 && done == 0,
                "job {job} panicked: {begun}, {done}"
            );
            totals.panicked += 1;
        }
        Err(JobError::Died { .. }) => totals.died += 1,
        Err(JobError::TimedOut) => totals.timed_out += 1,
        Err(JobError::Cancelled) => totals.cancelled += 1,
        Err(JobError::Undelivered { reason }) => {
            ensure!(begun == 0, "job {job} was begun, and undelivered: {reason}");
            totals.undelivered += 1;
        }
        Err(error) => anyhow::bail!("job {job}: {error}"),
    }
    Ok(())
}
