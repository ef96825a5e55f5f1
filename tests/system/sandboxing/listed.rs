//! The system calls that `docs/sandboxing.md` lists are all that are made, and all of them are made.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

#[cfg(any(feature = "tokio", feature = "async-io"))]
use futures_util::future::join;
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};
use serde::{Deserialize, Serialize};
use wormhole::{
    Blob, Error, JobError, Listener, Options, PoolOptions, ReceiverSet, Sender, channel, inherit,
    select, spawn, spawn_fresh,
};

use crate::support::{ends_within, forked, in_own_process};

const SHORT: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(60);

/// A row of a table: calls that stand for each other, such as "fcntl(F_GETFD)".
type Row = Vec<String>;

/// The rows under a heading of the document, of the first table or of all.
fn rows(text: &str) -> Vec<Row> {
    text.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let first = line.split('|').nth(1).unwrap();
            let calls = first.split(',').map(|call| call.trim().trim_matches('`'));
            calls.map(str::to_owned).collect()
        })
        .collect()
}

struct Document {
    channels: Vec<Row>,
    others: Vec<Row>,
    parts: BTreeMap<String, Vec<Row>>,
}

fn document() -> Document {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sandboxing.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, text) = text.split_once("\n## Channels\n").unwrap();
    let (base, text) = text.split_once("\n## What each part adds\n").unwrap();
    let (parts, _) = text
        .split_once("\n## Where something is refused\n")
        .unwrap();
    let (channels, others) = base.split_once("\nBeside these,").unwrap();
    let parts = parts.split("\n### ").skip(1).map(|part| {
        let (name, text) = part.split_once('\n').unwrap();
        (name.to_owned(), rows(text))
    });
    Document {
        channels: rows(channels),
        others: rows(others),
        parts: parts.collect(),
    }
}

