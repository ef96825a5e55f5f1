//! Starting a process copies no memory of this one, however much that is.

use std::process::Command;
use std::sync::mpsc;
use std::thread;

use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};
use wormhole::process::Builder;
use wormhole::{Error, Pool, PoolOptions, spawn, spawn_command, spawn_fresh};

use crate::support::{deny, deny_with, in_own_process, open_fds};

/// Denies this process every call that would copy its memory: a `clone` that does not share it.
#[allow(clippy::useless_conversion, reason = "only where a word has 64 bits")]
fn deny_copies() {
    // The C library uses `clone` instead, whose flags a filter sees.
    deny_with(nix::Error::ENOSYS, [libc::SYS_clone3]);
    #[cfg(target_arch = "x86_64")]
    deny([libc::SYS_fork]);
    let share = u64::try_from(libc::CLONE_VM).unwrap();
    let flags = SeccompCmpOp::MaskedEq(share);
    let copies = SeccompCondition::new(0, SeccompCmpArgLen::Dword, flags, 0).unwrap();
    let rule = SeccompRule::new(vec![copies]).unwrap();
    let filter = SeccompFilter::new(
        [(i64::from(libc::SYS_clone), vec![rule])].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        TargetArch::try_from(std::env::consts::ARCH).unwrap(),
    );
    apply_filter(&BpfProgram::try_from(filter.unwrap()).unwrap()).unwrap();
}

/// A program that ends at once.
fn program() -> Command {
    Command::new("true")
}

fn builder(set: impl FnOnce(&mut Builder) -> &mut Builder) -> Builder {
    let mut builder = Builder::new();
    set(&mut builder);
    builder
}

fn is_denied<T>(result: Result<T, Error>) -> bool {
    let error = result.err().expect("an error");
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        let system = error.downcast_ref::<std::io::Error>();
        if system.and_then(std::io::Error::raw_os_error) == Some(libc::EPERM) {
            return true;
        }
        source = error.source();
    }
    false
}

#[test]
fn starting_a_process_copies_no_memory() {
    in_own_process(|| {
        // Which whatever has started the tests may have set to be ignored.
        for number in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
            // SAFETY: the default action runs no code of this process.
            #[allow(unsafe_code, reason = "no safe way to set an action")]
            unsafe { signal(number, SigHandler::SigDfl) }.unwrap();
        }
        deny_copies();
        let before = open_fds();
        let everything = || {
            assert_eq!(spawn_fresh(20, |n: u32| n + 1).unwrap().join().unwrap(), 21);
            let mut child = spawn_command(program(), ()).unwrap();
            assert!(child.wait().unwrap().success());
            for builder in [
                builder(|builder| builder),
                builder(|builder| builder.only_arguments(true)),
                builder(|builder| builder.reset_signals(true)),
            ] {
                builder
                    .spawn_command(program(), ())
                    .unwrap()
                    .join()
                    .unwrap();
                assert_eq!(
                    builder.spawn_fresh(3, |n: u8| n).unwrap().join().unwrap(),
                    3
                );
            }
            let ends = builder(|builder| builder.end_with_parent(true));
            ends.spawn_fresh((), |()| ()).unwrap().join().unwrap();
            let mut pool = PoolOptions::new(2).fresh().run(|n: u32| n + 1).unwrap();
            assert_eq!(pool.map([1, 2]).filter(|(_, next)| next.is_ok()).count(), 2);
            let pool: Pool<u8, u8> = PoolOptions::new(2).command(program).unwrap();
            drop(pool);
        };
        everything();
        let (waits, wait) = mpsc::channel::<()>();
        let other = thread::spawn(move || wait.recv());
        everything();
        // What has to do something itself before the program begins does copy, so what was said above says something.
        let ends = builder(|builder| builder.end_with_parent(true));
        assert!(is_denied(ends.spawn_command(program(), ())));
        let mut one = SigSet::empty();
        one.add(Signal::SIGUSR1);
        one.thread_block().unwrap();
        let resets = builder(|builder| builder.reset_signals(true));
        assert!(is_denied(resets.spawn_command(program(), ())));
        one.thread_unblock().unwrap();
        drop(waits);
        let _ = other.join();
        assert!(is_denied(spawn((), |()| ())));
        assert_eq!(open_fds(), before);
    });
}
