//! The examples that are about processes, run as their users run them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{DEADLINE, ends_within, example, output_within};

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

#[test]
fn test_runner_outlives_all_its_tests() {
    let printed = printed_by("test_runner", &[]);
    let totals: Vec<_> = printed.lines().rev().take(6).collect();
    assert_eq!(
        totals,
        [
            "3 timed out",
            "947 passed",
            "10 panicked",
            "10 failed",
            "10 exited",
            "20 crashed"
        ]
    );
    for line in [
        "test 13 failed: 13 is unlucky",
        "test 127 panicked: test 127 panics",
        "test 241 crashed: child process was killed by signal 6 (SIGABRT)",
        "test 283 timed out: it hangs",
        "test 969 exited: child process exited with status 0",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}");
    }
}

/// A connection to the server, on which a request was sent.
fn request(address: &str, path: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(client, "GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
    client
}

fn response(mut client: TcpStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap_or_default(); // reset: its worker crashed
    text
}

#[test]
fn prefork_loses_the_connection_of_a_worker_that_crashes_and_no_other() {
    let mut command = Command::new(example("prefork"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut server = command.spawn().unwrap();
    let mut stdout: BufReader<ChildStdout> = BufReader::new(server.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let address = line
        .trim()
        .strip_prefix("listening on ")
        .unwrap()
        .to_owned();

    // One that has connected before anything else and says nothing yet.
    let mut early = TcpStream::connect(&address).unwrap();
    let is_good = |text: &str| text.starts_with("HTTP/1.1 200 OK") && text.contains("worker ");
    for _ in 0..20 {
        let crashing = request(&address, "/crash");
        let good: Vec<_> = (0..2).map(|_| request(&address, "/")).collect();
        for client in good {
            let text = response(client);
            assert!(is_good(&text), "{text}");
        }
        assert_eq!(response(crashing), "");
    }
    write!(early, "GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(is_good(&response(early)));
    assert!(response(request(&address, "/missing")).starts_with("HTTP/1.1 404"));

    // What was accepted when it is told to end is answered.
    let mut last = TcpStream::connect(&address).unwrap();
    assert!(is_good(&response(request(&address, "/")))); // so `last` was accepted as well
    let pid = Pid::from_raw(i32::try_from(server.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    write!(last, "GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(is_good(&response(last)));
    let ended = ends_within(DEADLINE, pid);
    if !ended {
        server.kill().unwrap();
    }
    assert!(server.wait().unwrap().success() && ended);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "done\n");
    let mut errors = String::new();
    server
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    assert_eq!(errors.matches("(SIGABRT)").count(), 20, "{errors}");
}

#[cfg(feature = "tokio")]
#[test]
fn service_answers_under_load() {
    let printed = printed_by("service", &["8", "25"]);
    let (first, times) = printed.split_once('\n').unwrap();
    assert_eq!(first, "200 requests, all answered");
    assert_eq!(times.lines().count(), 4, "{printed}");
    // Nobody asks: the workers end all the same.
    assert_eq!(printed_by("service", &["0"]), "0 requests, all answered\n");
}
