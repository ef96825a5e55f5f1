//! The program itself: a short run finds nothing, and each kind of bug that is put in on purpose is found.

mod support;

use std::process::{Command, Stdio};

/// Runs the program, and gives its exit status and what it printed.
fn chaos(arguments: &[&str]) -> (Option<i32>, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_wormhole-chaos"));
    program.args(arguments).stderr(Stdio::null());
    support::run(program)
}

#[test]
fn a_short_run_finds_nothing() {
    let (status, text) = chaos(&["--minutes", "0.06", "--seed", "4", "--epoch-millis", "1000"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("nothing lost"), "{text}");
    let received = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("messages received"));
    let digits = received.unwrap().trim().replace(',', "");
    assert!(digits.parse::<u64>().unwrap() > 100, "{text}");
}

#[test]
fn one_epoch_can_be_run_again() {
    let arguments = ["--seed", "4", "--epoch", "7", "--epoch-millis", "300"];
    let (status, text) = chaos(&arguments);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.starts_with("seed 4, 1 epochs in "), "{text}");
}

/// Runs until the sabotage is noticed, and checks that it is called what it is.
fn is_found(kind: &str, finding: &str) {
    let (status, text) = chaos(&[
        "--minutes",
        "4",
        "--seed",
        "5",
        "--epoch-millis",
        "300",
        "--deadline",
        "15",
        "--sabotage",
        kind,
    ]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains(finding), "{text}");
    assert!(
        text.contains("to see it again: --seed 5 --epoch "),
        "{text}"
    );
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
    a_message_that_is_dropped_is_found: "drop", "no explanation";
    a_message_that_is_sent_twice_is_found: "twice", "received twice";
    a_message_that_is_sent_although_its_send_failed_is_found: "ghost", "although its send failed";
    a_torn_message_is_found: "tear", "its checksum is wrong";
    messages_out_of_order_are_found: "reorder", "out of order";
    descriptors_out_of_order_are_found: "swap-fds", "descriptor 0 is";
    a_false_end_is_found: "false-end", "all receivers are gone, but the supervisor has one";
    a_message_that_a_relay_forgets_is_found: "forget", "neither used them up nor passed them on";
    a_reply_that_is_dropped_is_found: "short-reply", "received until the end";
    a_descriptor_that_is_left_open_is_found: "leak-fd", "left open: [";
    a_child_that_nobody_reaps_is_found: "zombie", "children were left that nobody reaped";
    a_stray_copy_of_an_end_is_found: "stray", "not finished after";
    a_hang_is_found: "hang", "not finished after";
    memory_that_grows_is_found: "leak-memory", "memory has grown";
    a_panic_is_found: "panic", "panicked";
}
