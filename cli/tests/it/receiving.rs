//! `wormholectl listen`.

use std::fs;
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, OwnedFd};

use wormhole::{Error, Listener, Raw, Sender, channel};

use crate::support::{Place, bash, ctl, eventually, give, raw, run, sender, start, strays};

/// A started `listen` with more arguments, and a place that it listens in.
macro_rules! listen {
    ($place:ident $(, $argument:expr)*) => {
        start(ctl(["listen", &$place.at("a") $(, $argument)*]))
    };
}

fn connect(place: &Place) -> Sender<Raw> {
    sender(place.join("a"))
}

/// The two ends of a pipe, the second for a message.
fn pipe() -> (PipeReader, PipeWriter) {
    std::io::pipe().unwrap()
}

#[test]
fn each_message_is_a_line_of_its_own_text() {
    let place = Place::new();
    let running = listen!(place, "--once");
    let tx = connect(&place);
    let texts = [
        r#"{"n":1.00000000000000000000000000001,"m":123456789012345678901234567890}"#,
        r#"[1e999, -0, "\u0000\ud83d\ude00é"]"#,
        "null",
        r#"{"a":1,"a":2}"#,
    ];
    for text in texts {
        tx.send(raw(text)).unwrap();
        assert_eq!(running.line(), format!("{text}\n"), "at once");
    }
    tx.send(raw("{\n\t\"a\":\r\n[]}")).unwrap();
    assert_eq!(running.line(), "{ \t\"a\":\r []}\n");
    let long = format!("\"{}\"", "x".repeat(3_000_000));
    tx.send(raw(&long)).unwrap();
    drop(tx);
    assert!(running.end().done() == format!("{long}\n"));
    assert!(!place.join("a").exists());
}

#[test]
fn many_clients_send_at_once() {
    let place = Place::new();
    let running = listen!(place, "--count", "60");
    let clients: Vec<_> = (0..20).map(|_| connect(&place)).collect();
    for round in 0..3 {
        for (index, client) in clients.iter().enumerate() {
            client.send(raw(&format!("[{index},{round}]"))).unwrap();
            assert_eq!(running.line(), format!("[{index},{round}]\n"));
        }
    }
    assert_eq!(running.end().done(), "");
    assert!(clients.iter().all(Sender::is_disconnected));
}

#[test]
fn a_client_that_comes_and_goes_leaves_nothing_behind() {
    let place = Place::new();
    let running = listen!(place);
    let mut before = None;
    for round in 0..100 {
        let client = connect(&place);
        client.send(raw(&round.to_string())).unwrap();
        assert_eq!(running.line(), format!("{round}\n"));
        drop(client);
        // The next message is printed after the client before has been noticed to be gone, or together with it.
        if round == 10 {
            before = Some(running.open_descriptors());
        }
    }
    let before = before.unwrap();
    eventually("descriptors are closed", || {
        running.open_descriptors() <= before
    });
}

#[test]
fn it_ends_when_its_time_is_up() {
    let place = Place::new();
    let running = listen!(place, "--timeout", "0.05");
    running.end().failed(4, "no message came within 50ms");
    assert!(!place.join("a").exists());
}

#[test]
fn with_once_it_lets_in_one_client() {
    let place = Place::new();
    let running = listen!(place, "--once", "--count", "2");
    let tx = connect(&place);
    tx.send(raw("1")).unwrap();
    assert_eq!(running.line(), "1\n");
    let second = Sender::<Raw>::connect(place.join("a"));
    assert!(matches!(second, Err(Error::Address { .. })));
    drop(tx);
    running
        .end()
        .failed(3, "the sender has gone after 1 of 2 messages");
}

#[test]
fn it_receives_from_an_end_that_it_has_inherited() {
    let (tx, rx) = channel::<u32>().unwrap();
    let mut command = ctl(["listen", "fd:3"]);
    give(&mut command, rx.try_into().unwrap(), 3);
    tx.send(1).unwrap();
    let running = start(command);
    assert_eq!(running.line(), "1\n");
    tx.send(2).unwrap();
    drop(tx);
    assert_eq!(running.end().done(), "2\n");

    let (tx, rx) = channel::<u32>().unwrap();
    let mut command = ctl(["listen", "fd:3", "--count", "2"]);
    give(&mut command, rx.try_into().unwrap(), 3);
    tx.send(1).unwrap();
    drop(tx);
    let ended = run(command, b"");
    ended.failed(3, "after 1 of 2 messages");
    assert_eq!(ended.out, "1\n");
}

#[test]
fn without_waiting_it_takes_what_is_there() {
    let (tx, rx) = channel::<u32>().unwrap();
    let command = || {
        let mut command = ctl(["listen", "fd:7", "--no-wait"]);
        give(&mut command, rx.as_fd().try_clone_to_owned().unwrap(), 7);
        command
    };
    run(command(), b"").failed(5, "no message is waiting");
    tx.send(1).unwrap();
    tx.send(2).unwrap();
    assert_eq!(run(command(), b"").done(), "1\n2\n");
    let place = Place::new();
    run(ctl(["listen", &place.at("a"), "--no-wait"]), b"").failed(2, "open already, as fd:N");
}

