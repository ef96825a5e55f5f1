//! `wormholectl call`.

use std::io::Write;
use std::os::fd::OwnedFd;

use wormhole::{Error, Listener, Raw, Sender};

use crate::support::{DEADLINE, Place, ctl, run, start};

type Question = (u32, Sender<Raw>);

/// Starts a call, and receives the question. The place is kept for the socket file.
fn asked(more: &[&str]) -> (crate::support::Running, Question, Place) {
    let place = Place::new();
    let listener = Listener::<Question>::bind(place.join("a")).unwrap();
    let mut command = ctl(["call", &place.at("a"), "[12,0]"]);
    command.args(more);
    let running = start(command);
    let (rx, _) = listener.accept_timeout(DEADLINE).unwrap();
    let question = rx.recv_timeout(DEADLINE).unwrap();
    assert_eq!(question.0, 12);
    (running, question, place)
}

fn raw(text: &str, fds: Vec<OwnedFd>) -> Raw {
    Raw::from_parts(text.to_owned(), fds).unwrap()
}

#[test]
fn an_answer_is_printed() {
    let (running, (_, reply), _place) = asked(&[]);
    reply
        .send(raw(r#"{"n":12345678901234567890123}"#, vec![]))
        .unwrap();
    assert_eq!(running.end().done(), "{\"n\":12345678901234567890123}\n");
    assert!(reply.is_disconnected());
}

#[test]
fn answers_are_counted_or_all_printed() {
    let (running, (_, reply), _place) = asked(&["--count", "2"]);
    reply.send(raw("1", vec![])).unwrap();
    assert_eq!(running.line(), "1\n");
    reply.send(raw("2", vec![])).unwrap();
    assert_eq!(running.end().done(), "2\n");

    let (running, (_, reply), _place) = asked(&["--all"]);
    reply.send(raw("1", vec![])).unwrap();
    reply.send(raw("2", vec![])).unwrap();
    drop(reply);
    assert_eq!(running.end().done(), "1\n2\n");

    let (running, (_, reply), _place) = asked(&["--all"]);
    drop(reply);
    assert_eq!(running.end().done(), "");
}

#[test]
fn a_question_that_is_forgotten_is_an_error() {
    let (running, (_, reply), _place) = asked(&[]);
    drop(reply);
    running
        .end()
        .failed(3, "the sender has gone after 0 of 1 messages");

    // In the queue of a listener that accepts nobody.
    let place = Place::new();
    let listener = Listener::<Question>::bind(place.join("a")).unwrap();
    let running = start(ctl(["call", &place.at("a"), "[12,0]"]));
    let (rx, _) = listener.accept_timeout(DEADLINE).unwrap();
    drop((listener, rx));
    let ended = running.end();
    assert_eq!(ended.code(), 3, "{ended:?}");
}

#[test]
fn an_answer_that_does_not_come_is_not_waited_for_too_long() {
    let (running, (_, reply), _place) = asked(&["--timeout", "0.2"]);
    running.end().failed(4, "no message came within 200ms");
    assert!(matches!(
        reply.send(raw("1", vec![])),
        Err(Error::Disconnected)
    ));
}

#[test]
fn descriptors_of_the_question_come_after_the_channel() {
    let place = Place::new();
    let listener = Listener::<Raw>::bind(place.join("a")).unwrap();
    let running = start(ctl(["call", &place.at("a"), "[0,1]", "--fd", "/dev/null"]));
    let (rx, _) = listener.accept_timeout(DEADLINE).unwrap();
    let (_, mut fds) = rx
        .recv_timeout(DEADLINE)
        .unwrap()
        .decode_with_fds::<[u32; 2]>()
        .unwrap();
    assert_eq!(fds.len(), 2);
    std::fs::File::from(fds.pop().unwrap())
        .write_all(b"x")
        .unwrap_err(); // open for reading
    let reply = Sender::<u32>::try_from(fds.pop().unwrap()).unwrap();
    reply.send(7).unwrap();
    assert_eq!(running.end().done(), "7\n");
}

#[test]
fn descriptors_of_an_answer_go_to_a_command() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "content\n").unwrap();
    let open = || OwnedFd::from(std::fs::File::open(file.path()).unwrap());
    let (running, (_, reply), _place) = asked(&["--exec", "cat; cat <&3"]);
    reply.send(raw("0", vec![open()])).unwrap();
    assert_eq!(running.end().done(), "0\ncontent\n");

    let (running, (_, reply), _place) = asked(&[]);
    reply.send(raw("0", vec![open()])).unwrap();
    running.end().failed(7, "message 1: it has 1 descriptor");
}

#[test]
fn a_question_that_is_no_json_bothers_nobody() {
    run(ctl(["call", "/nonexistent", "nope"]), b"").failed(6, "the message: not JSON");
    run(ctl(["call", "/nonexistent", "1"]), b"").failed(1, "nobody listens there");
    run(ctl(["call", "/nonexistent"]), b"").failed(2, "<JSON>");
}
