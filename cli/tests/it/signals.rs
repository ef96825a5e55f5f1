//! Signals that end the program.

use std::process::Command;

use nix::sys::signal::Signal;
use wormhole::Error;

use crate::support::{PROGRAM, Place, bash, ctl, eventually, raw, run, sender, start};

#[test]
fn a_signal_removes_the_socket_file() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        for command in [
            &["listen"][..],
            &["tap", "/nonexistent"],
            &["run", "--receiver"],
        ] {
            let place = Place::new();
            let mut arguments: Vec<_> = command.iter().map(|word| (*word).to_owned()).collect();
            arguments.push(place.at("a"));
            if command[0] == "run" {
                arguments.extend(["--".to_owned(), "true".to_owned()]);
            }
            let running = start(ctl(&arguments));
            // Not by a client: `run` would go on.
            eventually("a socket file", || place.join("a").exists());
            eventually("a thread for signals", || {
                let tasks = format!("/proc/{}/task", running.pid());
                std::fs::read_dir(tasks).unwrap().count() > 1
            });
            running.signal(signal);
            let ended = running.end();
            assert_eq!(
                (ended.code(), &*ended.err),
                (128 + signal as i32, ""),
                "{command:?}"
            );
            assert!(!place.join("a").exists(), "{command:?}");
        }
    }
}

#[test]
fn what_was_to_be_ignored_is_ignored() {
    let place = Place::new();
    let mut command = Command::new("bash");
    let script = "trap '' HUP INT; exec \"$0\" \"$@\"";
    command.args(["-c", script, PROGRAM, "listen", &place.at("a")]);
    let running = start(command);
    let tx = sender(place.join("a"));
    running.signal(Signal::SIGHUP);
    running.signal(Signal::SIGINT);
    tx.send(raw("1")).unwrap();
    assert_eq!(running.line(), "1\n");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().code(), 143);
}

#[test]
fn the_commands_of_exec_have_signals_as_usual() {
    let place = Place::new();
    let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status";
    let running = start(ctl(["listen", &place.at("a"), "--once", "--exec", script]));
    sender(place.join("a")).send(raw("1")).unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    let as_usual = run(command, b"").done();
    assert_eq!(
        standard_signals(&running.end().done()),
        standard_signals(&as_usual)
    );
}

#[test]
fn a_program_that_waited_for_a_client_has_signals_as_usual() {
    let place = Place::new();
    let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status";
    let program = ["--", "/bin/sh", "-c", script];
    let mut command = ctl(["run", "--receiver", &place.at("a")]);
    command.args(program);
    let running = start(command);
    let _tx = sender(place.join("a"));
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    let as_usual = run(command, b"").done();
    assert_eq!(
        standard_signals(&running.end().done()),
        standard_signals(&as_usual)
    );
}

/// The sets without signals 32 and up, with which the C library does as it likes.
fn standard_signals(sets: &str) -> Vec<u64> {
    let bits = sets.lines().map(|line| line.split_once(":\t").unwrap().1);
    let bits = bits.map(|bits| u64::from_str_radix(bits, 16).unwrap() & 0x7fff_ffff);
    bits.collect()
}

#[test]
fn nothing_received_is_lost_at_the_end() {
    let place = Place::new();
    let running = start(ctl(["listen", &place.at("a")]));
    let tx = sender(place.join("a"));
    let counting = std::thread::spawn(move || {
        let mut number = 0_u64;
        while tx.send(raw(&number.to_string())).is_ok() {
            number += 1;
        }
        assert!(matches!(tx.send(raw("0")), Err(Error::Disconnected)));
    });
    assert_eq!(running.line(), "0\n");
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!((ended.code(), &*ended.err), (143, ""));
    assert!(ended.out.is_empty() || ended.out.ends_with('\n'));
    for (number, line) in (1..).zip(ended.out.lines()) {
        assert_eq!(line, format!("{number}"));
    }
    counting.join().unwrap();
}

#[test]
fn a_reader_that_does_not_read_does_not_keep_it() {
    let place = Place::new();
    let script = "
        wormholectl listen ./a | { read -r line; echo $line; exec sleep 1000; } &
        wait
    ";
    let running = start(bash(script, place.path()));
    let tx = sender(place.join("a"));
    tx.send(raw("1")).unwrap();
    assert_eq!(running.line(), "1\n");
    // More than the pipe and the channel hold: it is blocked in a write now, or soon.
    let long = format!("\"{}\"", "x".repeat(100_000));
    while tx
        .send_timeout(raw(&long), std::time::Duration::from_millis(300))
        .is_ok()
    {}
    let listen = nix::unistd::Pid::from_raw(
        pid_of(running.pid().as_raw()).expect("the process that listens"),
    );
    nix::sys::signal::kill(listen, Signal::SIGTERM).unwrap();
    eventually("the file is removed", || !place.join("a").exists());
    eventually("the channel is closed", || tx.is_disconnected());
}

/// The wormholectl process of a group.
fn pid_of(group: i32) -> Option<i32> {
    for entry in std::fs::read_dir("/proc").unwrap() {
        let pid: Option<i32> = entry
            .unwrap()
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = pid else { continue };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // "pid (name) state parent group ..."
        let Some((head, rest)) = stat.rsplit_once(") ") else {
            continue;
        };
        let is_in = rest.split(' ').nth(2) == Some(&group.to_string());
        if is_in && head.ends_with("(wormholectl") {
            return Some(pid);
        }
    }
    None
}