#[test]
fn it_takes_over_a_listening_socket() {
    let place = Place::new();
    let listener = Listener::<Raw>::bind(place.join("a")).unwrap();
    let mut command = ctl(["listen", "fd:3", "--count", "2"]);
    give(
        &mut command,
        listener.as_fd().try_clone_to_owned().unwrap(),
        3,
    );
    let running = start(command);
    connect(&place).send(raw("1")).unwrap();
    connect(&place).send(raw("2")).unwrap();
    let mut lines = [running.line(), running.line()];
    lines.sort();
    assert_eq!(lines, ["1\n", "2\n"]);
    assert_eq!(running.end().done(), "");
    assert!(place.join("a").exists(), "it belongs to somebody else");
}

#[test]
fn what_is_no_receiving_end_is_refused() {
    run(ctl(["listen", "fd:9"]), b"").failed(1, "descriptor 9 is not open");
    let mut command = ctl(["listen", "fd:3"]);
    give(&mut command, fs::File::open("/dev/null").unwrap().into(), 3);
    run(command, b"").failed(1, "fd:3: descriptor is not an end of a channel");
    let (tx, _rx) = channel::<u32>().unwrap();
    let mut command = ctl(["listen", "fd:3"]);
    give(&mut command, tx.try_into().unwrap(), 3);
    run(command, b"").failed(1, "fd:3: descriptor is not an end of a channel");
}

#[test]
fn descriptors_that_nothing_takes_are_closed_and_an_error() {
    let place = Place::new();
    let running = listen!(place);
    let tx = connect(&place);
    let (mut read, write) = pipe();
    tx.send(Raw::from_parts("[0]".into(), vec![write.into()]).unwrap())
        .unwrap();
    let ended = running.end();
    let words = format!(
        "message 1, of client 1 (pid {}): it has 1 descriptor",
        std::process::id()
    );
    ended.failed(7, &words);
    assert_eq!(read.read(&mut [0]).unwrap(), 0, "closed");

    let running = listen!(place, "--keep-going", "--count", "1");
    let tx = connect(&place);
    let (mut read, write) = pipe();
    let (_, other) = pipe();
    let fds = vec![write.into(), other.into()];
    tx.send(Raw::from_parts("[0,1]".into(), fds).unwrap())
        .unwrap();
    assert_eq!(read.read(&mut [0]).unwrap(), 0, "closed, while it goes on");
    tx.send(raw("5")).unwrap();
    let ended = running.end();
    ended.failed(7, "it has 2 descriptors");
    assert_eq!(ended.out, "5\n");
}

#[test]
fn a_command_gets_the_text_and_the_descriptors_in_order() {
    let place = Place::new();
    let script = r#"
        cat
        echo "$LISTEN_FDS $((LISTEN_PID - $$)) $WORMHOLE_PEER_PID $WORMHOLE_PEER_UID"
        echo first >&3
        echo second >&4
        ls /proc/self/fd | wc -l
    "#;
    let strays = strays().len();
    let running = listen!(place, "--exec", script, "--count", "2");
    let tx = connect(&place);
    for count in [2, 20] {
        let (pipes, fds): (Vec<_>, Vec<OwnedFd>) = (0..count)
            .map(|_| pipe())
            .map(|(read, write)| (read, OwnedFd::from(write)))
            .unzip();
        let text = format!("{{\"count\":{count}}}");
        tx.send(Raw::from_parts(text.clone(), fds).unwrap())
            .unwrap();
        assert_eq!(running.line(), format!("{text}\n"));
        let (pid, uid) = (std::process::id(), nix::unistd::getuid());
        assert_eq!(running.line(), format!("{count} 0 {pid} {uid}\n"));
        // 0 to 2, those of the message, and the directory itself. A stray may have been overwritten.
        let open = running.line().trim().parse::<usize>().unwrap();
        assert!((count + 4..=count + 4 + strays).contains(&open), "{open}");
        let texts = pipes.into_iter().map(|mut pipe| {
            let mut text = String::new();
            pipe.read_to_string(&mut text).unwrap();
            text
        });
        let texts: Vec<_> = texts.take(3).collect();
        assert_eq!(texts.first().unwrap(), "first\n");
        assert_eq!(texts.get(1).unwrap(), "second\n");
    }
    assert_eq!(running.end().done(), "");
}

