//! Sockets of the wrong direction, and listeners that are given away or come from elsewhere.

use std::collections::HashMap;
use std::fmt;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigHandler, Signal, signal};
use wormhole::{Error, Listener, Receiver, Sender, channel, spawn, spawn_command};

use crate::support::{in_own_process, open_fds, packet, raw_send, two_way_pair};

fn reason<T: fmt::Debug>(adopted: Result<T, Error>) -> String {
    match adopted.unwrap_err() {
        Error::NotAChannel { reason } => reason,
        error => panic!("{error}"),
    }
}

#[test]
fn an_end_of_the_other_direction_is_refused() {
    in_own_process(|| {
        let before = open_fds();
        let (tx, rx) = channel::<u8>().unwrap();
        let fd = OwnedFd::try_from(tx.clone()).unwrap();
        let text = "it is the sending end of a channel, not the receiving one";
        assert_eq!(reason(Receiver::<u8>::try_from(fd)), text);
        let fd = OwnedFd::try_from(rx.clone()).unwrap();
        let text = "it is the receiving end of a channel, not the sending one";
        assert_eq!(reason(Sender::<u8>::try_from(fd)), text);
        // Full, too: it is not about room.
        while tx.try_send(0).is_ok() {}
        let fd = OwnedFd::try_from(tx.clone()).unwrap();
        assert!(Receiver::<u8>::try_from(fd).is_err());
        let fd = OwnedFd::try_from(rx.clone()).unwrap();
        assert!(Sender::<u8>::try_from(fd).is_err());
        let nothing_else = rx.try_iter().all(|message| message.unwrap() == 0);
        assert!(nothing_else, "to ask sends nothing");

        let sender = Sender::<u8>::try_from(OwnedFd::try_from(tx.clone()).unwrap()).unwrap();
        sender.send(1).unwrap();
        let fd = OwnedFd::try_from(rx.clone()).unwrap();
        let receiver = Receiver::<u8>::try_from(fd).unwrap();
        assert_eq!(receiver.recv().unwrap(), 1);
        drop((tx, rx, sender, receiver));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn an_end_of_the_other_direction_in_a_message_is_a_decode_error() {
    let (tx, rx) = channel::<Receiver<u8>>().unwrap();
    let (sender, receiver) = channel::<u8>().unwrap();
    tx.clone()
        .cast::<Sender<u8>>()
        .send(sender.clone())
        .unwrap();
    tx.send(receiver.clone()).unwrap();
    let error = rx.recv().unwrap_err();
    assert!(
        error.to_string().contains("it is the sending end"),
        "{error}"
    );
    let got = rx.recv().unwrap();
    sender.send(4).unwrap();
    assert_eq!(
        got.recv().unwrap(),
        4,
        "in sync, and the channel is unharmed"
    );

    let (tx, rx) = channel::<Sender<u8>>().unwrap();
    tx.cast::<Receiver<u8>>().send(receiver).unwrap();
    let error = rx.recv().unwrap_err();
    assert!(
        error.to_string().contains("it is the receiving end"),
        "{error}"
    );
}

#[test]
fn both_sides_of_a_foreign_two_way_pair_can_be_either_end() {
    let (one, other) = two_way_pair();
    let tx = Sender::<u8>::try_from(one.try_clone().unwrap()).unwrap();
    let rx = Receiver::<u8>::try_from(other.try_clone().unwrap()).unwrap();
    tx.send(1).unwrap();
    assert_eq!(rx.recv().unwrap(), 1);
    let tx = Sender::<u8>::try_from(other).unwrap();
    let rx = Receiver::<u8>::try_from(one).unwrap();
    tx.send(2).unwrap();
    assert_eq!(rx.recv().unwrap(), 2);
    raw_send(&tx, &packet(b"3"), &[]);
    assert_eq!(rx.recv().unwrap(), 3);
}

#[test]
fn an_end_whose_peer_is_gone_is_taken_for_what_is_asked() {
    in_own_process(|| {
        let (tx, rx) = channel::<u8>().unwrap();
        tx.send(1).unwrap();
        drop(tx);
        let rx = Receiver::<u8>::try_from(OwnedFd::try_from(rx).unwrap()).unwrap();
        assert_eq!(rx.recv().unwrap(), 1);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        let (tx, rx) = channel::<u8>().unwrap();
        drop(rx);
        let tx = Sender::<u8>::try_from(OwnedFd::try_from(tx).unwrap()).unwrap();
        assert!(matches!(tx.send(1), Err(Error::Disconnected)));
    });
}

#[test]
fn a_listener_that_was_given_away_in_vain_removes_its_file() {
    in_own_process(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server");

        let listener = Listener::<u8>::bind(&path).unwrap();
        let (tx, rx) = channel::<Listener<u8>>().unwrap();
        drop(rx);
        let sent = tx.by_ref().send(&listener);
        assert!(matches!(sent, Err(Error::Disconnected)));
        drop(listener);
        assert!(!path.exists(), "the send has failed");

        let listener = Listener::<u8>::bind(&path).unwrap();
        assert!(serde_json::to_string(&listener).is_err());
        drop(listener);
        assert!(!path.exists(), "serde_json sends nothing");

        let program = || Command::new("/does/not/exist");
        assert!(spawn_command(program(), Listener::<u8>::bind(&path).unwrap()).is_err());
        assert!(!path.exists(), "there is no such program");

        let listener = Listener::<u8>::bind(&path).unwrap();
        let refused = spawn((listener, HashMap::from([((), ())])), |_| ());
        assert!(matches!(refused, Err(Error::Encode { .. })));
        assert!(!path.exists(), "no child was started");

        let (tx, rx) = channel::<Listener<u8>>().unwrap();
        tx.send(Listener::bind(&path).unwrap()).unwrap();
        assert!(path.exists(), "it is on its way");
        let listener = rx.recv().unwrap();
        Sender::connect(&path).unwrap().send(5).unwrap();
        assert_eq!(listener.accept().unwrap().0.recv().unwrap(), 5);
    });
}

#[test]
fn to_ask_for_the_direction_neither_waits_nor_signals() {
    in_own_process(|| {
        let (ours, _theirs) = two_way_pair();
        let duplicate = ours.try_clone().unwrap();
        let tx: Sender<u8> = ours.try_into().unwrap();
        while tx.try_send(1).is_ok() {}
        let again: Sender<u8> = duplicate.try_into().unwrap();
        assert!(matches!(again.try_send(1), Err(Error::Full)));

        // SAFETY: no handler is installed.
        #[allow(unsafe_code, reason = "no safe way to change the action of a signal")]
        unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.unwrap();
        let (_tx, rx) = channel::<u8>().unwrap();
        assert!(Sender::<u8>::try_from(OwnedFd::try_from(rx).unwrap()).is_err());
    });
}

#[test]
fn a_listening_socket_from_elsewhere_is_taken_over_even_if_it_blocks() {
    in_own_process(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server");
        let ours = Listener::<u8>::bind(&path).unwrap();
        let fd = OwnedFd::try_from(ours).unwrap();
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        let listener = Listener::<u8>::try_from(fd).unwrap();
        assert!(matches!(listener.try_accept(), Err(Error::Empty)));
        let late = listener.accept_timeout(Duration::from_millis(5));
        assert!(matches!(late, Err(Error::TimedOut { .. })));
        Sender::connect(&path).unwrap().send(5).unwrap();
        assert_eq!(listener.accept().unwrap().0.recv().unwrap(), 5);
        drop(listener);
        assert!(path.exists(), "the file is not ours");
        let error = Sender::<u8>::connect(&path).unwrap_err();
        let refused = ErrorKind::ConnectionRefused;
        assert!(matches!(error, Error::Address { source, .. } if source.kind() == refused));
    });
}

#[test]
fn a_name_that_begins_with_an_at_sign_is_a_path() {
    in_own_process(|| {
        let directory = tempfile::tempdir().unwrap();
        std::env::set_current_dir(directory.path()).unwrap();
        let listener = Listener::<u8>::bind("@server").unwrap();
        assert!(directory.path().join("@server").exists());
        Sender::connect("@server").unwrap().send(1).unwrap();
        assert_eq!(listener.accept().unwrap().0.recv().unwrap(), 1);
        let error = Sender::<u8>::connect("\0server").unwrap_err();
        assert_eq!(error.to_string(), r"cannot connect to `\0server`");
    });
}
