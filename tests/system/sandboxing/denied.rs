//! What a sandbox gets that denies system calls.

use std::io;
use std::os::fd::AsFd;

use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::getppid;
use wormhole::{Blob, Error, Listener, Options, Receiver, channel, spawn};

use crate::support::{deny, deny_with, forked, in_own_process, open_fds, until_asleep};

/// Longer than any packet.
fn long() -> String {
    "x".repeat(300_000)
}

/// The text of an error and of its source.
fn told<T>(result: Result<T, Error>) -> (String, io::ErrorKind) {
    match result.err().unwrap() {
        Error::Io { operation, source } => (operation.to_owned(), source.kind()),
        error => panic!("{error:?}"),
    }
}

#[test]
fn a_long_message_says_that_it_needs_memfd_create() {
    in_own_process(|| {
        use io::ErrorKind::{PermissionDenied, Unsupported};
        for (errno, kind) in [
            (nix::Error::EPERM, PermissionDenied),
            (nix::Error::ENOSYS, Unsupported),
        ] {
            let (tx, rx) = channel::<String>().unwrap();
            forked(|| {
                let before = open_fds();
                deny_with(errno, [libc::SYS_memfd_create]);
                let error = tx.send(long()).unwrap_err();
                assert_eq!(
                    error.to_string(),
                    "cannot create the memfd (memfd_create) that a long message needs"
                );
                assert_eq!(told::<()>(Err(error)).1, kind);
                let error = Blob::from_bytes(b"some").unwrap_err();
                assert_eq!(
                    error.to_string(),
                    "cannot create the memfd (memfd_create) of a blob"
                );
                // What fits a packet does not need it.
                tx.send("x".repeat(200_000)).unwrap();
                assert_eq!(rx.recv().unwrap().len(), 200_000);
                let (tx, rx) = Options::new().buffer(131_088).channel::<String>().unwrap();
                let longest = "x".repeat(262_136 - 2); // two quotes
                tx.by_ref().send(&longest).unwrap();
                assert!(rx.recv().unwrap() == longest);
                assert!(tx.send(longest + "x").is_err());
                drop((tx, rx));
                assert_eq!(open_fds(), before);
            })
            .join();
        }
    });
}

#[test]
fn a_sandbox_that_denies_prlimit64_gets_an_error() {
    in_own_process(|| {
        let (tx, rx) = channel::<String>().unwrap();
        let before = open_fds();
        deny([libc::SYS_prlimit64]);
        for result in [tx.send(long()), Blob::from_bytes(&[1]).map(drop)] {
            let (operation, kind) = told(result);
            assert_eq!(operation, "look up the limit of file sizes (prlimit64)");
            assert_eq!(kind, io::ErrorKind::PermissionDenied);
        }
        tx.send("short".to_owned()).unwrap();
        assert_eq!(rx.recv().unwrap(), "short");
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_denied_look_at_a_descriptor_is_not_mistaken_for_a_wrong_one() {
    in_own_process(|| {
        let (tx, rx) = channel::<String>().unwrap();
        let (blobs, blob) = channel::<Blob>().unwrap();
        tx.send(long()).unwrap();
        blobs.send(Blob::from_bytes(b"some").unwrap()).unwrap();
        let fd = rx.as_fd().try_clone_to_owned().unwrap();
        deny([libc::SYS_fcntl, libc::SYS_getsockopt]);
        let operation = "read a long message from its memfd";
        assert_eq!(
            told(rx.recv()),
            (operation.to_owned(), io::ErrorKind::PermissionDenied)
        );
        tx.send("short".to_owned()).unwrap();
        assert_eq!(rx.recv().unwrap(), "short");
        let error = blob.recv().unwrap_err().to_string();
        assert!(error.contains("cannot map a blob"), "{error}");
        let adopted = Receiver::<u8>::try_from(fd);
        assert_eq!(told(adopted).0, "look up the type of a socket");
    });
}

#[test]
fn a_listener_that_cannot_look_at_its_file_leaves_none() {
    in_own_process(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        forked(|| {
            #[cfg(target_arch = "x86_64")]
            deny([libc::SYS_lstat, libc::SYS_stat]);
            deny([libc::SYS_statx, libc::SYS_newfstatat]);
            let error = Listener::<u8>::bind(&path).unwrap_err();
            assert!(matches!(error, Error::Address { .. }), "{error}");
        })
        .join();
        assert!(!path.exists());
        Listener::<u8>::bind(&path).unwrap();
    });
}

#[test]
fn a_kernel_that_takes_no_packet_at_all_is_an_error_and_no_hang() {
    in_own_process(|| {
        let (tx, _rx) = channel::<String>().unwrap();
        let before = open_fds();
        deny_with(nix::Error::EMSGSIZE, [libc::SYS_sendto, libc::SYS_sendmsg]);
        for message in ["short".to_owned(), long()] {
            assert_eq!(told(tx.by_ref().send(&message)).0, "send a message");
            assert_eq!(told(tx.by_ref().try_send(&message)).0, "send a message");
        }
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn sandboxes_that_deny_poll_can_send_and_receive() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let (done, wait_for_done) = channel::<()>().unwrap();
        // KERNEL: with RLIMIT_NOFILE 0, poll(2) of even one descriptor is EINVAL.
        let no_poll = || setrlimit(Resource::RLIMIT_NOFILE, 0, 0).unwrap();
        let no_calls = || {
            let calls = nix::libc::SYS_ppoll;
            crate::support::deny([calls, nix::libc::SYS_ioctl, nix::libc::SYS_getsockopt]);
        };
        let sandboxes: [&dyn Fn(); 2] = [&no_poll, &no_calls];
        for sandbox in sandboxes {
            while tx.try_send(1).is_ok() {}
            let sender = forked(|| {
                sandbox();
                tx.send(2).unwrap();
                done.send(()).unwrap();
            });
            until_asleep(sender.pid);
            let found = rx.iter().map(Result::unwrap).find(|&number| number == 2);
            assert_eq!(found, Some(2));
            wait_for_done.recv().unwrap();
            sender.join();
            let (tx, rx) = channel::<u32>().unwrap();
            let mut tx = Some(tx);
            let receiver = forked(|| {
                tx = None;
                sandbox();
                assert_eq!(rx.iter().map(Result::unwrap).sum::<u32>(), 3);
            });
            let tx = tx.unwrap();
            tx.send(1).unwrap();
            tx.send(2).unwrap();
            drop(tx);
            receiver.join();
        }
    });
}

#[test]
fn sandboxes_that_deny_poll_can_join_their_children() {
    in_own_process(|| {
        let (go, wait) = channel::<u32>().unwrap();
        let mut child = spawn(wait, |wait: Receiver<u32>| wait.recv().unwrap()).unwrap();
        deny([libc::SYS_ppoll]);
        // That it still runs is known without waiting for it.
        assert_eq!(child.try_join().unwrap(), None);
        let waits = forked(|| {
            until_asleep(getppid());
            go.send(5).unwrap();
        });
        assert_eq!(child.join().unwrap(), 5);
        waits.join();
    });
}