/// The number of a call, and of what it is asked for, if that matters.
fn number(call: &str) -> Option<(i64, Option<u64>)> {
    let (call, what) = call.split_once('(').unwrap_or((call, ""));
    let what = match what.trim_end_matches(')') {
        "" => None,
        // C libraries have it in different types.
        #[allow(clippy::unnecessary_cast, reason = "only with glibc")]
        "FIONREAD" => Some(libc::FIONREAD as u64),
        #[allow(clippy::unnecessary_cast, reason = "only with glibc")]
        "FIONBIO" => Some(libc::FIONBIO as u64),
        #[allow(clippy::unnecessary_cast, reason = "only with glibc")]
        "TIOCOUTQ" => Some(libc::TIOCOUTQ as u64),
        "F_GETFD" => Some(libc::F_GETFD as u64),
        "F_GETFL" => Some(libc::F_GETFL as u64),
        "F_SETFD" => Some(libc::F_SETFD as u64),
        "F_DUPFD_CLOEXEC" => Some(libc::F_DUPFD_CLOEXEC as u64),
        "F_ADD_SEALS" => Some(libc::F_ADD_SEALS as u64),
        "F_GET_SEALS" => Some(libc::F_GET_SEALS as u64),
        what => panic!("{call}({what}): which number is that?"),
    };
    let number = match call {
        #[cfg(target_arch = "x86_64")]
        "open" => libc::SYS_open,
        #[cfg(target_arch = "x86_64")]
        "unlink" => libc::SYS_unlink,
        #[cfg(not(target_arch = "x86_64"))]
        "open" => return None,
        #[cfg(not(target_arch = "x86_64"))]
        "unlink" => libc::SYS_unlinkat,
        #[cfg(target_arch = "x86_64")]
        "access" => libc::SYS_access,
        #[cfg(target_arch = "x86_64")]
        "arch_prctl" => libc::SYS_arch_prctl,
        #[cfg(target_arch = "x86_64")]
        "dup2" => libc::SYS_dup2,
        #[cfg(target_arch = "x86_64")]
        "poll" => libc::SYS_poll,
        #[cfg(target_arch = "x86_64")]
        "readlink" => libc::SYS_readlink,
        #[cfg(target_arch = "x86_64")]
        "vfork" => libc::SYS_vfork,
        #[cfg(not(target_arch = "x86_64"))]
        "access" | "arch_prctl" | "dup2" | "poll" | "vfork" => return None,
        #[cfg(not(target_arch = "x86_64"))]
        "readlink" => libc::SYS_readlinkat,
        "accept4" => libc::SYS_accept4,
        "bind" => libc::SYS_bind,
        "brk" => libc::SYS_brk,
        "clock_gettime" => libc::SYS_clock_gettime,
        "clone" => libc::SYS_clone,
        "clone3" => libc::SYS_clone3,
        "close" => libc::SYS_close,
        "connect" => libc::SYS_connect,
        "dup3" => libc::SYS_dup3,
        "epoll_create1" => libc::SYS_epoll_create1,
        "epoll_ctl" => libc::SYS_epoll_ctl,
        "epoll_pwait" => libc::SYS_epoll_pwait,
        #[cfg(target_arch = "x86_64")]
        "epoll_wait" => libc::SYS_epoll_wait,
        #[cfg(not(target_arch = "x86_64"))]
        "epoll_wait" => libc::SYS_epoll_pwait,
        "eventfd2" => libc::SYS_eventfd2,
        "execve" => libc::SYS_execve,
        "exit_group" => libc::SYS_exit_group,
        "faccessat" => libc::SYS_faccessat,
        "fallocate" => libc::SYS_fallocate,
        "fchmod" => libc::SYS_fchmod,
        "fcntl" => libc::SYS_fcntl,
        "flock" => libc::SYS_flock,
        "fstat" => libc::SYS_fstat,
        "fstatfs" => libc::SYS_fstatfs,
        "futex" => libc::SYS_futex,
        "getcwd" => libc::SYS_getcwd,
        "getdents64" => libc::SYS_getdents64,
        "getpeername" => libc::SYS_getpeername,
        "getpid" => libc::SYS_getpid,
        "getrandom" => libc::SYS_getrandom,
        "getsockopt" => libc::SYS_getsockopt,
        "gettid" => libc::SYS_gettid,
        "ioctl" => libc::SYS_ioctl,
        "listen" => libc::SYS_listen,
        "lseek" => libc::SYS_lseek,
        "madvise" => libc::SYS_madvise,
        "memfd_create" => libc::SYS_memfd_create,
        "mprotect" => libc::SYS_mprotect,
        "mmap" => libc::SYS_mmap,
        "mremap" => libc::SYS_mremap,
        "munmap" => libc::SYS_munmap,
        "newfstatat" => libc::SYS_newfstatat,
        "openat" => libc::SYS_openat,
        "pidfd_open" => libc::SYS_pidfd_open,
        "pidfd_send_signal" => libc::SYS_pidfd_send_signal,
        "ppoll" => libc::SYS_ppoll,
        "pread64" => libc::SYS_pread64,
        "prlimit64" => libc::SYS_prlimit64,
        "pwrite64" => libc::SYS_pwrite64,
        "read" => libc::SYS_read,
        "recvmsg" => libc::SYS_recvmsg,
        "rseq" => libc::SYS_rseq,
        "rt_sigaction" => libc::SYS_rt_sigaction,
        "rt_sigprocmask" => libc::SYS_rt_sigprocmask,
        "sched_getaffinity" => libc::SYS_sched_getaffinity,
        "sched_yield" => libc::SYS_sched_yield,
        "sendto" => libc::SYS_sendto,
        "sendmsg" => libc::SYS_sendmsg,
        "set_robust_list" => libc::SYS_set_robust_list,
        "set_tid_address" => libc::SYS_set_tid_address,
        "setsockopt" => libc::SYS_setsockopt,
        "shutdown" => libc::SYS_shutdown,
        "sigaltstack" => libc::SYS_sigaltstack,
        "socket" => libc::SYS_socket,
        "socketpair" => libc::SYS_socketpair,
        "statx" => libc::SYS_statx,
        "timerfd_create" => libc::SYS_timerfd_create,
        "timerfd_settime" => libc::SYS_timerfd_settime,
        "unshare" => libc::SYS_unshare,
        "waitid" => libc::SYS_waitid,
        "write" => libc::SYS_write,
        call => panic!("{call}: which number is that?"),
    };
    Some((number, what))
}

