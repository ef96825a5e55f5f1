//! The program itself: a short run finds nothing, and each kind of bug that is put in on purpose is found.

use std::process::Command;

#[allow(unreachable_pub, reason = "several programs include it")]
#[path = "../../tests/support/server.rs"]
mod server;

#[path = "../../../chaos/tests/support/mod.rs"]
mod support;

/// Runs the program, and gives its exit status and what it printed; nothing without a server.
fn chaos(arguments: &[&str]) -> Option<(Option<i32>, String)> {
    server::newest()?;
    let mut program = Command::new(env!("CARGO_BIN_EXE_wormhole-nats-chaos"));
    program.args(arguments);
    Some(support::run(program))
}

#[test]
fn a_short_run_finds_nothing() {
    let Some((status, text)) = chaos(&["--minutes", "0.1", "--jobs", "600", "--seed", "4"]) else {
        return;
    };
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("every job has a result"), "{text}");
}

#[test]
fn nothing_comes_twice_when_nothing_happens() {
    let Some((status, text)) = chaos(&["--minutes", "0.03", "--jobs", "500", "--calm"]) else {
        return;
    };
    assert_eq!(status, Some(0), "{text}");
    assert!(!text.contains("a second one"), "{text}");
}

/// Runs with the sabotage, and checks that it is called what it is.
fn is_found(kind: &str, finding: &str) {
    let arguments = [
        "--minutes",
        "0.1",
        "--jobs",
        "900",
        "--seed",
        "5",
        "--deadline",
        "10",
    ];
    let Some((status, text)) = chaos(&[&arguments[..], &["--sabotage", kind]].concat()) else {
        return;
    };
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains(finding), "{text}");
}

macro_rules! found {
    ($($name:ident: $kind:literal, $finding:literal;)*) => {
        $(
            #[test]
            fn $name() {
                is_found($kind, $finding);
            }
        )*
    };
}

found! {
    a_job_that_is_acknowledged_before_its_result_is_stored_is_found: "early", "have no result";
    a_job_that_is_acknowledged_and_forgotten_is_found: "forget", "have no result";
    a_result_of_no_job_is_found: "invent", "which nobody has sent";
    a_job_that_is_done_twice_for_no_reason_is_found: "again", "no fault explains it";
    a_wrong_result_is_found: "tear", "not the result that it should have";
}
