//! Listeners that several processes share.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use wormhole::{Error, Listener, Receiver, Sender, channel, spawn};

use crate::support::{
    DEADLINE, in_own_process, open_fds, os_error, packet, pipe, place, raw_send, two_way_pair,
};

/// Serves one client, and says who served what.
fn serve(listener: Listener<u32>) -> (u32, u32) {
    let (rx, _peer) = listener.accept_timeout(DEADLINE).unwrap();
    (std::process::id(), rx.recv().unwrap())
}

fn is_refused(path: &Path, kind: io::ErrorKind) -> bool {
    matches!(Sender::<u32>::connect(path), Err(Error::Address { source, .. }) if source.kind() == kind)
}

#[test]
fn workers_share_the_listener_of_a_pre_fork_server() {
    in_own_process(|| {
        let before = open_fds();
        let (_directory, path) = place();
        let listener = Listener::bind(&path).unwrap();
        let workers = [(); 3].map(|()| spawn(listener.clone(), serve).unwrap());
        for number in 0..3 {
            Sender::connect(&path).unwrap().send(number).unwrap();
        }
        let mut served = workers.map(|worker| {
            let pid = worker.pid();
            let (server, number) = worker.join().unwrap();
            assert_eq!(server, pid);
            number
        });
        served.sort();
        assert_eq!(served, [0, 1, 2]);
        // None of them has taken the file with it.
        let _tx = Sender::<u32>::connect(&path).unwrap();
        listener.try_accept().unwrap();
        drop(listener.clone());
        assert!(path.exists());
        drop(listener);
        assert!(!path.exists());
        drop(_tx);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_listener_that_is_given_to_a_child_goes_on_without_its_maker() {
    in_own_process(|| {
        let before = open_fds();
        let (_directory, path) = place();
        let child = spawn(Listener::bind(&path).unwrap(), serve).unwrap();
        assert_eq!(
            open_fds().len(),
            before.len() + 2,
            "the pidfd and the result"
        );
        Sender::connect(&path).unwrap().send(7).unwrap();
        assert_eq!(child.join().unwrap().1, 7);
        assert!(is_refused(&path, io::ErrorKind::ConnectionRefused));
        drop(Listener::<u32>::bind(&path).unwrap());
        assert!(!path.exists());
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_listener_that_is_sent_goes_on_without_its_maker() {
    in_own_process(|| {
        let before = open_fds();
        let (_directory, path) = place();
        let (tx, rx) = channel().unwrap();
        let child = spawn(rx, |rx: Receiver<Listener<u32>>| {
            serve(rx.recv_timeout(DEADLINE).unwrap())
        })
        .unwrap();
        tx.send(Listener::bind(&path).unwrap()).unwrap();
        Sender::connect(&path).unwrap().send(7).unwrap();
        assert_eq!(child.join().unwrap().1, 7);
        assert!(is_refused(&path, io::ErrorKind::ConnectionRefused));
        drop(tx);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_child_has_no_listener_but_those_in_its_arguments() {
    static OTHER: std::sync::Mutex<Option<Listener<u32>>> = std::sync::Mutex::new(None);
    in_own_process(|| {
        let (_directory, path) = place();
        *OTHER.lock().unwrap() = Some(Listener::bind(&path).unwrap());
        let (go, wait) = channel::<()>().unwrap();
        let child = spawn(wait, |wait: Receiver<()>| {
            let other = OTHER.lock().unwrap().take().unwrap();
            let accepted = other.accept();
            assert!(matches!(accepted, Err(Error::Disconnected)), "{accepted:?}");
            drop(other);
            wait.recv_timeout(DEADLINE).unwrap();
        })
        .unwrap();
        // While it lives, nobody listens any more.
        OTHER.lock().unwrap().take().unwrap();
        let listener = Listener::<u32>::bind(&path).unwrap();
        go.send(()).unwrap();
        child.join().unwrap();
        assert!(path.exists());
        drop(listener);
    });
}

#[test]
fn what_does_not_listen_is_refused_in_the_place_of_a_listener() {
    in_own_process(|| {
        let (tx, rx) = channel::<Listener<u32>>().unwrap();
        let before = open_fds();
        let refused = |fd: BorrowedFd<'_>, reason: &str| {
            raw_send(&tx, &packet(b"0"), &[fd]);
            let error = rx.try_recv().unwrap_err();
            assert!(matches!(error, Error::Decode { .. }), "{error}");
            assert!(error.to_string().contains(reason), "{error}");
        };
        let (file, _other) = pipe();
        refused(file.as_fd(), &os_error(nix::Error::ENOTSOCK));
        let (connected, _peer) = two_way_pair();
        refused(connected.as_fd(), "a unix socket that does not listen");

        let (_directory, path) = place();
        let listener = Listener::<u32>::bind(&path).unwrap();
        fcntl(&listener, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        raw_send(&tx, &packet(b"0"), &[listener.as_fd()]);
        let copy = rx.try_recv().unwrap();
        assert!(matches!(copy.try_accept(), Err(Error::Empty)));

        // And the other way round.
        let (tx, rx) = channel::<Sender<u32>>().unwrap();
        raw_send(&tx, &packet(b"0"), &[copy.as_fd()]);
        let error = rx.try_recv().unwrap_err().to_string();
        assert!(
            error.contains("a unix socket that is not connected"),
            "{error}"
        );
        drop((copy, listener, file, _other, connected, _peer, tx, rx));
        assert_eq!(open_fds(), before);
    });
}
