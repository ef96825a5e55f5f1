//! What a run prints.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use crate::ledger::{Ledger, Sent};

/// Prints the account, and says whether it is in order.
pub(crate) fn report(seed: u64, length: Duration, ledger: &mut Ledger) -> ExitCode {
    let duplicates = ledger.duplicates();
    let (jobs, results) = ledger.results();
    println!("seed {seed}, {} s", length.as_secs());
    let row = |name: &str, count: u64| println!("{name:58} {count:>9}");
    row("jobs sent", ledger.count(Sent::Ok) as u64);
    row(
        "jobs whose sender gave up",
        ledger.count(Sent::Perhaps) as u64,
    );
    row(
        "sends that took too long, and were tried again",
        ledger.send_timeouts,
    );
    row("jobs with a result", jobs as u64);
    row("results", results as u64);
    for (why, count) in duplicates {
        row(&format!("of these, a second one: {why}"), count);
    }
    row("done, and kept by a server that was killed", ledger.kept);
    let mut faults = BTreeMap::new();
    for fault in &ledger.faults {
        *faults.entry(fault.what).or_insert(0) += 1;
    }
    for (what, count) in faults {
        row(&format!("{what}"), count);
    }
    if ledger.violations.is_empty() {
        println!("every job has a result, and every duplicate a reason");
        return ExitCode::SUCCESS;
    }
    for violation in ledger.violations.iter().take(20) {
        println!("WRONG: {violation}");
    }
    println!(
        "{} findings; to see it again, perhaps: --seed {seed}",
        ledger.violations.len()
    );
    ExitCode::FAILURE
}
