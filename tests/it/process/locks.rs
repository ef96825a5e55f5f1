//! Which locks on files a child keeps: what the documentation of `process` says.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, fcntl_lock, flock};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use wormhole::process::Builder;
use wormhole::{Child, Error, Receiver, Sender, channel};

use crate::support::{DEADLINE, in_own_process};

#[derive(Serialize, Deserialize)]
struct Opened(#[serde(with = "wormhole::fd")] File);

/// What a child says that it has begun, waits for, and holds meanwhile.
type Args = (Sender<()>, Receiver<()>, Option<Opened>);

fn hold((begun, over, _file): Args) {
    begun.send(()).unwrap();
    let _ = over.recv();
}

/// A program that says that it has begun, and holds whatever it has inherited until its input ends.
fn program() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "echo begun; exec cat"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn is_free(file: &NamedTempFile) -> bool {
    let again = file.reopen().unwrap();
    match flock(&again, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => true,
        Err(rustix::io::Errno::AGAIN) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Locks a file, starts a child, and closes the file here, unless the child was given it. Says whether the lock is free
/// then, while the child runs.
fn is_free_beside(is_given: bool, start: impl FnOnce(Args) -> Result<Child<()>, Error>) -> bool {
    let file = NamedTempFile::new().unwrap();
    let locked = file.reopen().unwrap();
    flock(&locked, FlockOperation::NonBlockingLockExclusive).unwrap();
    assert!(!is_free(&file));
    let (begin, begun) = channel().unwrap();
    let (end, over) = channel().unwrap();
    let (given, kept) = match is_given {
        true => (Some(Opened(locked)), None),
        false => (None, Some(locked)),
    };
    let mut child = start((begin, over, given)).unwrap();
    let stdin = child.take_stdin();
    match child.take_stdout() {
        Some(stdout) => drop(BufReader::new(stdout).lines().next().unwrap()),
        None => begun.recv_timeout(DEADLINE).unwrap(),
    }
    drop(kept);
    let was_free = is_free(&file);
    drop((end, stdin));
    child.join_timeout(DEADLINE).unwrap();
    assert!(is_free(&file), "after the child has ended");
    was_free
}

#[test]
fn a_lock_stays_with_the_children_that_have_the_file() {
    in_own_process(|| {
        let plain = Builder::new();
        let mut bare = Builder::new();
        bare.only_arguments(true);
        // A fork has all that is open, unless it is told otherwise.
        assert!(!is_free_beside(false, |args| plain.spawn(args, hold)));
        assert!(is_free_beside(false, |args| bare.spawn(args, hold)));
        assert!(is_free_beside(false, |args| plain.spawn_fresh(args, hold)));
        assert!(is_free_beside(false, |args| plain.spawn_command(program(), args)));
        // What is given away goes with its lock.
        assert!(!is_free_beside(true, |args| plain.spawn(args, hold)));
        assert!(!is_free_beside(true, |args| bare.spawn(args, hold)));
        assert!(!is_free_beside(true, |args| plain.spawn_fresh(args, hold)));
        // To a program that does not take it as well: it lies in its channel.
        assert!(!is_free_beside(true, |args| plain.spawn_command(program(), args)));
    });
}

#[test]
fn a_record_lock_stays_with_this_process_until_it_gives_the_file_away() {
    fn can_lock(Opened(file): Opened) -> bool {
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
    }
    fn can_lock_by_name(path: PathBuf) -> bool {
        can_lock(Opened(File::options().write(true).open(path).unwrap()))
    }
    in_own_process(|| {
        let file = NamedTempFile::new().unwrap();
        let locked = file.reopen().unwrap();
        fcntl_lock(&locked, FlockOperation::NonBlockingLockExclusive).unwrap();
        let path = file.path().to_owned();
        let builder = Builder::new();
        assert!(
            !builder
                .spawn(path.clone(), can_lock_by_name)
                .unwrap()
                .join()
                .unwrap()
        );
        assert!(
            !builder
                .spawn_fresh(path, can_lock_by_name)
                .unwrap()
                .join()
                .unwrap()
        );
        // Closed here, and with it goes the lock.
        assert!(
            builder
                .spawn(Opened(locked), can_lock)
                .unwrap()
                .join()
                .unwrap()
        );
    });
}