/// From now on the kernel kills this process when it makes a call that is not listed.
fn allow_only<'a>(rows: impl IntoIterator<Item = &'a Row>) {
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut whole = Vec::new();
    for (call, what) in rows.into_iter().flatten().filter_map(|call| number(call)) {
        let rules = allowed.entry(call).or_default();
        match what {
            None => whole.push(call),
            Some(what) => {
                let is_what =
                    SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, what);
                rules.push(SeccompRule::new(vec![is_what.unwrap()]).unwrap());
            }
        }
    }
    // Without rules a call is allowed whatever it is asked for.
    whole
        .iter()
        .for_each(|call| allowed.get_mut(call).unwrap().clear());
    let filter = SeccompFilter::new(
        allowed,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::try_from(std::env::consts::ARCH).unwrap(),
    );
    let filter = BpfProgram::try_from(filter.unwrap()).unwrap();
    apply_filter(&filter).unwrap();
}

/// What is done under a filter, once everything is ready that is not part of it.
type Work = Box<dyn FnOnce()>;

/// Runs what `prepare` has prepared, with these calls allowed. Says whether it lived through it.
fn survives<'a>(rows: impl IntoIterator<Item = &'a Row>, prepare: &dyn Fn() -> Work) -> bool {
    let child = forked(|| {
        let work = prepare();
        allow_only(rows);
        work();
        // What a process does at its end is not wormhole's.
        // SAFETY: ends the process, and runs nothing of it any more.
        #[allow(unsafe_code, reason = "std has no exit that skips the exit handlers")]
        unsafe {
            libc::_exit(0)
        }
    });
    assert!(ends_within(LONG, child.pid), "it hangs");
    match waitpid(child.pid, None).unwrap() {
        WaitStatus::Exited(_, 0) => true,
        WaitStatus::Signaled(_, Signal::SIGSYS, _) => false,
        // A child of the child was killed, which it noticed.
        WaitStatus::Exited(_, 101) => false,
        other => panic!("{other:?}"),
    }
}

/// The calls of a part and those of channels are enough, and without any of the part's it dies.
fn is_exactly(part: &[Row], beside: &[Row], prepare: &dyn Fn() -> Work) {
    let others = document().others;
    let known = || others.iter().chain(beside);
    assert!(
        survives(known().chain(part), prepare),
        "a call that docs/sandboxing.md lacks; see `strace` or `dmesg` for which"
    );
    for row in part {
        let rest = part.iter().filter(|other| *other != row);
        assert!(
            !survives(known().chain(rest), prepare),
            "docs/sandboxing.md lists {row:?}, which is not called"
        );
    }
}

fn part_is_exact(name: &str, prepare: &dyn Fn() -> Work) {
    let document = document();
    is_exactly(&document.parts[name], &document.channels, prepare);
}

#[derive(Serialize, Deserialize)]
struct Field(#[serde(with = "wormhole::fd")] File);

fn null() -> File {
    File::open("/dev/null").unwrap()
}

fn long() -> String {
    "x".repeat(300_000)
}

#[test]
fn channels_need_the_calls_that_are_listed_and_no_other() {
    in_own_process(|| is_exactly(&document().channels, &[], &channels));
}

fn channels() -> Work {
    // Somebody who answers at once, so that waiting awake pays off.
    let awake = Options::new().spin(LONG);
    let (ask, asked) = awake.channel::<u32>().unwrap();
    let (answer, answers) = awake.channel::<u32>().unwrap();
    let (mut ask, mut answers) = (Some(ask), Some(answers));
    let _echo = forked(|| {
        ask = None;
        answers = None;
        asked
            .iter()
            .try_for_each(|number| answer.send(number?))
            .unwrap();
    });
    drop((asked, answer));
    Box::new(move || {
        let (ask, answers) = (ask.unwrap(), answers.unwrap());
        for number in 0..200 {
            ask.send(number).unwrap();
            assert_eq!(answers.recv().unwrap(), number);
        }
        let (tx, rx) = channel::<String>().unwrap();
        tx.send("one".to_owned()).unwrap();
        tx.try_send("two".to_owned()).unwrap();
        tx.send_timeout("three".to_owned(), SHORT).unwrap();
        assert_eq!(rx.recv().unwrap(), "one");
        assert_eq!(rx.try_recv().unwrap(), "two");
        assert_eq!(rx.recv_timeout(SHORT).unwrap(), "three");
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));
        assert!(matches!(
            rx.recv_timeout(SHORT),
            Err(Error::TimedOut { .. })
        ));
        tx.send_with_fds("four".to_owned(), &[tx.as_fd()]).unwrap();
        assert_eq!(rx.recv_with_fds().unwrap().1.len(), 1);
        while tx.try_send("more".to_owned()).is_ok() {}
        let late = tx.send_timeout("late".to_owned(), SHORT);
        assert!(matches!(late, Err(Error::TimedOut { .. })));
        assert!(rx.try_iter().all(|message| message.unwrap() == "more"));
        select! {
            recv(answers) -> _ => unreachable!(),
            send(tx, "five".to_owned()) -> sent => sent.unwrap(),
        }
        select! {
            recv(answers) -> _ => unreachable!(),
            recv(rx) -> message => assert_eq!(message.unwrap(), "five"),
            ready(answers) => unreachable!(),
        }
        select! {
            recv(rx) -> _ => unreachable!(),
            default(SHORT) => {}
        }
        drop(tx.clone());
        drop(tx);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        let (tx, rx) = channel::<u8>().unwrap();
        drop(rx);
        assert!(matches!(tx.send(1), Err(Error::Disconnected)));
    })
}

