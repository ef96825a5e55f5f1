//! `wormholectl tap`.

use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, Shutdown, recvmsg, setsockopt, shutdown, sockopt,
};
use nix::sys::stat::fstat;
use wormhole::{Blob, Listener, Raw, Receiver, Sender, channel};

use crate::support::{
    DEADLINE, Place, Running, bash, ctl, eventually, give, packet, raw, raw_client, send_packet,
    sender, start,
};

fn tap(place: &Place, more: &[&str]) -> (Listener<Raw>, Running) {
    let listener = Listener::bind(place.join("real")).unwrap();
    let mut command = ctl(["tap", &place.at("real"), &place.at("new")]);
    command.args(more);
    (listener, start(command))
}

fn accept(listener: &Listener<Raw>) -> Receiver<Raw> {
    listener.accept_timeout(DEADLINE).unwrap().0
}

/// A line without its time.
fn shown(running: &Running) -> String {
    let line = running.line();
    let (time, rest) = line.trim_end().split_once(' ').unwrap();
    assert_eq!(
        (time.len(), time.ends_with('Z')),
        ("00:00:00.000000Z".len(), true),
        "{line}"
    );
    rest.to_owned()
}

/// Receives a packet as it is.
fn received(rx: &OwnedFd) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut bytes = vec![0; 300_000];
    let mut space = nix::cmsg_space!([i32; 253]);
    let mut buffer = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(rx.as_raw_fd(), &mut buffer, Some(&mut space), flags).unwrap();
    let mut fds = Vec::new();
    for control in message.cmsgs().unwrap() {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: they have just come.
            #[allow(unsafe_code, reason = "nix gives numbers")]
            fds.extend(
                numbers
                    .into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    let len = message.bytes;
    bytes.truncate(len);
    (bytes, fds)
}

#[test]
fn packets_pass_unchanged_whatever_they_are() {
    let place = Place::new();
    let (listener, running) = tap(&place, &["--once"]);
    let client = raw_client(place.join("new"));
    let rx = OwnedFd::try_from(accept(&listener)).unwrap();
    let connected = shown(&running);
    let pid = std::process::id();
    assert!(
        connected.starts_with(&format!("#1 -- connected: pid {pid}, uid ")),
        "{connected}"
    );

    for (bytes, line) in [
        (packet(b"[ 1, 2 ] "), "#1 -> 17 B [ 1, 2 ] "),
        (packet(b"\x1b[2J"), "#1 -> 12 B \\u{1b}[2J"),
        (packet(b"\xff"), "#1 -> 9 B \u{fffd}"),
        (b"abc".to_vec(), "#1 -> 3 B no message: too short"),
        (Vec::new(), "#1 -> 0 B no message: too short"),
        (
            [&9_u64.to_le_bytes(), &b"12"[..]].concat(),
            "#1 -> 10 B (and 7 B in a memfd) 12",
        ),
        (
            [&1_u64.to_le_bytes(), &b"12"[..]].concat(),
            "#1 -> 10 B (not as long as it says: 1 B) 12",
        ),
    ] {
        send_packet(&client, &bytes, &[]);
        let (came, fds) = received(&rx);
        assert_eq!((&came, fds.len()), (&bytes, 0));
        assert_eq!(shown(&running), line.trim_end(), "{bytes:?}");
    }
    let long = packet(format!("\"{}\"", "é".repeat(50_000)).as_bytes());
    send_packet(&client, &long, &[]);
    assert!(received(&rx).0 == long);
    assert_eq!(
        shown(&running),
        format!("#1 -> 100010 B \"{}...", "é".repeat(79))
    );

    drop(client);
    assert_eq!(received(&rx).0.len(), 0);
    assert_eq!(shown(&running), "#1 -- closed by the client");
    assert_eq!(running.end().done(), "");
    assert!(!place.join("new").exists());
}

#[test]
fn a_packet_of_the_largest_buffer_passes() {
    let place = Place::new();
    let (listener, running) = tap(&place, &["--width", "0"]);
    let client = raw_client(place.join("new"));
    setsockopt(&client, sockopt::SndBuf, &212_992).unwrap();
    let rx = OwnedFd::try_from(accept(&listener)).unwrap();
    shown(&running);
    let text = "x".repeat(262_144 - 8 - 2);
    let largest = packet(format!("\"{text}\"").as_bytes());
    send_packet(&client, &largest, &[]);
    assert!(received(&rx).0 == largest);
    assert_eq!(shown(&running), "#1 -> 262144 B");

    // One byte more is what no receiver takes. It is said, and the next one passes.
    send_packet(&client, &packet(format!("\"{text}x\"").as_bytes()), &[]);
    send_packet(&client, &packet(b"1"), &[]);
    assert_eq!(received(&rx).0, packet(b"1"));
    assert!(shown(&running).starts_with("#1 -> lost: it is longer than 262144 bytes"));
    running.signal(Signal::SIGTERM);
    assert!(running.end().err.contains("client 1: a packet is lost"));
}

#[test]
fn descriptors_and_memfds_pass_as_they_are() {
    let place = Place::new();
    let (listener, running) = tap(&place, &[]);
    let tx = sender(place.join("new"));
    let rx = accept(&listener);
    shown(&running);
    let before = running.open_descriptors();
    let (end, other) = channel::<u32>().unwrap();
    let blob = Blob::from_bytes(b"blob").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let fds = || {
        let blob = blob.as_fd().try_clone_to_owned().unwrap();
        let file = OwnedFd::from(file.reopen().unwrap());
        let end = end.as_fd().try_clone_to_owned().unwrap();
        vec![end, blob, file]
    };
    tx.send(Raw::from_parts("[0,1,2]".into(), fds()).unwrap())
        .unwrap();
    let name = file.path().display();
    let line = format!("#1 -> 15 B [sender, memfd, file {name}] [0,1,2]");
    assert_eq!(shown(&running), line);
    let message = rx.recv_timeout(DEADLINE).unwrap();
    assert_eq!(message.text(), "[0,1,2]");
    let inode = |fd: &OwnedFd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).unwrap();
    for (sent, came) in fds().iter().zip(message.fds()) {
        assert_eq!(inode(sent), inode(came));
    }
    drop((end, message, other));
    // What is longer than a packet.
    let long = format!("\"{}\"", "x".repeat(500_000));
    tx.send(raw(&long)).unwrap();
    assert!(rx.recv_timeout(DEADLINE).unwrap().text() == long);
    let line = shown(&running);
    assert!(
        line.starts_with("#1 -> 212960 B [memfd] (and 287050 B in a memfd) \"xxx"),
        "{line}"
    );
    // What passed has been closed, before its line was printed.
    assert_eq!(running.open_descriptors(), before);
}

