//! Running this test's own program under strace.

use std::collections::BTreeMap;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::unistd::getppid;

use super::work;
use crate::support::output_within;

/// Names the workload that this process is.
pub(crate) const WORKLOAD: &str = "TEST_FAULTS_WORKLOAD";

/// Says which call fails.
pub(crate) const FAULT: &str = "TEST_FAULTS_FAULT";

/// What a workload prints before its outcome.
const OUTCOME: &str = "outcome: ";

/// Far more than a workload needs: only a hang gets there.
const DEADLINE: Duration = Duration::from_secs(60);

/// A workload begins before `main`: there the program has one thread, so it may spawn, and has made the same
/// system calls in each run, so that they can be counted.
// SAFETY: the C library calls what stands in this section, with arguments that it need not take.
#[allow(unsafe_code, reason = "no safe way to run before `main`")]
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    let Ok(name) = std::env::var(WORKLOAD) else {
        return;
    };
    // A copy that a workload has started is not to run the workload.
    wormhole::process::init();
    let code = match catch_unwind(|| work::run(&name)) {
        Ok(outcome) => {
            println!("{OUTCOME}{outcome}");
            0
        }
        Err(_) => 101,
    };
    std::process::exit(code);
}

/// Runs the part of a workload that is to fail. strace sees where it begins and ends.
pub(crate) fn marked<R>(operation: impl FnOnce() -> R) -> R {
    getppid();
    let result = operation();
    getppid();
    result
}

/// Whether strace is there and may trace. With `CI` set it must be.
pub(crate) fn is_there() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "true"]);
        let problem = match strace.output() {
            Ok(output) if output.status.success() => return true,
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        assert!(std::env::var_os("CI").is_none(), "strace: {problem}");
        eprintln!("skipped: strace cannot be run (apt-get install strace): {problem}");
        false
    })
}

/// One system call of an operation.
#[derive(Debug)]
pub(crate) struct Call {
    /// As strace names it.
    pub(crate) name: String,
    /// With what it asks for, if it does many things.
    pub(crate) label: String,
    /// Its number among the calls of that name, from the start of the process.
    pub(crate) nth: usize,
}

/// What a workload gives to which nothing happens, and the calls of its operation, or of the child that it
/// spawns if it marks none.
pub(crate) fn record(workload: &str) -> (String, Vec<Call>) {
    let directory = tempfile::tempdir().unwrap();
    let outcome = run(workload, "", &["-ff"], &directory.path().join("trace"));
    // A file for each process, of which the first begins with execve.
    let mut traces: Vec<String> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    traces.sort_by_key(|trace| !trace.starts_with("execve("));
    let trace = match traces.iter().find(|trace| trace.contains("\ngetppid()")) {
        Some(trace) => trace,
        None => traces.get(1).expect("a child"),
    };
    let mut is_marked = !trace.contains("\ngetppid()");
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((name, arguments)) = line.split_once('(') else {
            continue;
        };
        if name == "getppid" {
            is_marked = !is_marked;
            continue;
        }
        let count = counts.entry(name).or_default();
        *count += 1;
        let label = match name {
            // "3, F_GETFD) = 0"
            "fcntl" => arguments
                .split([' ', ',', ')'])
                .find(|word| word.starts_with("F_"))
                .unwrap_or(name),
            // Not every machine has the calls of the first days.
            "openat" => "open",
            "unlinkat" => "unlink",
            "clone3" | "fork" | "vfork" => "clone",
            "mmap" if arguments.contains("MAP_ANONYMOUS") => "MAP_ANONYMOUS",
            _ => name,
        };
        if is_marked {
            calls.push(Call {
                name: name.to_owned(),
                label: label.to_owned(),
                nth: *count,
            });
        }
    }
    (outcome, calls)
}

/// Runs a workload whose `nth` call of that name, counted from the start of the process, fails. Gives the
/// outcome, or `None` if there was no such call.
pub(crate) fn inject(workload: &str, call: &str, errno: &str, nth: usize) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let options = [
        "-f",
        "--seccomp-bpf",
        "-e",
        &format!("trace={call}"),
        "-e",
        &format!("inject={call}:error={errno}:when={nth}"),
    ];
    let fault = format!("{call} {errno} {nth}");
    let outcome = run(workload, &fault, &options, &trace);
    let trace = fs::read_to_string(trace).unwrap();
    trace.contains("(INJECTED)").then_some(outcome)
}

fn run(workload: &str, fault: &str, options: &[&str], trace: &Path) -> String {
    let mut strace = Command::new("strace");
    strace
        .args(options)
        .args(["-qq", "-e", "signal=none", "-o"])
        .arg(trace)
        .arg(std::env::current_exe().unwrap())
        .env(WORKLOAD, workload)
        .env(FAULT, fault)
        .env("RUST_BACKTRACE", "0") // it takes a second
        .stdin(Stdio::null());
    let described = format!("{WORKLOAD}={workload} {FAULT}='{fault}' {strace:?}");
    let output = output_within(DEADLINE, strace);
    let text = String::from_utf8_lossy(&output.stdout);
    let outcome = text.lines().find_map(|line| line.strip_prefix(OUTCOME));
    match outcome {
        Some(outcome) if output.status.success() => outcome.to_owned(),
        _ => panic!(
            "{described}: {}\n{text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}
