//! What was sent, what came of it, what happened meanwhile, and whether that goes together.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::faults::{ACK_WAIT, What};
use crate::job::{Done, Job, now};

/// For so long, in nanoseconds, a bridge may have a job before a worker begins it.
const IN_HAND: u64 = ACK_WAIT.as_secs() * 1_000_000_000;

/// What is known of a job that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is being sent, or was when its sender gave up.
    Perhaps,
    /// The server has it.
    Ok,
}

#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) what: What,
    pub(crate) pid: u32,
    pub(crate) begin: u64,
    pub(crate) end: u64,
}

/// A result, and when it came.
#[derive(Clone, Debug)]
struct Came {
    done: Done,
    at: u64,
}

/// Why a job has a second result, or a result came a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// The one who gathers gave the result back, or its acknowledgement did not arrive.
    GivenBack,
    /// The server was killed after it had the result, and forgot its id, or that it was acknowledged.
    Forgot,
    /// The worker was killed when its result was stored, and before its bridge had acknowledged the job.
    Worker,
    /// The bridge was killed in that moment.
    Bridge,
    /// The bridge was stopped for so long that the server gave its job to another one.
    Stopped,
    /// The server was killed, or stopped, and the acknowledgement did not arrive.
    Server,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::GivenBack => "given back, or not confirmed in time",
            Why::Forgot => "the server was killed, and forgot it",
            Why::Worker => "the worker was killed",
            Why::Bridge => "the bridge was killed",
            Why::Stopped => "the bridge was stopped",
            Why::Server => "the server was away",
        })
    }
}

/// The account of a run.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    seed: u64,
    sent: Vec<Sent>,
    results: HashMap<u64, Vec<Came>>,
    /// Results that were not acknowledged: job, and when it was begun.
    given_back: HashMap<(u64, u64), usize>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) violations: Vec<String>,
    pub(crate) send_timeouts: u64,
    /// What the server keeps although it is acknowledged: a server that is killed may forget what it has removed.
    pub(crate) kept: u64,
}

impl Ledger {
    pub(crate) fn new(seed: u64) -> Ledger {
        Ledger {
            seed,
            ..Ledger::default()
        }
    }

    /// The number of the next job.
    pub(crate) fn next(&self) -> u64 {
        self.sent.len() as u64
    }

    /// The next job is about to be sent.
    pub(crate) fn begin(&mut self) -> Job {
        let number = self.next();
        self.sent.push(Sent::Perhaps);
        Job::new(self.seed, number)
    }

    pub(crate) fn sent(&mut self, job: u64) {
        if let Some(sent) = usize::try_from(job)
            .ok()
            .and_then(|job| self.sent.get_mut(job))
        {
            *sent = Sent::Ok;
        }
    }

    /// The server that was killed has been started again.
    pub(crate) fn server_is_back(&mut self) {
        let mut faults = self.faults.iter_mut().rev();
        if let Some(kill) = faults.find(|fault| fault.what == What::KillServer) {
            kill.end = now();
        }
    }

    /// Whether the server was killed at some time.
    pub(crate) fn was_killed(&self) -> bool {
        self.faults
            .iter()
            .any(|fault| fault.what == What::KillServer)
    }

    /// A result has come.
    pub(crate) fn result(&mut self, done: &Done, at: u64) {
        if done.job >= self.sent.len() as u64 {
            self.violations.push(format!(
                "a result of job {}, which nobody has sent",
                done.job
            ));
            return;
        }
        if Job::new(self.seed, done.job).sum() != done.sum {
            self.violations.push(format!(
                "job {} has not the result that it should have",
                done.job
            ));
        }
        let done = done.clone();
        let results = self.results.entry(done.job).or_default();
        results.push(Came { done, at });
    }

    /// A result that has come is still the server's, or may be.
    pub(crate) fn gave_back(&mut self, done: &Done) {
        *self.given_back.entry((done.job, done.begun)).or_default() += 1;
    }

    /// The jobs that the server has taken, and that have no result.
    pub(crate) fn missing(&self) -> Vec<u64> {
        let jobs = (0..).zip(&self.sent);
        let missing =
            jobs.filter(|(job, sent)| **sent == Sent::Ok && !self.results.contains_key(job));
        missing.map(|(job, _)| job).collect()
    }

    pub(crate) fn count(&self, sent: Sent) -> usize {
        self.sent.iter().filter(|&&one| one == sent).count()
    }

    /// Jobs with a result, and results.
    pub(crate) fn results(&self) -> (usize, usize) {
        (
            self.results.len(),
            self.results.values().map(Vec::len).sum(),
        )
    }

    /// Explains each result that is one too many.
    pub(crate) fn duplicates(&mut self) -> BTreeMap<Why, u64> {
        let mut counts = BTreeMap::new();
        for (job, results) in &self.results {
            for (index, came) in results.iter().enumerate().skip(1) {
                match self.why(&results[..index], came) {
                    Some(why) => *counts.entry(why).or_default() += 1,
                    None => {
                        let all = results.iter().map(|came| came.done.begun);
                        let begin = all.min().unwrap_or_default().saturating_sub(IN_HAND);
                        let faults = self.faults.iter();
                        let faults =
                            faults.filter(|fault| fault.end >= begin && fault.begin <= came.at);
                        self.violations.push(format!(
                            "job {job} has a result too many, and no fault explains it: {results:?}, {:?}",
                            faults.collect::<Vec<_>>()
                        ));
                    }
                }
            }
        }
        counts
    }

