//! Runs tests in processes, as a test runner does: `test_runner [COUNT]`. Some pass, some fail, and some panic, abort,
//! overflow their stack, exit or hang; each costs itself only, and the rest goes on.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use wormhole::process::Failure;
use wormhole::{ChildEnd, JobError, PoolOptions};

/// What is tested: the tests have numbers instead of names.
fn run_test(number: u32) -> Result<(), String> {
    match number % 100 {
        13 => Err(format!("{number} is unlucky")),
        27 => panic!("test {number} panics"),
        41 => std::process::abort(),
        55 => Err(overflow(number.into()).to_string()),
        69 => std::process::exit(0),
        83 if number < 300 => loop {
            std::thread::park(); // until the deadline
        },
        _ => Ok(()),
    }
}

#[allow(unconditional_recursion, reason = "this is what it shows")]
fn overflow(depth: u64) -> u64 {
    black_box(overflow(black_box(depth + 1))) + 1
}

/// Quiet: what the runner says is enough.
fn start((): &()) -> Result<(), Failure> {
    std::panic::set_hook(Box::new(|_| {}));
    Ok(())
}

fn main() -> Result<(), Failure> {
    wormhole::process::init();
    let count = std::env::args()
        .nth(1)
        .unwrap_or("1000".to_owned())
        .parse::<u32>()?;
    // A stack overflow says so on standard error, which is of no interest here.
    let mut quiet = wormhole::process::Builder::new();
    quiet
        .only_arguments(true)
        .stderr(std::fs::File::options().write(true).open("/dev/null")?);
    let options = PoolOptions::new(4)
        .deadline(Duration::from_millis(500))
        .builder(quiet);
    let mut pool = options.start((), start, |(), number| run_test(number))?;

    let mut totals = BTreeMap::<&str, u32>::new();
    for (number, result) in pool.map(0..count) {
        let (kind, reason) = match result {
            Ok(Ok(())) => ("passed", None),
            Ok(Err(reason)) => ("failed", Some(reason)),
            Err(JobError::Panicked { message, .. }) => ("panicked", Some(message)),
            Err(JobError::TimedOut) => ("timed out", Some("it hangs".to_owned())),
            Err(JobError::Died { end, .. }) => match end {
                ChildEnd::Exited { .. } => ("exited", Some(end.to_string())),
                _ => ("crashed", Some(end.to_string())),
            },
            Err(error) => return Err(error.into()),
        };
        *totals.entry(kind).or_default() += 1;
        if let Some(reason) = reason {
            println!("test {number} {kind}: {reason}");
        }
    }
    for (kind, count) in totals {
        println!("{count} {kind}");
    }
    Ok(())
}