#[test]
fn options_buffer_needs_the_calls_that_are_listed_and_no_other() {
    in_own_process(|| {
        part_is_exact("Options::buffer", &|| {
            Box::new(|| {
                let (tx, rx) = Options::new().buffer(10_000).channel().unwrap();
                tx.send(5).unwrap();
                assert_eq!(rx.recv().unwrap(), 5);
            })
        });
    });
}

#[test]
fn descriptors_need_the_calls_that_are_listed_and_no_other() {
    in_own_process(|| {
        part_is_exact("Descriptors and channel ends in messages", &|| {
            let null = null();
            Box::new(move || {
                let (tx, rx) = channel::<(Field, Sender<u8>)>().unwrap();
                let (reply, replies) = channel().unwrap();
                tx.send((Field(null), reply)).unwrap();
                let (_, reply) = rx.recv().unwrap();
                reply.send(5).unwrap();
                assert_eq!(replies.recv().unwrap(), 5);
                let _clone = tx.clone();
                OwnedFd::try_from(tx).unwrap();
            })
        });
    });
}

#[test]
fn long_messages_need_the_calls_that_are_listed_and_no_other() {
    in_own_process(|| {
        part_is_exact("Messages longer than a packet", &|| {
            Box::new(|| {
                let (tx, rx) = channel::<String>().unwrap();
                for text in ["x".repeat(230_000), long()] {
                    tx.by_ref().send(&text).unwrap();
                    assert_eq!(rx.recv().unwrap(), text);
                }
            })
        });
    });
}

#[test]
fn a_set_needs_the_calls_that_are_listed_and_no_other() {
    in_own_process(|| {
        // A map is seeded once per thread, with `getrandom`.
        std::hint::black_box(std::collections::HashMap::<u8, u8>::new());
        part_is_exact("ReceiverSet", &|| {
            Box::new(|| {
                let (tx, rx) = channel().unwrap();
                let mut set = ReceiverSet::new().unwrap();
                let key = set.add(rx).unwrap();
                tx.send(5).unwrap();
                assert_eq!(set.recv().unwrap().1.unwrap(), 5);
                assert!(matches!(
                    set.recv_timeout(SHORT),
                    Err(Error::TimedOut { .. })
                ));
                set.remove(key);
            })
        });
    });
}

#[test]
fn a_listener_needs_the_calls_that_are_listed_and_no_other() {
    in_own_process(|| {
        let directory = tempfile::tempdir().unwrap();
        part_is_exact("Listener", &|| {
            let path = directory.path().join("socket");
            let _ = std::fs::remove_file(&path);
            drop(UnixDatagram::bind(&path).unwrap()); // stale
            Box::new(move || {
                let listener = Listener::<u8>::bind(&path).unwrap();
                assert!(matches!(listener.try_accept(), Err(Error::Empty)));
                assert!(matches!(
                    listener.accept_timeout(SHORT),
                    Err(Error::TimedOut { .. })
                ));
                let tx = Sender::connect(&path).unwrap();
                tx.send(5).unwrap();
                assert_eq!(listener.accept().unwrap().0.recv().unwrap(), 5);
                drop(listener);
                assert!(Sender::<u8>::connect(&path).is_err());
            })
        });
    });
}

