//! An actor, from beginning to end: whatever its assignment, it leaves nothing open.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, RawFd};
use std::sync::atomic::Ordering;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use wormhole::channel;

use crate::assignment::Assignment;
use crate::consumer;
use crate::host;
use crate::ledger::{Count, Row, ended, ledger};
use crate::plan::Role;
use crate::producer::{self, Supplies};
use crate::random::Random;
use crate::receiving::ReceivingEnds;
use crate::sabotage::Sabotage;
use crate::this_process::{Op, ThisProcess};
use crate::ticks::Ticking;

/// Carries out an assignment, and checks that what was open before is open after it, but for what was in the assignment.
/// `before_arrival` is what was open before an assignment that came in a message.
pub(crate) fn run_assignment(
    assignment: Assignment,
    before_arrival: Option<BTreeMap<RawFd, String>>,
) {
    let mut this = ThisProcess {
        row: assignment.row as usize,
        actor: assignment.actor as usize,
        random: Random::of(&[assignment.seed, u64::from(assignment.row)]),
        pause: assignment.pause,
        sabotage: assignment.sabotage,
    };
    let pid = ledger().row(this.row, Row::Pid);
    pid.store(u64::from(std::process::id()), Ordering::SeqCst);
    this.doing(Op::Begin, None);
    let expected = before_arrival.unwrap_or_else(|| {
        let mut open = open_fds();
        assignment
            .fds()
            .iter()
            .for_each(|number| drop(open.remove(number)));
        open
    });
    let ticking = assignment.tick.map(Ticking::start).transpose();
    let end = perform(&mut this, assignment);
    match ticking {
        Ok(ticking) => drop(ticking),
        Err(errno) => this.violation(format_args!("a timer: {errno}")),
    }
    this.doing(Op::End, None);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    let open = open_fds();
    if open != expected {
        let (more, fewer) = (minus(&open, &expected), minus(&expected, &open));
        this.violation(format_args!("left open: {more:?}, closed: {fewer:?}"));
    }
    let word = ledger().row(this.row, Row::End);
    word.fetch_or(end, Ordering::SeqCst);
}

/// Carries out the assignment, and says how it ended.
fn perform(this: &mut ThisProcess, assignment: Assignment) -> u64 {
    if let Some(sabotage) = assignment.sabotage {
        sabotage_everything(this, sabotage);
    }
    match set_up_and_run(this, assignment) {
        Ok(true) => ended::WELL,
        Ok(false) => ended::LEFT,
        Err(error) => {
            this.violation(format_args!("{error:#}"));
            ended::LEFT
        }
    }
}

/// Says whether it went on to the end, rather than until nobody wanted it.
fn set_up_and_run(this: &mut ThisProcess, assignment: Assignment) -> anyhow::Result<bool> {
    let ends = ReceivingEnds::new(assignment.inputs, assignment.set)?;
    let supplies = Supplies::new(this)?;
    let _fillers = assignment.spare_fds.map(limit_fds).transpose()?;
    match (assignment.role, assignment.address) {
        (Role::Consumer, _) => consumer::consume(this, ends),
        (Role::Relay, _) => {
            drop(supplies);
            return Ok(consumer::relay(this, ends, assignment.outputs));
        }
        (Role::Producer, _) => return Ok(producer::produce(this, assignment.outputs, supplies)),
        (Role::Client, Some(address)) => producer::visit(this, address, supplies),
        (Role::Host, Some(address)) => host::serve(this, &address)?,
        (Role::Client | Role::Host, None) => anyhow::bail!("no address to go to"),
    }
    Ok(true)
}

/// Does wrong what is not about a single message.
fn sabotage_everything(this: &mut ThisProcess, sabotage: Sabotage) {
    let chosen = this.random.chance(300);
    match sabotage {
        Sabotage::LeakFd if chosen => {
            std::mem::forget(std::io::stdin().as_fd().try_clone_to_owned());
        }
        Sabotage::Hang if chosen => {
            ledger().add(Count::Sabotaged, 1);
            this.doing(Op::Receive, None);
            if let Ok((_tx, rx)) = channel::<()>() {
                let _ = rx.recv();
            }
        }
        Sabotage::Panic if chosen => {
            ledger().add(Count::Sabotaged, 1);
            panic!("sabotage");
        }
        _ => return,
    }
    ledger().add(Count::Sabotaged, 1);
}

/// Leaves this process with so many more descriptors than it has, and gives what fills the gaps between those.
fn limit_fds(spare: u64) -> anyhow::Result<Vec<File>> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let highest = open_fds().into_keys().max().unwrap_or_default();
    let limit = u64::try_from(highest)? + 1;
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard)?;
    let fillers = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    setrlimit(Resource::RLIMIT_NOFILE, (limit + spare).min(hard), hard)?;
    Ok(fillers)
}

/// The open descriptors of this process, and what each one is.
pub(crate) fn open_fds() -> BTreeMap<RawFd, String> {
    let mut fds = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
    {
        let link = fs::read_link(entry.path()).unwrap_or_default();
        let number = entry.file_name().to_str().map(str::parse);
        // The descriptor that reads the list is in the list.
        if let (Some(Ok(number)), false) = (number, link.starts_with("/proc/")) {
            fds.insert(number, link.display().to_string());
        }
    }
    fds
}

/// Those that are in one list and not, or not the same, in the other.
pub(crate) fn minus(
    these: &BTreeMap<RawFd, String>,
    those: &BTreeMap<RawFd, String>,
) -> Vec<String> {
    let differs = |(number, link): &(&RawFd, &String)| those.get(number) != Some(link);
    let rest = these.iter().filter(differs);
    rest.map(|(number, link)| format!("{number} {link}"))
        .collect()
}
