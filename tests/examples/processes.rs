//! The examples that are about processes, run as their users run them.

use std::process::{Command, Stdio};

use crate::support::{DEADLINE, example, output_within};

/// Runs an example to its end.
fn printed_by(name: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(example(name));
    command.args(arguments).stdin(Stdio::null());
    let output = output_within(DEADLINE, command);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn sieve_prints_primes_and_unwinds_by_itself() {
    let is_prime = |&n: &u32| (2..n).all(|divisor| n % divisor != 0);
    let primes = |count| (2..).filter(is_prime).take(count).map(|n| format!("{n}\n"));
    assert_eq!(printed_by("sieve", &[]), primes(25).collect::<String>());
    for count in [0, 1, 60] {
        let printed = printed_by("sieve", &[&count.to_string()]);
        assert_eq!(printed, primes(count).collect::<String>());
    }
}

#[test]
fn plugin_survives_the_crash_of_its_plugin() {
    assert_eq!(
        printed_by("plugin", &[]),
        "parse this: 2 words\n\
         crash on this: the plugin ended with exit status: 1\n\
         and parse this: 3 words\n\
         the last plugin ended with exit status: 0\n"
    );
}

#[test]
fn privsep_reads_what_its_parent_opens_and_opens_nothing() {
    let license = include_str!("../../LICENSE-MIT").lines().count();
    assert_eq!(
        printed_by("privsep", &[]),
        format!(
            "\"lines LICENSE-MIT\": {license} lines\n\
             \"lines /etc/passwd\": refused: not on the list\n\
             \"open /etc/passwd\": refused: {}\n\
             \"lines ../../..\": refused: not on the list\n\
             \"\\u{{7f}}ELF\": refused: what?\n",
            crate::support::os_error(nix::Error::EPERM)
        )
    );
}
