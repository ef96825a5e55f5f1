//! What a child returns, how it ends, and what it leaves in its parent.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::panic::panic_any;
use std::process::exit;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, raise, signal};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid, getppid};
use serde::{Deserialize, Serialize, Serializer};
use wormhole::{Child, ChildEnd, Error, Receiver, Sender, channel, spawn, spawn_unchecked};

use crate::support::{
    DEADLINE, DescriptorLimit, Picky, becomes_ready, forked, in_own_process, open_fds,
};

fn end_of<R: std::fmt::Debug>(joined: Result<R, Error>) -> ChildEnd {
    match joined {
        Err(Error::Child { end, .. }) => end,
        other => panic!("{other:?}"),
    }
}

/// The children that this process has not reaped.
fn children() -> Vec<String> {
    let pid = getpid();
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_child_runs_the_function_in_a_process_of_its_own() {
    in_own_process(|| {
        let before = open_fds();
        let child = spawn((1, "two".to_owned()), |(one, two): (i32, String)| {
            (getpid().as_raw(), getppid().as_raw(), one, two)
        })
        .unwrap();
        let pid = i32::try_from(child.pid()).unwrap();
        assert_ne!(pid, getpid().as_raw());
        let joined = child.join().unwrap();
        assert_eq!(joined, (pid, getpid().as_raw(), 1, "two".to_owned()));
        assert_eq!(open_fds(), before);
        assert!(children().is_empty());
    });
}

#[test]
fn a_result_of_any_length_arrives() {
    in_own_process(|| {
        for len in [0, 100, 200_000, 212_000, 300_000, 10_000_000] {
            let child = spawn(len, |len: usize| "x".repeat(len)).unwrap();
            // It ends although nobody has received yet.
            assert!(becomes_ready(&child, PollFlags::POLLIN, DEADLINE));
            assert!(child.join().unwrap() == "x".repeat(len));
        }
    });
}

#[derive(Debug, Serialize, Deserialize)]
struct Opened(#[serde(with = "wormhole::fd")] File);

#[test]
fn a_result_may_hold_descriptors_and_ends() {
    in_own_process(|| {
        let before = open_fds();
        let child = spawn((), |()| {
            let (tx, rx) = channel::<u32>().unwrap();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"from the child").unwrap();
            tx.send(1).unwrap();
            (tx, rx, Opened(file))
        });
        let (tx, rx, Opened(file)) = child.unwrap().join().unwrap();
        tx.send(2).unwrap();
        assert_eq!((rx.recv().unwrap(), rx.recv().unwrap()), (1, 2));
        drop(tx);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        let mut text = String::new();
        std::os::unix::fs::FileExt::read_at(&file, &mut [0; 1], 0).unwrap();
        let mut again = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        again.read_to_string(&mut text).unwrap();
        assert_eq!(text, "from the child");
        drop((file, again, rx));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_panic_becomes_the_error_of_join() {
    in_own_process(|| {
        type Case = (fn(()), &'static str);
        let panics: [Case; 4] = [
            (|()| panic!("a literal"), "a literal"),
            (|()| panic!("number {}", 5), "number 5"),
            (|()| panic_any(5), "a value that is no text"),
            (
                |()| assert_eq!([0].get(1).copied().unwrap(), 1),
                "called `Option::unwrap()` on a `None` value",
            ),
        ];
        for (f, expected) in panics {
            let mut child = spawn((), f).unwrap();
            let pid = Pid::from_raw(i32::try_from(child.pid()).unwrap());
            let end = end_of(child.join_timeout(DEADLINE));
            let message = expected.to_owned();
            assert_eq!(end, ChildEnd::Panicked { message });
            assert_eq!(waitpid(pid, None), Err(nix::Error::ECHILD), "not reaped");
        }
    });
}

#[test]
fn an_error_shows_the_panic_of_a_child_on_one_line_and_not_all_of_it() {
    in_own_process(|| {
        fn panics(_: ()) -> u32 {
            std::panic::set_hook(Box::new(|_| {}));
            panic!("\n\u{1b}[31mroot: all is well{}", "!".repeat(1_000_000))
        }
        let error = spawn((), panics).unwrap().join().unwrap_err();
        let text = error.to_string();
        assert!(text.contains(" panicked: \\n\\u{1b}[31mroot"), "{text}");
        assert!(text.len() < 1200 && !text.contains(char::is_control));
        assert!(format!("{error:?}").len() < 1300);
    });
}

#[test]
fn a_panic_prints_its_message_and_exits_with_101() {
    in_own_process(|| {
        let (mut read, write) = crate::support::pipe();
        #[derive(Serialize)]
        struct Stderr(#[serde(with = "wormhole::fd")] File);
        let child = spawn(Stderr(write), |Stderr(file)| {
            nix::unistd::dup2_stderr(file).unwrap();
            panic!("heard on stderr")
        });
        let child: Child<()> = child.unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert!(text.contains("heard on stderr"), "{text}");
        let pid = Pid::from_raw(i32::try_from(child.pid()).unwrap());
        let status = waitpid(pid, None).unwrap();
        assert_eq!(status, nix::sys::wait::WaitStatus::Exited(pid, 101));
        // The status is gone, the message is not.
        let message = "heard on stderr".to_owned();
        assert_eq!(end_of(child.join()), ChildEnd::Panicked { message });
    });
}

#[test]
fn a_child_that_ends_before_its_function_returns_is_an_error_that_says_how() {
    in_own_process(|| {
        setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
        type Case = (fn(()) -> u32, ChildEnd, &'static str);
        let cases: [Case; 4] = [
            (
                |()| exit(0),
                ChildEnd::Exited { code: 0 },
                "exited with status 0",
            ),
            (
                |()| exit(7),
                ChildEnd::Exited { code: 7 },
                "exited with status 7",
            ),
            (
                |()| {
                    raise(Signal::SIGKILL).unwrap();
                    1
                },
                ChildEnd::Killed {
                    signal: 9,
                    core_dumped: false,
                },
                "was killed by signal 9 (SIGKILL)",
            ),
            (
                |()| std::process::abort(),
                ChildEnd::Killed {
                    signal: 6,
                    core_dumped: false,
                },
                "was killed by signal 6 (SIGABRT)",
            ),
        ];
        for (f, end, text) in cases {
            let child = spawn((), f).unwrap();
            let pid = child.pid();
            let error = child.join().unwrap_err();
            assert_eq!(error.to_string(), format!("child process {pid} {text}"));
            assert_eq!(end.to_string(), format!("child process {text}"));
            assert_eq!(end_of::<()>(Err(error)), end);
        }
        let dumped = ChildEnd::Killed {
            signal: 11,
            core_dumped: true,
        };
        let text = "child process was killed by signal 11 (SIGSEGV), with a core dump";
        assert_eq!(dumped.to_string(), text);
    });
}

#[test]
fn a_result_that_cannot_be_sent_is_an_error_that_says_why() {
    in_own_process(|| {
        #[derive(Debug, Deserialize)]
        struct Refuses;
        impl Serialize for Refuses {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("on principle"))
            }
        }
        let error = spawn((), |()| Refuses).unwrap().join().unwrap_err();
        let text = error.to_string();
        assert!(text.contains(" could not deliver its result: "));
        assert!(text.ends_with(": on principle"), "{text}");

        let many = spawn((), |()| -> Vec<Opened> {
            let null = || Opened(File::open("/dev/null").unwrap());
            (0..254).map(|_| null()).collect()
        });
        let ChildEnd::Undelivered { reason } = end_of(many.unwrap().join()) else {
            panic!()
        };
        assert_eq!(
            reason,
            "cannot send 254 descriptors in one message: the limit is 253"
        );

        #[derive(Debug, Deserialize)]
        struct Panics;
        impl Serialize for Panics {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                panic!("in the middle of it")
            }
        }
        let end = end_of(spawn((), |()| Panics).unwrap().join());
        let message = "in the middle of it".to_owned();
        assert_eq!(end, ChildEnd::Panicked { message });
    });
}

#[test]
fn a_result_that_cannot_be_decoded_is_an_error_of_join() {
    in_own_process(|| {
        let before = open_fds();
        let mut child = spawn((), |()| Picky::undecodable()).unwrap();
        let error = child.join_timeout(DEADLINE).unwrap_err();
        assert!(matches!(error, Error::Decode { .. }), "{error}");
        let text = error.to_string();
        assert!(
            !text.contains("Delivery"),
            "a type of this crate's own: {text}"
        );
        assert_eq!(end_of(child.join()), ChildEnd::Joined);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_result_is_given_once() {
    in_own_process(|| {
        let mut child = spawn((), |()| 5).unwrap();
        assert_eq!(child.join_timeout(DEADLINE).unwrap(), 5);
        assert_eq!(end_of(child.try_join()), ChildEnd::Joined);
        let pid = child.pid();
        let text = child.join().unwrap_err().to_string();
        assert_eq!(text, format!("child process {pid} was joined already"));
    });
}

#[test]
fn try_join_and_join_timeout_leave_a_running_child_alone() {
    in_own_process(|| {
        let (go, wait) = channel::<u32>().unwrap();
        let mut child = spawn(wait, |wait: Receiver<u32>| wait.recv().unwrap()).unwrap();
        assert!(!becomes_ready(&child, PollFlags::POLLIN, Duration::ZERO));
        let timeout = Duration::from_millis(20);
        for _ in 0..3 {
            assert_eq!(child.try_join().unwrap(), None);
            let start = Instant::now();
            assert!(matches!(
                child.join_timeout(timeout),
                Err(Error::TimedOut { .. })
            ));
            assert!(start.elapsed() >= timeout);
        }
        go.send(9).unwrap();
        assert!(becomes_ready(&child, PollFlags::POLLIN, DEADLINE));
        assert_eq!(child.try_join().unwrap(), Some(9));
    });
}

#[test]
fn a_killed_child_says_so_and_killing_twice_hits_nobody() {
    in_own_process(|| {
        let mut child = spawn((), |()| {
            loop {
                nix::unistd::pause();
            }
        })
        .unwrap();
        child.kill().unwrap();
        let killed = ChildEnd::Killed {
            signal: 9,
            core_dumped: false,
        };
        let joined: Result<(), _> = child.join_timeout(DEADLINE);
        assert_eq!(end_of(joined), killed);
        child.kill().unwrap();
    });
}

#[test]
fn a_child_of_a_child_that_holds_everything_does_not_delay_join() {
    in_own_process(|| {
        // Forked by hand, it has all that its parent has, the sender of the result included.
        for returns in [true, false] {
            let (leave, wait) = channel::<()>().unwrap();
            let child = spawn((wait, returns), |(wait, returns): (Receiver<()>, bool)| {
                let grandchild = forked(move || drop(wait.recv()));
                if !returns {
                    exit(1);
                }
                grandchild.pid.as_raw()
            });
            let joined = child.unwrap().join();
            if returns {
                assert!(joined.unwrap() > 0);
            } else {
                assert_eq!(end_of(joined), ChildEnd::Exited { code: 1 });
            }
            leave.send(()).unwrap();
        }
    });
}

#[test]
fn a_dropped_child_runs_on_and_the_next_spawn_reaps_it() {
    in_own_process(|| {
        let before = open_fds();
        let (go, wait) = channel::<()>().unwrap();
        let (done, is_done) = channel::<i32>().unwrap();
        for _ in 0..3 {
            let args = (wait.clone(), done.clone());
            drop(spawn(args, |(wait, done): (Receiver<()>, Sender<i32>)| {
                wait.recv().unwrap();
                done.send(getpid().as_raw()).unwrap();
            }));
        }
        drop((wait, done));
        for _ in 0..3 {
            go.send(()).unwrap();
        }
        for pid in is_done.iter().map(Result::unwrap) {
            assert!(crate::support::ends_within(DEADLINE, Pid::from_raw(pid)));
        }
        assert_eq!(children().len(), 3, "zombies");
        let last = spawn((), |()| ()).unwrap();
        assert_eq!(children(), [last.pid().to_string()]);
        last.join().unwrap();
        // One that has ended when it is dropped is reaped at once.
        let ended = spawn((), |()| ()).unwrap();
        assert!(becomes_ready(&ended, PollFlags::POLLIN, DEADLINE));
        drop(ended);
        assert!(children().is_empty());
        drop((go, is_done));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_status_that_somebody_else_took_is_unknown() {
    in_own_process(|| {
        let child = spawn((), |()| -> u32 { exit(3) }).unwrap();
        waitpid(Pid::from_raw(-1), None).unwrap();
        assert_eq!(end_of(child.join()), ChildEnd::Unknown);
        let child = spawn((), |()| 4).unwrap();
        waitpid(Pid::from_raw(-1), None).unwrap();
        assert_eq!(child.join().unwrap(), 4);
        // Ignored, it is taken by nobody.
        // SAFETY: no handler is installed.
        #[allow(unsafe_code, reason = "no safe way to change the action of a signal")]
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.unwrap();
        let (go, wait) = channel::<()>().unwrap();
        let child = spawn(wait, |wait: Receiver<()>| wait.recv().unwrap()).unwrap();
        go.send(()).unwrap();
        child.join().unwrap();
    });
}

#[test]
fn what_was_printed_before_a_spawn_is_printed_once() {
    in_own_process(|| {
        let (mut read, write) = crate::support::pipe();
        nix::unistd::dup2_stdout(write).unwrap();
        print!("before ");
        let child = spawn((), |()| print!("child ")).unwrap();
        child.join().unwrap();
        print!("after");
        std::io::stdout().flush().unwrap();
        let null = File::create("/dev/null").unwrap();
        nix::unistd::dup2_stdout(null).unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        // The result line of the test harness follows.
        println!("1 passed");
        assert!(text.starts_with("before child after"), "{text}");
    });
}

#[test]
fn the_exit_handlers_of_the_parent_do_not_run_in_the_child() {
    static NOTIFY: AtomicI32 = AtomicI32::new(-1);
    extern "C" fn handler() {
        // SAFETY: it is open in all processes of this test.
        #[allow(unsafe_code, reason = "a handler gets no arguments")]
        let fd = unsafe { BorrowedFd::borrow_raw(NOTIFY.load(Relaxed)) };
        nix::unistd::write(fd, b"ran").unwrap();
    }
    in_own_process(|| {
        let (mut read, write) = crate::support::pipe();
        NOTIFY.store(write.as_raw_fd(), Relaxed);
        let parent = forked(|| {
            // SAFETY: the handler may be called at any exit.
            #[allow(unsafe_code, reason = "no safe way to add an exit handler")]
            let added = unsafe { nix::libc::atexit(handler) };
            assert_eq!(added, 0);
            spawn((), |()| ()).unwrap().join().unwrap();
        });
        parent.join();
        drop(write);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ran", "once, in the process that exits");
    });
}

#[test]
fn spawn_refuses_in_a_process_with_threads() {
    in_own_process(|| {
        std::thread::scope(|scope| {
            let (alive, over) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || over.recv());
            let (tx, rx) = channel::<u32>().unwrap();
            let error = spawn(tx, |_| ()).unwrap_err();
            assert_eq!(
                error.to_string(),
                "cannot fork: this process has more than one thread, which a fork would leave behind: use \
                 `spawn_fresh` (for a pool, `PoolOptions::fresh`), or the unsafe `spawn_unchecked`"
            );
            assert!(matches!(error, Error::MultiThreaded));
            // The arguments are gone.
            assert!(matches!(rx.recv(), Err(Error::Disconnected)));
            let (tx, rx) = channel::<u32>().unwrap();
            // SAFETY: the other thread only waits.
            #[allow(unsafe_code, reason = "this is the function under test")]
            let child = unsafe { spawn_unchecked(tx, |tx| tx.send(5).unwrap()) }.unwrap();
            assert_eq!(rx.recv().unwrap(), 5);
            child.join().unwrap();
            drop(alive);
        });
    });
}

#[test]
fn a_thread_that_was_joined_does_not_count() {
    in_own_process(|| {
        // It is seldom counted, so this cannot be more than a try.
        for _ in 0..500 {
            std::thread::spawn(|| ()).join().unwrap();
            spawn((), |()| ()).unwrap().join().unwrap();
        }
    });
}

#[test]
fn threads_are_counted_without_proc() {
    in_own_process(|| {
        if !without_proc() {
            eprintln!("skipped: needs root, to hide /proc");
            return;
        }
        assert!(!std::path::Path::new("/proc/self").exists());
        threads_are_counted();
    });
}

#[test]
fn threads_are_counted_where_unshare_is_denied() {
    in_own_process(|| {
        crate::support::deny([nix::libc::SYS_unshare]);
        threads_are_counted();
    });
}

fn threads_are_counted() {
    assert_eq!(spawn(5, |five: u32| five).unwrap().join().unwrap(), 5);
    std::thread::scope(|scope| {
        let (alive, over) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || over.recv());
        assert!(matches!(spawn((), |()| ()), Err(Error::MultiThreaded)));
        drop(alive);
    });
}

/// Hides /proc from this process, if it may.
fn without_proc() -> bool {
    use nix::libc::{CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare};
    // SAFETY: changes what this process sees, in a namespace of its own.
    #[allow(unsafe_code, reason = "no safe way to unshare and mount")]
    if unsafe { unshare(CLONE_NEWNS) } != 0 {
        return false;
    }
    let mounted = |at: &std::ffi::CStr, flags| {
        let (kind, null) = (c"tmpfs".as_ptr(), std::ptr::null());
        // SAFETY: all pointers are strings or null, where mount(2) allows it.
        #[allow(unsafe_code, reason = "no safe way to mount")]
        let result = unsafe { mount(kind, at.as_ptr(), kind, flags, null) };
        result == 0
    };
    mounted(c"/", MS_REC | MS_PRIVATE) && mounted(c"/proc", 0)
}

#[test]
fn arguments_that_cannot_be_serialized_are_an_error() {
    in_own_process(|| {
        let before = open_fds();
        let (tx, rx) = channel::<u32>().unwrap();
        let args = std::collections::HashMap::from([((1, 2), tx)]);
        let error = spawn(args, |_| ()).unwrap_err();
        assert!(matches!(error, Error::Encode { .. }), "{error}");
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        drop(rx);
        assert_eq!(open_fds(), before);
        assert!(children().is_empty());
    });
}

#[test]
fn without_room_for_descriptors_there_is_no_child() {
    in_own_process(|| {
        let before = open_fds();
        let (tx, rx) = channel::<u32>().unwrap();
        let keeps_it_shared = tx.clone();
        let limit = DescriptorLimit::new();
        let mut refusals = 0;
        for room in 0.. {
            limit.leave_room_for(room);
            let args = keeps_it_shared.clone();
            match spawn(args, |tx: Sender<u32>| tx.send(1).unwrap()) {
                Ok(child) => {
                    child.join().unwrap();
                    break;
                }
                Err(Error::Io { .. }) => refusals += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(refusals > 2);
        drop(limit);
        assert!(children().is_empty());
        assert_eq!(rx.recv().unwrap(), 1);
        assert!(
            matches!(rx.try_recv(), Err(Error::Empty)),
            "an unwanted child"
        );
        drop((tx, keeps_it_shared, rx));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_child_has_its_arguments_and_what_is_no_end() {
    fn idle(_: ()) {
        loop {
            nix::unistd::pause();
        }
    }
    in_own_process(|| {
        let inherited = open_fds();
        let ends: Vec<_> = (0..10).map(|_| channel::<u32>().unwrap()).collect();
        let older = spawn((), idle).unwrap();
        let abandoned = spawn((), idle).unwrap();
        let abandoned_pid = Pid::from_raw(i32::try_from(abandoned.pid()).unwrap());
        let abandoned_pidfd = abandoned.as_fd().as_raw_fd();
        drop(abandoned);
        assert!(!open_fds().contains_key(&abandoned_pidfd));

        let (tx, rx) = channel::<u32>().unwrap();
        let (file, writer) = crate::support::pipe();
        drop(writer);
        let args = (tx, Opened(file));
        let mut expected = inherited;
        let mine = open_fds();
        for number in [args.0.as_fd().as_raw_fd(), args.1.0.as_raw_fd()] {
            expected.insert(number, mine[&number].clone());
        }
        let child = spawn(args, |args| {
            let open = open_fds();
            drop(args);
            open
        });
        let mut open = child.unwrap().join().unwrap();
        // The stand-in for all that it does not have is one and the same socket.
        let dead = open[&ends[0].0.as_fd().as_raw_fd()].clone();
        assert!(!mine.values().any(|link| *link == dead));
        open.retain(|_, link| *link != dead);
        // And it has the sender of its result.
        let is_new = |(number, link): (i32, String)| (!mine.contains_key(&number)).then_some(link);
        let new: Vec<_> = open.clone().into_iter().filter_map(is_new).collect();
        assert!(
            matches!(&new[..], [link] if link.starts_with("socket:")),
            "{new:?}"
        );
        open.retain(|_, link| *link != new[0]);
        assert_eq!(open, expected);

        older.kill().unwrap();
        drop(rx);
        nix::sys::signal::kill(abandoned_pid, Signal::SIGKILL).unwrap();
    });
}
