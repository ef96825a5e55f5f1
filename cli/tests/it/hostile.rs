//! Peers that send garbage, or too much.

use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;

use crate::support::{
    Place, ctl, eventually, packet, raw, raw_client, run, send_packet, sender, start,
};

/// The most descriptors of a packet.
const MAX_FDS: usize = 253;

#[test]
fn garbage_is_named_and_the_next_message_arrives() {
    let deep = "[".repeat(128) + &"]".repeat(128);
    let null = std::fs::File::open("/dev/null").unwrap();
    let nothing: &[i32] = &[];
    let cases: &[(Vec<u8>, &[i32], &str)] = &[
        (vec![1, 2, 3], nothing, "3 bytes are too few"),
        (packet(b"nope"), nothing, "not JSON: "),
        (packet(b"\"\xff\""), nothing, "not JSON: "),
        (
            packet(b"\"\\ud800\""),
            nothing,
            "not JSON: lone leading surrogate at column 2",
        ),
        (
            packet(deep.as_bytes()),
            nothing,
            "not JSON: nested deeper than 127 levels",
        ),
        (packet(b"1 2"), nothing, "not JSON: "),
        (
            [&1_u64.to_le_bytes(), &b"12"[..]].concat(),
            nothing,
            "2 bytes of text came",
        ),
        (
            [&9_u64.to_le_bytes(), &b"12"[..]].concat(),
            nothing,
            "malformed packet",
        ),
        (
            [&9_u64.to_le_bytes(), &b"12"[..]].concat(),
            &[null.as_raw_fd()],
            "malformed packet",
        ),
        (
            u64::MAX.to_le_bytes().to_vec(),
            nothing,
            "limit of 67108864 bytes",
        ),
        (packet(b"\x1b[2J"), nothing, "not JSON: "),
    ];
    for (bytes, fds, words) in cases {
        let place = Place::new();
        let running = start(ctl(["listen", &place.at("a")]));
        send_packet(&raw_client(place.join("a")), bytes, fds);
        let ended = running.end();
        ended.failed(7, words);
        assert!(
            ended.err.contains("message 1, of client 1 (pid "),
            "{ended:?}"
        );
        assert!(!ended.err.contains('\x1b'));
        assert!(!place.join("a").exists());
    }
    let place = Place::new();
    let running = start(ctl(["listen", &place.at("a"), "--keep-going", "--once"]));
    let client = raw_client(place.join("a"));
    send_packet(&client, &packet(b"1"), &[]);
    assert_eq!(running.line(), "1\n");
    let before = running.open_descriptors();
    for (bytes, fds, _) in cases {
        send_packet(&client, bytes, fds);
        send_packet(&client, &packet(b"2"), &[]);
        assert_eq!(running.line(), "2\n");
        assert_eq!(running.open_descriptors(), before);
    }
    drop(client);
    let ended = running.end();
    assert_eq!(
        (ended.code(), ended.err.lines().count()),
        (7, cases.len()),
        "{ended:?}"
    );
}

#[test]
fn a_message_that_is_too_long_is_not_read() {
    let place = Place::new();
    let running = start(ctl(["listen", &place.at("a"), "--max-message", "10"]));
    sender(place.join("a")).send(raw("\"0123456789\"")).unwrap();
    let words = "message of 12 bytes is longer than the limit of 10 bytes";
    running.end().failed(7, words);
}

#[test]
fn a_client_that_floods_keeps_nobody_out() {
    let place = Place::new();
    let running = start(ctl(["listen", &place.at("a")]));
    let flood = sender(place.join("a"));
    let flooding = [0; 4].map(|_| {
        let flood = flood.clone();
        thread::spawn(move || while flood.send(raw("0")).is_ok() {})
    });
    drop(flood);
    assert_eq!(running.line(), "0\n");
    sender(place.join("a")).send(raw("1")).unwrap();
    eventually("the other client's message", || running.line() == "1\n");
    drop(running);
    for thread in flooding {
        thread.join().unwrap();
    }
}

