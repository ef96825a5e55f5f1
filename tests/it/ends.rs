//! Ends as descriptors, and ends as messages.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use wormhole::{Error, Receiver, Sender, channel};

use crate::support::{in_own_process, open_fds, os_error, two_way_pair};

fn refusal(fd: impl Into<OwnedFd>) -> String {
    let fd = fd.into();
    let as_receiver = Receiver::<u8>::try_from(fd.try_clone().unwrap()).unwrap_err();
    let as_sender = Sender::<u8>::try_from(fd).unwrap_err();
    assert_eq!(as_receiver.to_string(), as_sender.to_string());
    match as_sender {
        Error::NotAChannel { reason } => reason,
        error => panic!("{error:?}"),
    }
}

#[test]
fn ends_are_checked_when_made_from_descriptors() {
    in_own_process(|| {
        let before = open_fds();
        assert_eq!(
            refusal(File::open("/dev/null").unwrap()),
            os_error(nix::Error::ENOTSOCK)
        );
        assert_eq!(
            refusal(UnixStream::pair().unwrap().0),
            "a unix socket of type 1, not SOCK_SEQPACKET"
        );
        assert_eq!(
            refusal(UnixDatagram::pair().unwrap().0),
            "a unix socket of type 2, not SOCK_SEQPACKET"
        );
        assert_eq!(
            refusal(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()),
            "a socket of family 2, not AF_UNIX"
        );
        let lone = || {
            let kind = SockType::SeqPacket;
            socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap()
        };
        assert_eq!(refusal(lone()), "a unix socket that is not connected");
        let listening = lone();
        bind(listening.as_raw_fd(), &UnixAddr::new_unnamed()).unwrap();
        listen(&listening, Backlog::new(1).unwrap()).unwrap();
        assert_eq!(refusal(listening), "a unix socket that is not connected");
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn an_end_made_from_a_descriptor_works_even_if_its_peer_has_closed() {
    in_own_process(|| {
        let (a, b) = two_way_pair();
        let tx = Sender::<u8>::try_from(a).unwrap();
        tx.send(7).unwrap();
        drop(tx);
        let rx = Receiver::<u8>::try_from(b).unwrap();
        assert_eq!(rx.recv().unwrap(), 7);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    });
}

#[test]
fn ends_turn_into_descriptors_and_back() {
    in_own_process(|| {
        let before = open_fds();
        let (tx, rx) = channel::<u8>().unwrap();
        let number = tx.as_fd().as_raw_fd();

        let alone = OwnedFd::try_from(tx).unwrap();
        assert_eq!(alone.as_raw_fd(), number); // the descriptor itself, not a duplicate
        let tx = Sender::<u8>::try_from(alone).unwrap();

        let other = tx.clone();
        let shared = OwnedFd::try_from(tx).unwrap();
        assert_ne!(shared.as_raw_fd(), number);
        other.send(1).unwrap();
        Sender::<u8>::try_from(shared).unwrap().send(2).unwrap();

        let rx = Receiver::<u8>::try_from(OwnedFd::try_from(rx).unwrap()).unwrap();
        assert_eq!(rx.recv().unwrap() + rx.recv().unwrap(), 3);
        drop((other, rx));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_clone_costs_no_descriptor() {
    in_own_process(|| {
        let (tx, rx) = channel::<u8>().unwrap();
        let before = open_fds();
        let clones: Vec<_> = (0..1000).map(|_| (tx.clone(), rx.clone())).collect();
        assert_eq!(open_fds(), before);
        drop((tx, rx));
        assert_eq!(open_fds(), before);
        drop(clones);
        assert_eq!(open_fds().len(), before.len() - 2);
    });
}

#[test]
fn a_sender_can_be_the_message() {
    in_own_process(|| {
        let (tx, rx) = channel::<Sender<u32>>().unwrap();
        let (inner_tx, inner_rx) = channel::<u32>().unwrap();
        tx.send(inner_tx).unwrap();
        rx.recv().unwrap().send(5).unwrap();
        assert_eq!(inner_rx.recv().unwrap(), 5);
        assert!(matches!(inner_rx.recv(), Err(Error::Disconnected)));
    });
}

#[test]
fn a_receiver_can_be_the_message() {
    in_own_process(|| {
        let (tx, rx) = channel::<Receiver<u32>>().unwrap();
        let (inner_tx, inner_rx) = channel::<u32>().unwrap();
        inner_tx.send(5).unwrap();
        tx.send(inner_rx).unwrap();
        let inner_rx = rx.recv().unwrap();
        assert_eq!(inner_rx.recv().unwrap(), 5);
        drop(inner_rx);
        assert!(matches!(inner_tx.send(6), Err(Error::Disconnected)));
    });
}

#[test]
fn an_end_in_flight_keeps_its_channel_connected() {
    in_own_process(|| {
        let (tx, rx) = channel::<Sender<u32>>().unwrap();
        let (inner_tx, inner_rx) = channel::<u32>().unwrap();
        tx.send(inner_tx).unwrap();
        assert!(matches!(inner_rx.try_recv(), Err(Error::Empty)));
        drop(rx); // the message dies with its last receiver, and so does the end in it
        assert!(matches!(inner_rx.recv(), Err(Error::Disconnected)));
    });
}

#[test]
fn a_channel_can_carry_its_own_ends() {
    in_own_process(|| {
        // A letter that says where the next one comes from.
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Letter {
            text: String,
            next: Option<Receiver<Letter>>,
        }
        let (tx, rx) = channel::<Letter>().unwrap();
        let (next_tx, next_rx) = channel::<Letter>().unwrap();
        let letter = |text: &str, next| Letter {
            text: text.to_owned(),
            next,
        };
        next_tx.send(letter("second", None)).unwrap();
        tx.send(letter("first", Some(next_rx))).unwrap();
        let first = rx.recv().unwrap();
        assert_eq!(first.text, "first");
        assert_eq!(first.next.unwrap().recv().unwrap().text, "second");
    });
}

#[test]
fn an_end_of_the_wrong_kind_is_refused_as_a_field() {
    in_own_process(|| {
        #[derive(Debug, serde::Serialize, serde::Deserialize)]
        struct Fd(#[serde(with = "wormhole::fd")] File);
        let (tx, rx) = channel::<Sender<u32>>().unwrap();
        let files = Sender::<Fd>::try_from(tx.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let before = open_fds();
        files.send(Fd(File::open("/dev/null").unwrap())).unwrap();
        let error = rx.recv().unwrap_err();
        assert!(matches!(error, Error::Decode { .. }));
        assert!(
            error.to_string().contains("not an end of a channel"),
            "{error}"
        );
        assert_eq!(open_fds(), before);
    });
}
