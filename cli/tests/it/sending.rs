//! `wormholectl send`.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use wormhole::{Error, Listener, Raw, Receiver, channel};

use crate::support::{DEADLINE, Place, bash, ctl, eventually, give, run, start};

/// A listener in a place of its own.
fn listener() -> (Place, Listener<Raw>, String) {
    let place = Place::new();
    let listener = Listener::bind(place.join("a")).unwrap();
    let address = place.at("a");
    (place, listener, address)
}

fn accept(listener: &Listener<Raw>) -> Receiver<Raw> {
    listener.accept_timeout(DEADLINE).unwrap().0
}

fn texts(rx: &Receiver<Raw>) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        match rx.recv_timeout(DEADLINE) {
            Ok(message) => texts.push(message.text().to_owned()),
            Err(Error::Disconnected) => return texts,
            Err(error) => panic!("{error:#}"),
        }
    }
}

#[test]
fn a_message_arrives_as_it_was_written() {
    let (_place, listener, address) = listener();
    for text in [
        r#"{"n":1.00000000000000000000000000001,"m":123456789012345678901234567890}"#,
        r#"[1e999,-0,"\u0000\ud83d\ude00é"]"#,
        "[ 1,\n 2 ]",
        "-1",
    ] {
        run(ctl(["send", &address, "--", text]), b"").done();
        assert_eq!(texts(&accept(&listener)), [text]);
    }
}

#[test]
fn descriptors_go_with_it_in_order() {
    let (place, listener, address) = listener();
    fs::write(place.join("7"), "a file called 7").unwrap();
    let (mut read, write) = std::io::pipe().unwrap();
    let mut command = ctl(["send", &address, "[0,1,2,3]", "--fd", "7", "--fd", "./7"]);
    command
        .args(["-f", "0", "-f", "7"])
        .current_dir(place.path());
    give(&mut command, write.into(), 7);
    run(command, b"the input").done();
    let message = accept(&listener).recv_timeout(DEADLINE).unwrap();
    let (value, mut fds) = message.decode_with_fds::<[u32; 4]>().unwrap();
    assert_eq!((value, fds.len()), ([0, 1, 2, 3], 4));
    let mut pipe = std::io::PipeWriter::from(fds.pop().unwrap());
    pipe.write_all(b"through").unwrap();
    let mut input = std::io::PipeReader::from(fds.pop().unwrap());
    let mut text = String::new();
    input.read_to_string(&mut text).unwrap();
    assert_eq!(text, "the input");
    let mut file = fs::File::from(fds.pop().unwrap());
    text.clear();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "a file called 7");
    drop((pipe, fds));
    text.clear();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "through", "and no copy is left anywhere");
}

#[test]
fn descriptors_that_cannot_be_sent_are_an_error() {
    let (_place, listener, address) = listener();
    run(ctl(["send", &address, "0", "--fd", "9"]), b"").failed(1, "descriptor 9 is not open");
    run(ctl(["send", &address, "0", "--fd", "/nonexistent"]), b"").failed(1, "/nonexistent");
    run(ctl(["send", &address, "--fd", "0"]), b"1\n").failed(2, "--fd needs a message");
    let many: Vec<_> = (0..254).flat_map(|_| ["--fd", "0"]).collect();
    let mut command = ctl(["send", &address, "0"]);
    command.args(many);
    run(command, b"").failed(
        1,
        "cannot send 254 descriptors in one message: the limit is 253",
    );
    while let Ok((rx, _)) = listener.try_accept() {
        assert_eq!(texts(&rx), [""; 0]);
    }
}

#[test]
fn each_line_is_a_message() {
    let (_place, listener, address) = listener();
    let long = format!("\"{}\"", "x".repeat(1_000_000));
    let input = format!("1\n\n  \t\r\n [2] \r\n{long}\n{{\"a\":\"b\"}}");
    let receiving = thread::spawn({
        let listener = listener.clone();
        move || texts(&accept(&listener))
    });
    run(ctl(["send", &address]), input.as_bytes()).done();
    assert_eq!(
        receiving.join().unwrap(),
        ["1", "[2]", &long, "{\"a\":\"b\"}"]
    );
    run(ctl(["send", &address]), b"").done();
    assert_eq!(texts(&accept(&listener)), [""; 0]);
}