#[test]
fn more_clients_than_descriptors_wait() {
    let place = Place::new();
    let script = "ulimit -n 24; exec \"$0\" \"$@\"";
    let mut command = std::process::Command::new("bash");
    command.args([
        "-c",
        script,
        crate::support::PROGRAM,
        "listen",
        &place.at("a"),
    ]);
    let running = start(command);
    let clients: Vec<_> = (0..40).map(|_| sender(place.join("a"))).collect();
    // Those who are in come first, and the others as these leave.
    let mut seen = 0;
    for (index, client) in clients.into_iter().enumerate() {
        client.send(raw(&index.to_string())).unwrap();
        drop(client);
        assert_eq!(running.line(), format!("{index}\n"));
        seen += 1;
    }
    assert_eq!(seen, 40);
    running.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = running.end();
    assert!(ended.err.contains("a client has to wait"), "{ended:?}");
}

#[test]
fn a_message_whose_command_lacks_descriptors_does_not_end_it() {
    let place = Place::new();
    let null = std::fs::File::open("/dev/null").unwrap();
    // Room for the descriptors of a message, and not for as many more, which a start needs.
    let script = "ulimit -n 400; exec \"$0\" listen \"$@\" --once --exec cat";
    let listen = |more: &[&str]| {
        let mut command = std::process::Command::new("bash");
        command.args(["-c", script, crate::support::PROGRAM, &place.at("a")]);
        command.args(more);
        start(command)
    };
    let send_too_many =
        |client: &OwnedFd| send_packet(client, &packet(b"0"), &[null.as_raw_fd(); MAX_FDS]);
    let words = "cannot start /bin/sh: Too many open files";

    let running = listen(&["--keep-going"]);
    let client = raw_client(place.join("a"));
    for text in ["1", "2", "3"] {
        // If those of the one before had stayed open, these would not all come.
        send_too_many(&client);
        send_packet(&client, &packet(text.as_bytes()), &[]);
        assert_eq!(running.line(), format!("{text}\n"));
    }
    drop(client);
    let ended = running.end();
    assert_eq!(
        (ended.code(), ended.err.lines().count()),
        (1, 3),
        "{ended:?}"
    );
    for (line, number) in ended.err.lines().zip([1, 3, 5]) {
        let begin = format!("wormholectl: message {number}, of client 1 ");
        assert!(
            line.starts_with(&begin) && line.contains(words),
            "{ended:?}"
        );
    }

    let running = listen(&[]);
    send_too_many(&raw_client(place.join("a")));
    running.end().failed(1, words);
}

#[test]
fn a_wrong_command_line_is_status_2() {
    for arguments in [
        &[][..],
        &["listen"],
        &["nope"],
        &["listen", "a", "--timeout", "x"],
    ] {
        assert_eq!(run(ctl(arguments), b"").code(), 2, "{arguments:?}");
    }
    run(ctl(["listen", "a", "--timeout", "-1"]), b"").failed(2, "");
    for command in [
        "listen",
        "send",
        "call",
        "run",
        "take",
        "tap",
        "completions",
        "man",
    ] {
        let help = run(ctl([command, "--help"]), b"").done();
        assert!(help.contains("Example"), "{command}: {help}");
        let page = run(ctl(["man", command]), b"").done();
        assert!(page.contains(".TH"), "{command}");
    }
    let help = run(ctl(["--help"]), b"").done();
    assert!(
        help.contains("Exit status") && help.contains("Addresses"),
        "{help}"
    );
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(ctl(["completions", shell]), b"").done();
        assert!(script.contains("wormholectl"), "{shell}");
    }
    assert!(run(ctl(["man"]), b"").done().contains("Exit status"));
    run(ctl(["man", "nope"]), b"").failed(2, "there is no command nope");
}