#[test]
fn a_listener_in_a_message_needs_the_calls_that_are_listed_and_no_other() {
    in_own_process(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        part_is_exact("Listeners in messages", &|| {
            let given = Listener::<u8>::bind(&path).unwrap();
            let _ = std::fs::remove_file(&path);
            let (tx, rx) = channel::<Listener<u8>>().unwrap();
            Box::new(move || {
                tx.by_ref().send(&given).unwrap();
                std::mem::forget(given); // to remove its file takes what a listener takes
                drop(rx.recv().unwrap());
            })
        });
    });
}

#[test]
fn an_abstract_name_needs_six_of_them() {
    in_own_process(|| {
        let six = [
            "socket",
            "fchmod",
            "bind",
            "listen",
            "accept4",
            "getsockopt",
        ];
        let mut rows = document().parts["Listener"].clone();
        rows.retain(|row| six.contains(&row[0].as_str()));
        assert_eq!(rows.len(), six.len());
        let known = document().channels;
        is_exactly(&rows, &known, &|| {
            let (connected, wait) = channel::<()>().unwrap();
            let (bound, wait_for_it) = channel::<()>().unwrap();
            let name = format!("\0wormhole sandboxing {}", std::process::id());
            let client = name.clone();
            let _client = forked(move || {
                if wait_for_it.recv().is_ok() {
                    Sender::connect(&client).unwrap().send(5u8).unwrap();
                    connected.send(()).unwrap();
                }
            });
            Box::new(move || {
                let listener = Listener::<u8>::bind(&name).unwrap();
                bound.send(()).unwrap();
                wait.recv().unwrap();
                assert_eq!(listener.accept().unwrap().0.recv().unwrap(), 5);
            })
        });
    });
}

#[test]
fn connecting_needs_the_calls_that_are_listed_and_no_other() {
    in_own_process(|| {
        part_is_exact("Sender::connect", &|| {
            let name = format!("\0wormhole sandboxing {}", std::process::id());
            let listener = Listener::<u8>::bind(&name).unwrap();
            Box::new(move || {
                Sender::connect(&name).unwrap().send(5).unwrap();
                Sender::connect_timeout(&name, LONG)
                    .unwrap()
                    .send(6)
                    .unwrap();
                std::mem::forget(listener);
            })
        });
    });
}

#[test]
fn a_blob_needs_the_calls_that_are_listed_and_no_other() {
    in_own_process(|| {
        part_is_exact("Blob", &|| {
            Box::new(|| {
                let (tx, rx) = channel::<Blob>().unwrap();
                tx.send(Blob::from_bytes(&[1; 1000]).unwrap()).unwrap();
                tx.send(Blob::build(1000, |bytes| bytes.fill(2)).unwrap())
                    .unwrap();
                assert!(*rx.recv().unwrap() == [1; 1000]);
                assert!(*rx.recv().unwrap() == [2; 1000]);
            })
        });
    });
}

#[test]
fn a_receiver_of_long_messages_and_blobs_needs_the_last_three() {
    in_own_process(|| {
        let parts = document().parts;
        let last_three = |part: &str| parts[part][parts[part].len() - 3..].to_vec();
        is_exactly(
            &last_three("Messages longer than a packet"),
            &document().channels,
            &|| {
                let (tx, rx) = channel::<String>().unwrap();
                tx.send(long()).unwrap();
                Box::new(move || assert!(rx.recv().unwrap() == long()))
            },
        );
        is_exactly(&last_three("Blob"), &document().channels, &|| {
            let (tx, rx) = channel::<Blob>().unwrap();
            tx.send(Blob::from_bytes(b"some").unwrap()).unwrap();
            Box::new(move || assert!(*rx.recv().unwrap() == *b"some"))
        });
    });
}

