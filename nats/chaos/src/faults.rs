//! What happens to whom, and when.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::job::now;
use crate::ledger::{Fault, Ledger};
use crate::process::Process;
use crate::random::Random;

/// How long a job is with a bridge that says nothing of it, before it goes to another one.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    KillWorker,
    StopWorker,
    KillBridge,
    StopBridge,
    KillServer,
    StopServer,
    /// Not inflicted: three workers in a row were killed before they had started, so their bridge has ended.
    GiveUp,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::KillWorker => "workers killed",
            What::StopWorker => "workers stopped",
            What::KillBridge => "bridges killed",
            What::StopBridge => "bridges stopped",
            What::KillServer => "servers killed",
            What::StopServer => "servers stopped",
            What::GiveUp => "bridges that gave up their pool",
        })
    }
}

/// A process that may be signalled at the moment.
pub(crate) type Target = RefCell<Option<Process>>;

/// Who there is to be hit.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    pub(crate) server: Target,
    pub(crate) bridges: [Target; crate::driver::BRIDGES],
    /// Told when it is to be started again.
    pub(crate) server_killed: Notify,
    /// The bridges are told to end.
    pub(crate) ending: Cell<bool>,
}

/// Hits somebody again and again.
pub(crate) async fn inflict(seed: u64, targets: &Targets, ledger: &RefCell<Ledger>) {
    let mut random = Random::of(&[seed, 1]);
    loop {
        sleep(Duration::from_millis(random.between(20, 250))).await;
        let what = match random.below(1000) {
            0..400 => What::KillWorker,
            400..600 => What::StopWorker,
            600..750 => What::KillBridge,
            750..850 => What::StopBridge,
            850..920 => What::KillServer,
            _ => What::StopServer,
        };
        let bridge = random.index(targets.bridges.len());
        let worker = random.index(8);
        // One stop of a bridge in five is longer than the server waits for it.
        let stopped = match (what, random.below(5)) {
            (What::StopBridge, 0) => ACK_WAIT.mul_f64(1.5),
            _ => Duration::from_millis(random.between(10, 600)),
        };
        let hit = |process: &Process| hit(process, what, stopped, ledger);
        let goes_on = match what {
            What::GiveUp => None,
            What::KillServer | What::StopServer => {
                let server = targets.server.borrow();
                let goes_on = server.as_ref().and_then(hit);
                if what == What::KillServer && server.is_some() {
                    targets.server_killed.notify_one();
                }
                goes_on
            }
            What::KillBridge | What::StopBridge => {
                let bridge = targets.bridges[bridge].borrow();
                bridge.as_ref().and_then(hit)
            }
            What::KillWorker | What::StopWorker => {
                let bridge = targets.bridges[bridge].borrow();
                let workers = bridge.as_ref().map(Process::children);
                let workers = workers.unwrap_or_default();
                let worker = workers.get(worker % workers.len().max(1));
                worker.and_then(hit)
            }
        };
        if let Some((process, stopped)) = goes_on {
            tokio::task::spawn_local(async move {
                sleep(stopped).await;
                process.signal(Signal::CONT);
            });
        }
    }
}

/// Signals a process, and notes that. What was stopped is to go on after some time.
fn hit(
    process: &Process,
    what: What,
    stopped: Duration,
    ledger: &RefCell<Ledger>,
) -> Option<(Process, Duration)> {
    let is_stop = matches!(what, What::StopWorker | What::StopBridge | What::StopServer);
    let signal = if is_stop { Signal::STOP } else { Signal::KILL };
    let begin = now();
    if !process.signal(signal) {
        return None;
    }
    ledger.borrow_mut().faults.push(Fault {
        what,
        pid: process.pid,
        begin,
        end: match what {
            What::KillServer => u64::MAX, // until it is back
            _ if is_stop => begin + u64::try_from(stopped.as_nanos()).unwrap_or(0),
            _ => begin,
        },
    });
    let process = is_stop.then(|| process.try_clone().ok()).flatten();
    process.map(|process| (process, stopped))
}