    fn why(&self, earlier: &[Came], came: &Came) -> Option<Why> {
        let all = || earlier.iter().chain([came]).map(|came| &came.done);
        let again = earlier
            .iter()
            .filter(|one| one.done.begun == came.done.begun);
        let again = again.count();
        if again > 0 {
            let given_back = self.given_back.get(&(came.done.job, came.done.begun));
            if given_back.is_some_and(|times| *times >= again) {
                return Some(Why::GivenBack);
            }
            let mut kills = self
                .faults
                .iter()
                .filter(|fault| fault.what == What::KillServer);
            let forgot = kills.any(|kill| (came.done.begun..came.at).contains(&kill.begin));
            return forgot.then_some(Why::Forgot);
        }
        // Of two doings of a job, the first was not acknowledged before the second began: something had happened.
        let first = all().min_by_key(|done| done.begun)?;
        let last = all().max_by_key(|done| done.begun)?;
        // Its bridge may have had it for a while, until a worker was there.
        let since = first.begun.saturating_sub(IN_HAND);
        let meanwhile = self.faults.iter();
        let meanwhile = meanwhile.filter(|fault| fault.end >= since && fault.begin <= last.begun);
        let reasons = meanwhile.filter_map(|fault| match fault.what {
            What::KillWorker if fault.pid == first.worker => Some(Why::Worker),
            What::KillBridge if fault.pid == first.bridge => Some(Why::Bridge),
            // The one that was stopped goes on with what it had, which another one may have done meanwhile.
            What::StopBridge
                if is_long(fault) && [first, last].iter().any(|done| fault.pid == done.bridge) =>
            {
                Some(Why::Stopped)
            }
            What::KillServer | What::StopServer => Some(Why::Server),
            _ => None,
        });
        reasons.min()
    }
}

/// The bridge says every now and then that it is still there, so a stop counts from the last time.
fn is_long(fault: &Fault) -> bool {
    u128::from(fault.end - fault.begin) > ACK_WAIT.as_nanos() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(ledger: &Ledger, job: u64, begun: u64) -> Done {
        Done {
            job,
            sum: Job::new(ledger.seed, job).sum(),
            worker: 10,
            bridge: 1,
            begun,
        }
    }

    #[test]
    fn a_job_without_a_result_is_missing_only_if_it_was_sent() {
        let mut ledger = Ledger::new(1);
        for _ in 0..3 {
            ledger.begin();
        }
        ledger.sent(0);
        ledger.sent(2);
        let result = done(&ledger, 0, 5);
        ledger.result(&result, 300);
        assert_eq!(ledger.missing(), [2]);
        assert_eq!(ledger.results(), (1, 1));
    }

    #[test]
    fn what_was_not_sent_and_what_is_torn_is_noticed() {
        let mut ledger = Ledger::new(1);
        ledger.begin();
        let mut result = done(&ledger, 1, 5);
        ledger.result(&result, 300);
        assert!(ledger.violations[0].contains("nobody has sent"));
        result.job = 0;
        ledger.result(&result, 300);
        assert!(ledger.violations[1].contains("not the result"));
    }

    #[test]
    fn a_duplicate_needs_a_fault_of_its_own_bridge_or_worker_in_time() {
        let mut ledger = Ledger::new(1);
        ledger.begin();
        let results = [done(&ledger, 0, 100), done(&ledger, 0, 200)];
        results.iter().for_each(|result| ledger.result(result, 300));
        let mut why = |what, pid, begin| {
            ledger.faults = vec![Fault {
                what,
                pid,
                begin,
                end: begin,
            }];
            ledger.duplicates().into_keys().next()
        };
        assert_eq!(why(What::KillBridge, 1, 150), Some(Why::Bridge));
        assert_eq!(why(What::KillWorker, 10, 150), Some(Why::Worker));
        assert_eq!(why(What::KillServer, 0, 150), Some(Why::Server));
        assert_eq!(why(What::KillBridge, 2, 150), None);
        assert_eq!(why(What::KillBridge, 1, 250), None);
        assert_eq!(why(What::StopBridge, 1, 150), None); // for no time
        assert_eq!(why(What::StopWorker, 10, 150), None);
        assert_eq!(ledger.violations.len(), 4);
    }

    #[test]
    fn the_same_result_comes_again_only_if_it_was_given_back() {
        let mut ledger = Ledger::new(1);
        ledger.begin();
        let result = done(&ledger, 0, 100);
        ledger.result(&result, 300);
        ledger.result(&result, 300);
        assert!(ledger.duplicates().is_empty());
        assert_eq!(ledger.violations.len(), 1);
        ledger.faults = vec![Fault {
            what: What::KillServer,
            pid: 0,
            begin: 150,
            end: 150,
        }];
        assert_eq!(ledger.duplicates().get(&Why::Forgot), Some(&1));
        ledger.gave_back(&result);
        assert_eq!(ledger.duplicates().get(&Why::GivenBack), Some(&1));
    }
}