#[test]
fn a_line_is_sent_at_once() {
    let (_place, listener, address) = listener();
    let mut running = start(ctl(["send", &address]));
    let rx = accept(&listener);
    for number in ["10", "20", "30"] {
        let (first, rest) = number.split_at(1);
        running.write(first.as_bytes());
        running.write(rest.as_bytes());
        running.write(b"\n");
        assert_eq!(rx.recv_timeout(DEADLINE).unwrap().text(), number);
    }
    running.end().done();
}

#[test]
fn what_is_no_json_is_refused_with_its_place() {
    let (_place, listener, address) = listener();
    let deep = "[".repeat(128) + &"]".repeat(128);
    for (bad, words) in [
        ("nope", "not JSON: expected ident at column 2"),
        ("[1,]", "not JSON: "),
        ("NaN", "not JSON: expected value at column 1"),
        ("1 2", "not JSON: trailing characters at column 3"),
        ("{'a':1}", "not JSON: "),
        ("\u{feff}1", "not JSON: "),
        (
            "\"\\ud800\"",
            "not JSON: lone leading surrogate at column 2",
        ),
        (
            &*deep,
            "not JSON: nested deeper than 127 levels at column 128",
        ),
        (
            "{\"a\":1",
            "not JSON: EOF while parsing an object at column 6",
        ),
    ] {
        run(ctl(["send", &address, "--", bad]), b"").failed(6, words);
        let input = format!("1\n\n{bad}\n4\n");
        run(ctl(["send", &address]), input.as_bytes()).failed(6, &format!("line 3: {words}"));
        assert_eq!(texts(&accept(&listener)), ["1"], "{bad}");
        run(ctl(["send", &address, "--keep-going"]), input.as_bytes()).failed(6, words);
        assert_eq!(texts(&accept(&listener)), ["1", "4"], "{bad}");
    }
    run(ctl(["send", &address]), b"\"\xff\"\n")
        .failed(6, "line 1: not JSON: not UTF-8 at column 2");
    assert!(matches!(
        listener.accept_timeout(DEADLINE).unwrap().0.recv(),
        Err(Error::Disconnected)
    ));
}

#[test]
fn a_line_that_is_too_long_is_skipped_and_named() {
    let (_place, listener, address) = listener();
    let send = || ctl(["send", &address, "--max-message", "1000", "--keep-going"]);
    let long = format!("\"{}\"", "x".repeat(10_000_000));
    let input = format!("1\n{long}\n\"{}\"\n{long}", "y".repeat(998));
    let ended = run(send(), input.as_bytes());
    assert_eq!(ended.code(), 6);
    let sentence = "message of 10000002 bytes is longer than the limit of 1000 bytes\n";
    assert_eq!(
        ended.err,
        format!("wormholectl: line 2: {sentence}wormholectl: line 4: {sentence}")
    );
    assert_eq!(texts(&accept(&listener)).len(), 2);
    let message = run(ctl(["send", &address, "--max-message", "3", "[1]"]), b"");
    message.done();
    run(ctl(["send", &address, "--max-message", "2", "[1]"]), b"")
        .failed(6, "message of 3 bytes is longer than the limit of 2 bytes");
}

#[test]
fn a_receiver_that_leaves_ends_it_though_there_is_no_input() {
    let (_place, listener, address) = listener();
    let mut running = start(ctl(["send", &address]));
    running.write(b"1\n");
    let rx = accept(&listener);
    assert_eq!(rx.recv_timeout(DEADLINE).unwrap().text(), "1");
    drop(rx);
    // Not `end`, which closes the input.
    let err = running.wait_for_error();
    assert_eq!(
        err,
        "wormholectl: the receiver has gone, 1 message had been sent\n"
    );
    assert_eq!(running.end().code(), 3);
}

#[test]
fn a_receiver_that_never_reads_is_waited_for_as_long_as_wanted() {
    let (_place, listener, address) = listener();
    let lines = "1\n".repeat(10_000);
    run(
        ctl(["send", &address, "--timeout", "0.05"]),
        lines.as_bytes(),
    )
    .failed(4, "cannot send a message: timed out after 50ms");
    run(ctl(["send", &address, "--no-wait"]), lines.as_bytes())
        .failed(5, "cannot send now: the channel is full");
    // What came before is there.
    assert!(texts(&accept(&listener)).len() >= 278);
}