#[test]
fn spawn_needs_the_calls_that_are_listed_and_no_other() {
    in_own_process(|| {
        std::hint::black_box(std::collections::HashMap::<u8, u8>::new());
        part_is_exact("spawn", &|| {
            let _ = std::io::Write::flush(&mut std::io::stdout());
            Box::new(|| {
                let (tx, rx) = channel().unwrap();
                let _stray = channel::<u8>().unwrap();
                let clone = tx.clone();
                let child = spawn(tx, |tx: Sender<u8>| tx.send(5).unwrap()).unwrap();
                drop(clone);
                assert_eq!(rx.recv().unwrap(), 5);
                child.join().unwrap();
                let child = spawn((), |()| {
                    loop {
                        std::hint::spin_loop();
                    }
                })
                .unwrap();
                child.kill().unwrap();
                let joined: Result<(), Error> = child.join();
                joined.unwrap_err();
            })
        });
    });
}

#[test]
fn spawn_fresh_needs_the_calls_that_are_listed_and_no_other() {
    in_own_process(|| {
        let Document {
            channels, parts, ..
        } = document();
        // What is in there as well cannot be seen to be needed.
        let beside = [&channels[..], &parts["The start of a program"]].concat();
        is_exactly(&parts["spawn_fresh"], &beside, &|| {
            Box::new(|| {
                let (tx, rx) = channel().unwrap();
                let clone = tx.clone();
                let child = spawn_fresh(tx, |tx: Sender<u8>| tx.send(5).unwrap()).unwrap();
                drop(clone);
                assert_eq!(rx.recv().unwrap(), 5);
                child.join().unwrap();
                let child = spawn_fresh((), |()| -> () {
                    loop {
                        std::hint::spin_loop();
                    }
                });
                let child = child.unwrap();
                child.kill().unwrap();
                child.join().unwrap_err();
            })
        });
    });
}

/// Everything that a pool does: jobs that are sent ahead, kept, cancelled, too slow, too long for now, and what workers
/// die of.
fn work_of_a_pool(options: PoolOptions) {
    fn work((number, _): (u64, String)) -> u64 {
        match number {
            7 => std::process::exit(1),
            8 => loop {
                std::hint::spin_loop();
            },
            number => number + 1,
        }
    }
    let short = |number| (number, String::new());
    let options = options.ahead(1).deadline(LONG);
    let mut pool = options.clone().run(work).unwrap();
    for number in 0..8 {
        pool.submit(short(number)).unwrap();
    }
    let hangs = pool.submit(short(8)).unwrap();
    for _ in 0..6 {
        let _ = pool.recv().unwrap();
    }
    pool.cancel(hangs).unwrap();
    assert_eq!(pool.finish().unwrap().len(), 3);
    let mut pool = options.clone().ahead(9).run(work).unwrap();
    pool.submit(short(8)).unwrap();
    // A few fill the channel of a worker. When there is no room for one, it looks before the next.
    let text = "x".repeat(100_000);
    while pool.try_submit((8, text.clone())).is_ok() {}
    assert!(matches!(pool.try_submit((8, text)), Err(Error::Full)));
    drop(pool);
    let mut pool = options.deadline(SHORT).run(work).unwrap();
    pool.submit(short(8)).unwrap();
    assert_eq!(pool.recv().unwrap().1, Err(JobError::TimedOut));
    pool.submit(short(8)).unwrap(); // one that it drops with the worker
}

#[test]
fn a_pool_needs_the_calls_that_are_listed_and_no_other() {
    in_own_process(|| {
        std::hint::black_box(std::collections::HashMap::<u8, u8>::new());
        part_is_exact("Pool", &|| {
            let _ = std::io::Write::flush(&mut std::io::stdout());
            Box::new(|| work_of_a_pool(PoolOptions::new(2)))
        });
    });
}

