//! Namespaces and Landlock, which restrict names: channels have none.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use wormhole::{Blob, Error, Listener, Receiver, Sender, channel};

use crate::support::{forked, in_own_process};

type Message = (String, Option<Blob>);

fn long() -> Message {
    (
        "x".repeat(300_000),
        Some(Blob::from_bytes(b"some").unwrap()),
    )
}

/// Whatever can go through a channel does: through one from before, to and from another process, and through a
/// new one.
fn channels_work(tx: &Sender<Message>, echoed: &Receiver<Message>) {
    tx.send(("short".to_owned(), None)).unwrap();
    assert_eq!(echoed.recv().unwrap().0, "short");
    tx.send(long()).unwrap();
    assert!(echoed.recv().unwrap() == long());
    let (tx, rx) = channel::<Message>().unwrap();
    tx.send_with_fds(long(), &[rx.as_fd()]).unwrap();
    let (message, fds) = rx.recv_with_fds().unwrap();
    assert!(message == long() && fds.len() == 1);
}

/// Runs `confine` in a process, and then checks that a channel to another one works there as before. `confine`
/// says whether it is possible here.
fn works_where(confine: impl FnOnce() -> bool) {
    let (tx, rx) = channel::<Message>().unwrap();
    let (echo, echoed) = channel::<Message>().unwrap();
    let mut ours = Some((tx, echoed));
    let echoing = forked(|| {
        ours = None;
        rx.iter()
            .for_each(|message| echo.send(message.unwrap()).unwrap());
    });
    drop((rx, echo));
    let (tx, echoed) = ours.unwrap();
    channels_work(&tx, &echoed);
    if confine() {
        channels_work(&tx, &echoed);
    }
    drop(tx);
    echoing.join();
}

#[test]
fn a_channel_reaches_into_other_namespaces() {
    in_own_process(|| {
        works_where(|| {
            let all = CloneFlags::CLONE_NEWUSER
                | CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWIPC
                | CloneFlags::CLONE_NEWUTS;
            if let Err(error) = unshare(all) {
                eprintln!("skipped: namespaces are denied: {error}");
                return false;
            }
            true
        });
    });
}

#[test]
fn an_abstract_name_belongs_to_the_network_namespace() {
    in_own_process(|| {
        let name = format!("\0wormhole confined {}", std::process::id());
        let _listener = Listener::<u8>::bind(&name).unwrap();
        Sender::<u8>::connect(&name).unwrap();
        if let Err(error) = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: namespaces are denied: {error}");
            return;
        }
        let error = Sender::<u8>::connect(&name).unwrap_err();
        assert!(matches!(error, Error::Address { source, .. }
            if source.kind() == std::io::ErrorKind::ConnectionRefused));
    });
}

/// linux/landlock.h
#[repr(C)]
struct Ruleset {
    fs: u64,
    net: u64,
    scoped: u64,
}

/// Denies everything that version 6 of Landlock can deny to this process, or says that it cannot.
fn landlocked() -> bool {
    const VERSION: libc::c_int = 1;
    let null = std::ptr::null::<Ruleset>();
    // SAFETY: asks for the version; nothing is read through the pointer.
    #[allow(unsafe_code, reason = "no crate for Landlock is needed for one test")]
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, null, 0, VERSION) };
    if version < 6 {
        eprintln!("skipped: this kernel has version {version} of Landlock");
        return false;
    }
    let all = Ruleset {
        fs: (1 << 16) - 1,
        net: 3,
        scoped: 3,
    };
    let size = size_of::<Ruleset>();
    // SAFETY: the pointer is to a ruleset of that size.
    #[allow(unsafe_code, reason = "no crate for Landlock is needed for one test")]
    let ruleset =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const all, size, 0) };
    assert!(ruleset >= 0, "{}", std::io::Error::last_os_error());
    let number = i32::try_from(ruleset).unwrap();
    // SAFETY: it has just been opened, and nobody else knows it.
    #[allow(unsafe_code, reason = "no crate for Landlock is needed for one test")]
    let _ruleset = unsafe { OwnedFd::from_raw_fd(number) };
    nix::sys::prctl::set_no_new_privs().unwrap();
    // SAFETY: takes two numbers.
    #[allow(unsafe_code, reason = "no crate for Landlock is needed for one test")]
    let status = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, number, 0) };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
    true
}

#[test]
fn landlock_has_no_effect_on_channels_and_denies_names() {
    in_own_process(|| {
        let directory = tempfile::tempdir().unwrap();
        let name = format!("\0wormhole confined {}", std::process::id());
        let _listener = Listener::<u8>::bind(&name).unwrap();
        Sender::<u8>::connect(&name).unwrap();
        let child = forked(|| {
            works_where(|| {
                if !landlocked() {
                    return false;
                }
                assert!(std::fs::File::open("/dev/null").is_err());
                let is_denied = |error| {
                    matches!(error, Error::Address { source, .. }
                    if source.kind() == std::io::ErrorKind::PermissionDenied)
                };
                let path = directory.path().join("socket");
                assert!(is_denied(Listener::<u8>::bind(path).unwrap_err()));
                // From before it was confined: a stranger.
                assert!(is_denied(Sender::<u8>::connect(&name).unwrap_err()));
                true
            });
        });
        child.join();
    });
}