#[test]
fn a_command_is_not_told_of_somebody_elses_client() {
    let ids = ["PID", "UID", "GID"].map(|id| format!("WORMHOLE_PEER_{id}"));
    let script = "env | grep ^WORMHOLE_PEER_ || echo none";
    let (tx, rx) = channel::<u32>().unwrap();
    let mut command = ctl(["listen", "fd:3", "--exec", script]);
    command.envs(ids.iter().map(|id| (id, "0")));
    give(&mut command, rx.try_into().unwrap(), 3);
    tx.send(1).unwrap();
    drop(tx);
    assert_eq!(run(command, b"").done(), "none\n");

    let place = Place::new();
    let mut command = ctl(["listen", &place.at("a"), "--once", "--exec", script]);
    command.envs(ids.iter().map(|id| (id, "none")));
    let running = start(command);
    connect(&place).send(raw("1")).unwrap();
    let told = running.end().done();
    assert_eq!((told.lines().count(), told.contains("none")), (3, false));

    if !nix::unistd::geteuid().is_root() {
        return;
    }
    // In a pid namespace of its own, where nobody else has a number.
    let script = "exec unshare --pid --fork \
        wormholectl listen ./a --once --exec 'echo ${WORMHOLE_PEER_PID-none} $WORMHOLE_PEER_UID'";
    let mut command = bash(script, place.path());
    command.envs(ids.iter().map(|id| (id, "5")));
    let running = start(command);
    connect(&place).send(raw("1")).unwrap();
    assert_eq!(running.end().done(), "none 0\n");
}

#[test]
fn a_command_that_fails_ends_it_with_its_status() {
    let place = Place::new();
    let script = "read n; exit $n";
    let running = listen!(place, "--exec", script);
    let tx = connect(&place);
    tx.send(raw("0")).unwrap();
    tx.send(raw("42")).unwrap();
    running.end().failed(42, "message 2, of client 1");

    let running = listen!(place, "--exec", "read n; kill -9 $$", "--once");
    connect(&place).send(raw("0")).unwrap();
    running.end().failed(137, "the command failed: signal: 9");

    let running = listen!(place, "--exec", script, "--keep-going", "--once");
    let tx = connect(&place);
    for text in ["9", "0"] {
        tx.send(raw(text)).unwrap();
    }
    drop(tx);
    running.end().failed(9, "message 1, of client 1");
}

#[test]
fn it_says_who_has_connected() {
    let name = format!("@wormholectl peer {}", std::process::id());
    let running = start(ctl(["listen", &name, "--peer", "--once"]));
    let sent = run(ctl(["send", "--wait", &name, r#"{"a":[]}"#]), b"");
    sent.done();
    let line = running.end().done();
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["message"]["a"], serde_json::json!([]), "{line}");
    assert_eq!(value["uid"], nix::unistd::getuid().as_raw(), "{line}");
    assert!(value["pid"].as_u64().unwrap() > 1, "{line}");
}

#[test]
fn a_reader_that_leaves_ends_it_quietly_and_at_once() {
    let place = Place::new();
    let script = r#"
        wormholectl listen ./a | head -1
        echo "${PIPESTATUS[@]}"
        [[ ! -e ./a ]] && echo removed
    "#;
    let running = start(bash(script, place.path()));
    let tx = connect(&place);
    tx.send(raw("1")).unwrap();
    // Nothing more is sent.
    assert_eq!(running.end().done(), "1\n0 0\nremoved\n");
    assert!(tx.is_disconnected());
}

#[test]
fn a_reader_that_leaves_ends_a_command_quietly() {
    let place = Place::new();
    let script = r#"
        wormholectl listen ./a --exec 'cat; exec sleep 0.1' | head -1
        echo "${PIPESTATUS[@]}"
    "#;
    let running = start(bash(script, place.path()));
    let tx = connect(&place);
    // Those after the first are written when `head` has gone, or is about to.
    let _ = [1, 2, 3].map(|number| tx.send(raw(&number.to_string())));
    assert_eq!(running.end().done(), "1\n0 0\n");
    assert!(tx.is_disconnected());
}

#[test]
fn a_time_without_end_is_as_good_as_none() {
    let place = Place::new();
    let running = listen!(place, "--timeout", "1e19", "--count", "1");
    let sent = ctl(["send", "--wait", "--timeout", "1e19", &place.at("a"), "1"]);
    run(sent, b"").done();
    assert_eq!(running.end().done(), "1\n");
}

#[test]
fn a_full_disk_is_not_silent() {
    let place = Place::new();
    let script = "wormholectl listen ./a >/dev/full";
    let running = start(bash(script, place.path()));
    connect(&place).send(raw("1")).unwrap();
    running.end().failed(1, "message 1, of client 1");
}

#[test]
fn one_that_is_there_already_is_not_disturbed() {
    let place = Place::new();
    let first = listen!(place, "--count", "1");
    let tx = connect(&place);
    run(ctl(["listen", &place.at("a")]), b"").failed(1, "cannot listen at ");
    tx.send(raw("1")).unwrap();
    assert_eq!(first.end().done(), "1\n");
    fs::write(place.join("a"), "not a socket").unwrap();
    run(ctl(["listen", &place.at("a")]), b"").failed(1, "a file that is not a socket is there");
    run(ctl(["listen", "/nonexistent/a"]), b"").failed(1, "No such file or directory");
}