#[test]
fn a_pool_of_fresh_workers_needs_what_both_need() {
    in_own_process(|| {
        let Document {
            channels,
            others,
            mut parts,
        } = document();
        let forks = ["unshare", "clone", "set_robust_list", "dup3"];
        let pool = parts.get_mut("Pool").unwrap();
        pool.retain(|row| !forks.contains(&row[0].as_str()));
        let all = ["Pool", "spawn_fresh", "The start of a program"];
        let all = all.iter().flat_map(|part| &parts[*part]);
        let all = all.chain(&channels).chain(&others);
        let prepare = || -> Work { Box::new(|| work_of_a_pool(PoolOptions::new(2).fresh())) };
        assert!(survives(all, &prepare));
    });
}

#[test]
fn inherit_needs_the_calls_that_are_listed_and_no_other() {
    in_own_process(|| {
        let mut others = document().others;
        others.retain(|row| row[0] != "fcntl(F_GETFD)");
        let document = document();
        let part = &document.parts["inherit"];
        let prepare: &dyn Fn() -> Work = &|| {
            let rx = crate::support::handed_over(5_u8);
            let number = nix::unistd::dup(&rx).unwrap().into_raw_fd();
            // SAFETY: this process has one thread.
            #[allow(unsafe_code, reason = "the environment belongs to all threads")]
            unsafe {
                std::env::set_var("WORMHOLE_FD", number.to_string());
            }
            Box::new(|| assert_eq!(inherit::<u8>().unwrap(), 5))
        };
        let known = || others.iter().chain(&document.channels);
        assert!(survives(known().chain(part), prepare));
        for row in part {
            let rest = part.iter().filter(|other| *other != row);
            assert!(!survives(known().chain(rest), prepare), "{row:?}");
        }
    });
}

#[test]
fn every_part_of_the_list_is_tested() {
    let tested =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file!())).unwrap();
    let parts = document().parts;
    assert!(parts.len() > 7);
    for part in parts.keys() {
        let used = [
            format!("part_is_exact(\"{part}\""),
            format!("parts[\"{part}\"]"),
        ];
        assert!(used.iter().any(|used| tested.contains(used)), "{part}");
    }
}

/// What an event loop does for the ends of a module: one connects, one waits for the other, and all are closed.
#[cfg(any(feature = "tokio", feature = "async-io"))]
macro_rules! awaited {
    ($ends:ident, $name:expr) => {
        async {
            let client = wormhole::$ends::Sender::<u32>::connect(&$name);
            drop(client.await.unwrap());
            let (tx, rx) = channel::<u32>().unwrap();
            let second = wormhole::$ends::Receiver::new(rx.clone()).unwrap();
            let rx = wormhole::$ends::Receiver::new(rx).unwrap();
            let tx = wormhole::$ends::Sender::new(tx).unwrap();
            let (received, sent) = join(rx.recv(), tx.send(5)).await;
            sent.unwrap();
            assert_eq!(received.unwrap(), 5);
            while tx.try_send(6).is_ok() {}
            let receive = async { while rx.recv().await.unwrap() != 7 {} };
            let ((), sent) = join(receive, tx.send(7)).await;
            sent.unwrap();
            let leave = async {
                drop((rx, second));
            };
            let (closed, ()) = join(tx.closed(), leave).await;
            closed.unwrap();
        }
    };
}

/// The name of a listener that this process has for as long as it lives.
#[cfg(any(feature = "tokio", feature = "async-io"))]
fn listener() -> String {
    let name = format!("\0wormhole sandbox {}", std::process::id());
    std::mem::forget(Listener::<u32>::bind(&name).unwrap());
    name
}

#[cfg(feature = "tokio")]
#[test]
fn ends_in_tokio_need_the_calls_that_are_listed_and_no_other() {
    in_own_process(|| {
        part_is_exact("wormhole::tokio", &|| {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().unwrap();
            let name = listener();
            Box::new(move || runtime.block_on(awaited!(tokio, name)))
        });
    });
}

#[cfg(feature = "async-io")]
#[test]
fn ends_in_async_io_need_the_calls_that_are_listed_and_no_other() {
    in_own_process(|| {
        part_is_exact("wormhole::async_io", &|| {
            // Its thread, which has begun before the filter, does not have it.
            async_io::block_on(async_io::Timer::after(SHORT));
            let name = listener();
            Box::new(move || {
                // Often enough to see this thread wait as well, and not that one alone.
                for _ in 0..200 {
                    async_io::block_on(awaited!(async_io, name));
                }
            })
        });
    });
}