#[test]
fn clients_are_kept_apart() {
    let place = Place::new();
    let (listener, running) = tap(&place, &[]);
    let first = sender(place.join("new"));
    let first_rx = accept(&listener);
    shown(&running);
    // The first is stuck: nobody receives.
    let mut sent = 0;
    while first
        .send_timeout(raw("1"), Duration::from_millis(200))
        .is_ok()
    {
        sent += 1;
    }
    let second = sender(place.join("new"));
    let second_rx = accept(&listener);
    second.send(raw("2")).unwrap();
    eventually("the second's message is shown", || {
        shown(&running) == "#2 -> 9 B 2"
    });
    assert_eq!(second_rx.recv_timeout(DEADLINE).unwrap().text(), "2");
    // What the stuck one has sent is all there, in the end.
    drop(first);
    assert_eq!(
        first_rx.iter().filter(|message| message.is_ok()).count(),
        sent
    );
}

#[test]
fn a_receiver_that_leaves_is_told_to_the_client() {
    let place = Place::new();
    let (listener, running) = tap(&place, &["--once"]);
    let tx = sender(place.join("new"));
    let rx = accept(&listener);
    shown(&running);
    drop(rx);
    assert_eq!(shown(&running), "#1 -- closed by the receiver");
    eventually("disconnected", || tx.is_disconnected());
    assert_eq!(running.end().done(), "");
}

#[test]
fn what_does_not_arrive_is_counted() {
    let place = Place::new();
    let (listener, running) = tap(&place, &["--once"]);
    let tx = sender(place.join("new"));
    let rx = accept(&listener);
    shown(&running);
    let mut sent = 0;
    while tx
        .send_timeout(raw("1"), Duration::from_millis(200))
        .is_ok()
    {
        sent += 1;
    }
    drop(rx);
    let ended = running.end();
    let shown = ended
        .out
        .lines()
        .filter(|line| line.contains(" -> "))
        .count();
    let lost = format!("closed by the receiver: {} packets lost", sent - shown);
    assert!(
        ended.out.trim_end().ends_with(&lost),
        "{sent} {shown}: {ended:?}"
    );
    assert!(ended.err.contains("the receiver has gone"), "{ended:?}");
}

#[test]
fn a_packet_without_a_byte_hides_none_behind_it() {
    let place = Place::new();
    let (listener, running) = tap(&place, &["--once"]);
    let client = raw_client(place.join("new"));
    let rx = OwnedFd::try_from(accept(&listener)).unwrap();
    shown(&running);
    running.signal(Signal::SIGSTOP);
    let stat = format!("/proc/{}/stat", running.pid());
    eventually("it has stopped", || {
        std::fs::read_to_string(&stat).unwrap().contains(") T ")
    });
    for bytes in [Vec::new(), packet(b"1")] {
        send_packet(&client, &bytes, &[]);
    }
    // Closing them takes effect later, if some other test forks meanwhile.
    for end in [client, rx] {
        shutdown(end.as_raw_fd(), Shutdown::Both).unwrap();
    }
    running.signal(Signal::SIGCONT);
    let last = shown(&running);
    assert_eq!(last, "#1 -- closed by the receiver: 2 packets lost");
    assert!(running.end().err.contains("the receiver has gone"));
}

