//! Under a terminal: what isatty says decides nothing.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Command;
use std::thread;

use nix::pty::openpty;
use wormhole::{Listener, Raw};

use crate::support::{
    DEADLINE, PROGRAM, Place, ctl, eventually, raw, run, sender, start, with_path,
};

/// Runs a command line under a terminal of its own.
fn in_terminal(place: &Place, line: &str) -> Command {
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", line, "/dev/null"]);
    command.current_dir(place.path());
    with_path(&mut command);
    command
}

#[test]
fn lines_appear_in_a_terminal_at_once() {
    let place = Place::new();
    let running = start(in_terminal(&place, "wormholectl listen ./a --count 2"));
    let tx = sender(place.join("a"));
    tx.send(raw("[1]")).unwrap();
    assert_eq!(running.line(), "[1]\r\n");
    tx.send(raw("2")).unwrap();
    assert_eq!(running.end().done(), "2\r\n");
}

#[test]
fn lines_that_are_typed_are_sent() {
    let place = Place::new();
    let listener = Listener::<Raw>::bind(place.join("a")).unwrap();
    let pty = openpty(None, None).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["send", &place.at("a")]);
    let (slave, mut master) = (File::from(pty.slave), File::from(pty.master));
    let mut child = command
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave)
        .spawn()
        .unwrap();
    drop(command);
    let (rx, _) = listener.accept_timeout(DEADLINE).unwrap();
    master.write_all(b"1\n").unwrap();
    assert_eq!(rx.recv_timeout(DEADLINE).unwrap().text(), "1");
    master.write_all(b"[2]\n\x04").unwrap();
    assert_eq!(rx.recv_timeout(DEADLINE).unwrap().text(), "[2]");
    eventually("the end", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // Nothing but the echo: no prompt, no colours.
    let reading = thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = master.read_to_end(&mut bytes); // EIO, once the other side is closed
        String::from_utf8(bytes).unwrap()
    });
    let echo = reading.join().unwrap();
    assert!(
        !echo.contains("wormholectl") && !echo.contains('\x1b'),
        "{echo:?}"
    );
}

#[test]
fn with_a_message_nothing_is_read_from_a_terminal() {
    let place = Place::new();
    let listener = Listener::<Raw>::bind(place.join("a")).unwrap();
    let running = start(in_terminal(&place, "wormholectl send ./a 5"));
    let (rx, _) = listener.accept_timeout(DEADLINE).unwrap();
    assert_eq!(rx.recv_timeout(DEADLINE).unwrap().text(), "5");
    assert_eq!(running.end().done(), "");
}

#[test]
fn control_c_removes_the_socket_file() {
    let place = Place::new();
    let mut running = start(in_terminal(&place, "wormholectl listen ./a"));
    let tx = sender(place.join("a"));
    tx.send(raw("1")).unwrap();
    assert_eq!(running.line(), "1\r\n");
    running.write(b"\x03");
    eventually("the file is removed", || !place.join("a").exists());
    eventually("the channel is closed", || tx.is_disconnected());
}

#[test]
fn errors_have_no_colours_in_a_terminal() {
    let place = Place::new();
    let ended = run(
        in_terminal(&place, "wormholectl send ./a; wormholectl nope"),
        b"",
    );
    assert!(!ended.out.contains('\x1b'), "{ended:?}");
    assert!(
        run(ctl(["send", &place.at("a")]), b"")
            .err
            .starts_with("wormholectl: cannot")
    );
}