#[test]
fn a_slow_receiver_gets_everything() {
    let (_place, listener, address) = listener();
    let lines: String = (0..5_000).map(|number| format!("{number}\n")).collect();
    let sending = thread::spawn(move || run(ctl(["send", &address]), lines.as_bytes()).done());
    let rx = accept(&listener);
    let mut expected = 0_u32;
    while let Ok(message) = rx.recv_timeout(DEADLINE) {
        assert_eq!(message.text(), expected.to_string());
        expected += 1;
        if expected.is_multiple_of(500) {
            thread::yield_now();
        }
    }
    assert_eq!(expected, 5_000);
    sending.join().unwrap();
}

#[test]
fn an_address_where_nobody_listens_is_an_error() {
    let place = Place::new();
    run(ctl(["send", &place.at("a"), "1"]), b"").failed(1, "nobody listens there: No such file");
    run(ctl(["send", "@wormholectl nobody", "1"]), b"").failed(
        1,
        "cannot connect to @wormholectl nobody: nobody listens there",
    );
    let stale = UnixListener::bind(place.join("stream")).unwrap();
    run(ctl(["send", &place.at("stream"), "1"]), b"").failed(1, "wrong type for socket");
    drop(stale);
    // A program that a test beside this one starts has a copy of it until it is executed.
    eventually("it is closed", || {
        UnixStream::connect(place.join("stream")).is_err()
    });
    run(ctl(["send", &place.at("stream"), "1"]), b"").failed(1, "Connection refused");
    for address in ["", "@", "fd:1", "fd:x", &"x".repeat(108)] {
        run(ctl(["send", address, "1"]), b"").failed(2, "invalid value");
    }
    run(ctl(["send", "fd:9", "1"]), b"").failed(1, "descriptor 9 is not open");
    run(ctl(["send", &place.at("a"), "nope"]), b"").failed(6, "the message: not JSON");
}

#[test]
fn an_at_sign_after_a_slash_is_a_file() {
    let place = Place::new();
    let listener = Listener::<Raw>::bind(place.join("@a")).unwrap();
    let mut command = ctl(["send", "./@a", "1"]);
    command.current_dir(place.path());
    run(command, b"").done();
    assert_eq!(texts(&accept(&listener)), ["1"]);
    let mut command = ctl(["send", "@a", "1"]);
    command.current_dir(place.path());
    run(command, b"").failed(1, "nobody listens there");
}

#[test]
fn it_waits_for_a_listener_if_wanted() {
    let place = Place::new();
    let late = ctl(["send", &place.at("a"), "1", "--wait", "--timeout", "0.05"]);
    run(late, b"").failed(4, "nobody listens there: timed out after 50ms");
    let running = start(ctl(["send", &place.at("a"), "1", "--wait"]));
    let listener = Listener::<Raw>::bind(place.join("a")).unwrap();
    assert_eq!(texts(&accept(&listener)), ["1"]);
    running.end().done();
}

#[test]
fn an_inherited_end_is_sent_to_and_closed() {
    let (tx, rx) = channel::<Raw>().unwrap();
    let mut command = ctl(["send", "fd:3", "5"]);
    give(&mut command, tx.as_fd().try_clone_to_owned().unwrap(), 3);
    run(command, b"").done();
    let mut command = ctl(["send", "fd:3", "6"]);
    give(&mut command, tx.try_into().unwrap(), 3);
    run(command, b"").done();
    assert_eq!(texts(&rx), ["5", "6"]);
    let mut command = ctl(["send", "fd:3", "6"]);
    let (_tx, rx) = channel::<u32>().unwrap();
    give(&mut command, rx.try_into().unwrap(), 3);
    run(command, b"").failed(1, "fd:3: descriptor is not an end of a channel");
}

#[test]
fn with_a_message_it_leaves_the_input_alone() {
    let (place, listener, _) = listener();
    let script = r#"
        printf '%s\n' 1 2 3 | while read -r n; do wormholectl send ./a "[$n]"; done
    "#;
    run(bash(script, place.path()), b"").done();
    for number in 1..=3 {
        assert_eq!(texts(&accept(&listener)), [format!("[{number}]")]);
    }
}