#[test]
fn a_client_that_goes_on_sending_is_refused_once_the_receiver_has_gone() {
    const THREADS: usize = 4;
    let place = Place::new();
    let listener = Listener::<Raw>::bind(place.join("real")).unwrap();
    // Full, so that it is held up when it says that something is lost, with the client's channel still open.
    let (mut complaints, mut write) = std::io::pipe().unwrap();
    let size = fcntl(&write, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let mut filling = vec![b'-'; usize::try_from(size).unwrap()];
    write.write_all(&filling).unwrap();
    let script = "exec wormholectl tap ./real ./new --once 2>&9";
    let mut command = bash(script, place.path());
    give(&mut command, write.into(), 9);
    let running = start(command);
    let tx = sender(place.join("new"));
    let rx = accept(&listener);
    shown(&running);

    let (report, counts) = mpsc::channel();
    for _ in 0..THREADS {
        let (tx, report) = (tx.clone(), report.clone());
        thread::spawn(move || {
            let mut sent = 0_usize;
            while tx.send(raw("1")).is_ok() {
                sent += 1;
            }
            report.send(sent)
        });
    }
    assert_eq!(shown(&running), "#1 -> 9 B 1");
    drop(rx);
    let refused = || counts.recv_timeout(DEADLINE).expect("a refusal in time");
    let sent: usize = (0..THREADS).map(|_| refused()).sum();

    complaints.read_exact(&mut filling).unwrap();
    let ended = running.end();
    let passed = 1 + ended.out.matches(" -> ").count();
    let (_, last) = ended.out.rsplit_once("closed by the receiver").unwrap();
    let lost = last.strip_prefix(": ").map_or(0, |last| {
        let (lost, _) = last.split_once(" packet").unwrap();
        lost.parse::<usize>().unwrap()
    });
    assert_eq!(passed + lost, sent, "{last}");
}

#[test]
fn where_nobody_listens_the_client_is_turned_away() {
    let place = Place::new();
    let running = start(ctl(["tap", &place.at("real"), &place.at("new"), "--once"]));
    let tx: Sender<Raw> = sender(place.join("new"));
    let ended = running.end();
    ended.failed(1, "nobody listens there");
    assert!(ended.out.contains("turned away"), "{ended:?}");
    assert!(tx.is_disconnected());
}

#[test]
fn a_reader_of_the_lines_that_leaves_ends_it() {
    let place = Place::new();
    let listener = Listener::<Raw>::bind(place.join("real")).unwrap();
    let running = start(bash(
        "wormholectl tap ./real ./new | head -2 >&2",
        place.path(),
    ));
    let tx = sender(place.join("new"));
    let rx = accept(&listener);
    tx.send(raw("1")).unwrap();
    assert_eq!(rx.recv_timeout(DEADLINE).unwrap().text(), "1");
    let ended = running.end();
    assert_eq!(
        (ended.code(), ended.err.lines().count()),
        (0, 2),
        "{ended:?}"
    );
    assert!(!place.join("new").exists());
}

#[test]
fn a_daemon_can_be_tapped_under_its_own_name() {
    let place = Place::new();
    let listener = Listener::<Raw>::bind(place.join("app")).unwrap();
    std::fs::rename(place.join("app"), place.join("app.real")).unwrap();
    let running = start(ctl(["tap", &place.at("app.real"), &place.at("app")]));
    let tx = sender(place.join("app"));
    let rx = accept(&listener);
    shown(&running);
    tx.send(raw("1")).unwrap();
    assert_eq!(rx.recv_timeout(DEADLINE).unwrap().text(), "1");
    assert_eq!(shown(&running), "#1 -> 9 B 1");
    drop((listener, rx));
    assert!(
        place.join("app").exists(),
        "it is not the daemon's any more"
    );
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().code(), 143);
    assert!(!place.join("app").exists());
}

#[test]
fn a_signal_ends_it_although_a_client_is_stuck() {
    let place = Place::new();
    let (listener, running) = tap(&place, &[]);
    let tx = sender(place.join("new"));
    let _rx = accept(&listener);
    while tx
        .send_timeout(raw("1"), Duration::from_millis(200))
        .is_ok()
    {}
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!(ended.code(), 143);
    let words = "SIGTERM came while a message could not get on: it is lost, or cut short";
    assert!(ended.err.contains(words), "{ended:?}");
    assert!(!place.join("new").exists());
}
