//! The published tiny-nix-ipc at the other end, in both directions, byte for byte.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use serde::{Deserialize, Serialize};
use tiny_nix_ipc::Socket;
use wormhole::{Receiver, Sender, channel};

use crate::support::{in_own_process, open_fds};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct TestMessage {
    a: u32,
    b: String,
    c: Vec<u8>,
}

fn messages() -> Vec<TestMessage> {
    let message = |b: &str, c| TestMessage {
        a: 1776,
        b: b.to_owned(),
        c,
    };
    vec![
        message("hello world!", vec![5, 4, 3, 2, 1]),
        message("", vec![]),
        message("\u{1f980} \" \\ \u{0}", vec![0, 255]),
        message(&"x".repeat(100_000), vec![7; 1000]),
    ]
}

/// tiny-nix-ipc on one end of a channel.
#[allow(unsafe_code, reason = "tiny-nix-ipc takes over descriptors as numbers")]
fn foreign(end: OwnedFd) -> Socket {
    // SAFETY: the number comes from an owned descriptor, which is given up here.
    unsafe { Socket::from_raw_fd(end.into_raw_fd()) }
}

#[allow(
    unsafe_code,
    reason = "tiny-nix-ipc hands out received descriptors as numbers"
)]
fn file(received: RawFd) -> File {
    // SAFETY: the kernel has made this descriptor for this process, and nothing else owns it.
    unsafe { File::from_raw_fd(received) }
}

fn scratch(contents: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(contents.as_bytes()).unwrap();
    file
}

fn contents(mut file: File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn tiny_nix_ipc_receives_what_wormhole_sends() {
    in_own_process(|| {
        let before = open_fds();
        let (tx, rx) = channel::<TestMessage>().unwrap();
        let mut peer = foreign(OwnedFd::try_from(rx).unwrap());
        for message in messages() {
            tx.by_ref().send(&message).unwrap();
            let (received, fds) = peer.recv_json::<TestMessage, [RawFd; 0]>(200_000).unwrap();
            assert_eq!((received, fds), (message.clone(), None));

            let (one, two) = (scratch("one"), scratch("two"));
            tx.by_ref()
                .send_with_fds(&message, &[one.as_fd(), two.as_fd()])
                .unwrap();
            let (received, fds) = peer.recv_json::<TestMessage, [RawFd; 2]>(200_000).unwrap();
            assert_eq!(received, message);
            let fds = fds.unwrap().map(file).map(contents);
            assert_eq!(fds, ["one", "two"]);
        }
        drop((tx, peer));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn wormhole_receives_what_tiny_nix_ipc_sends() {
    in_own_process(|| {
        let before = open_fds();
        let (tx, rx) = channel::<TestMessage>().unwrap();
        let mut peer = foreign(OwnedFd::try_from(tx).unwrap());
        for message in messages() {
            peer.send_json(&message, None).unwrap();
            assert_eq!(rx.recv().unwrap(), message);

            let (one, two) = (scratch("one"), scratch("two"));
            let fds = [one.as_raw_fd(), two.as_raw_fd()];
            peer.send_json(&message, Some(&fds)).unwrap();
            let (received, fds) = rx.recv_with_fds().unwrap();
            assert_eq!(received, message);
            let fds: Vec<String> = fds.into_iter().map(File::from).map(contents).collect();
            assert_eq!(fds, ["one", "two"]);
        }
        drop((rx, peer));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn both_put_the_same_bytes_on_the_wire() {
    in_own_process(|| {
        for message in messages() {
            let (tx, rx) = channel::<TestMessage>().unwrap();
            tx.by_ref().send(&message).unwrap();
            let mut peer = foreign(OwnedFd::try_from(tx).unwrap());
            peer.send_json(&message, None).unwrap();
            let mut rx = foreign(OwnedFd::try_from(rx).unwrap());
            let (len, ours, _) = rx.recv_into_buf::<[RawFd; 0]>(200_000).unwrap();
            let (peers_len, theirs, _) = rx.recv_into_buf::<[RawFd; 0]>(200_000).unwrap();
            assert_eq!(ours[..len], theirs[..peers_len]);
        }
    });
}

#[test]
fn a_socket_pair_that_tiny_nix_ipc_made_carries_both_directions() {
    in_own_process(|| {
        let (mut near, far) = Socket::new_socketpair().unwrap();
        let far = file(far.into_raw_fd());
        // One descriptor, both verbs: what a two-way socket allows although a channel is one-way.
        let tx = Sender::<TestMessage>::try_from(OwnedFd::from(far.try_clone().unwrap())).unwrap();
        let rx = Receiver::<TestMessage>::try_from(OwnedFd::from(far)).unwrap();
        for message in messages() {
            near.send_json(&message, None).unwrap();
            let echo = rx.recv().unwrap();
            tx.send(echo).unwrap();
            let (received, _) = near.recv_json::<TestMessage, [RawFd; 0]>(200_000).unwrap();
            assert_eq!(received, message);
        }
    });
}
