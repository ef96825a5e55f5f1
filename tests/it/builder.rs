//! How children start: `process::Builder`, for all kinds of them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::process::{Command, Stdio, exit};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::{Pid, getpid, getppid};
use serde::{Deserialize, Serialize};
use wormhole::process::{Builder, Failure};
use wormhole::{
    Blob, Child, ChildEnd, Error, Listener, Pool, PoolOptions, Receiver, ReceiverSet, Sender,
    channel, spawn, spawn_unchecked,
};

use crate::support::{
    DEADLINE, becomes_ready, ends_within, forked, in_own_process, open_fds, pipe,
};

fn end_of<R: std::fmt::Debug>(joined: Result<R, Error>) -> ChildEnd {
    match joined {
        Err(Error::Child { end, .. }) => end,
        other => panic!("{other:?}"),
    }
}

#[derive(Serialize, Deserialize)]
struct Client(#[serde(with = "wormhole::fd")] TcpStream);

/// The pre-fork server: a worker that takes the place of another one must not hold the connections that the server has
/// accepted meanwhile, or their clients never see the end.
#[test]
fn a_replacement_holds_no_connection_of_its_parent() {
    in_own_process(|| {
        fn serve(clients: Receiver<Client>) {
            for client in clients {
                let Client(mut client) = client.unwrap();
                client.write_all(b"hello").unwrap();
            }
        }
        let mut builder = Builder::new();
        builder.only_arguments(true);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let (send, clients) = channel::<Client>().unwrap();
        let worker = builder.spawn(clients, serve).unwrap();
        send.send(Client(accepted)).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        drop(send);
        worker.join().unwrap();
    });
}

#[test]
fn only_the_arguments_stay_open_whatever_else_there_was() {
    in_own_process(|| {
        let (_end, _other) = channel::<u8>().unwrap();
        let files: Vec<_> = (0..20).map(|_| tempfile::tempfile().unwrap()).collect();
        fcntl(&files[0], FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let (read, write) = pipe();
        #[derive(Serialize)]
        struct Given(#[serde(with = "wormhole::fd")] File);
        let mut builder = Builder::new();
        builder.only_arguments(true);
        let child = builder
            .spawn(Given(write), |Given(mut file)| {
                file.write_all(b"open").unwrap();
                let mut links: Vec<_> = open_fds()
                    .into_iter()
                    .filter(|(number, _)| *number > 2)
                    .collect();
                links.retain(|(_, link)| !link.starts_with("socket:"));
                links.len()
            })
            .unwrap();
        assert_eq!(child.join().unwrap(), 1, "the pipe");
        let mut text = String::new();
        { read }.read_to_string(&mut text).unwrap();
        assert_eq!(text, "open");
        // A program has not even what is not close-on-exec.
        let (mut read, write) = pipe();
        let mut command = Command::new("sh");
        command.args(["-c", "for fd in /proc/$$/fd/*; do echo ${fd##*/}; done"]);
        command.stdin(Stdio::null()).stdout(write);
        builder.spawn_command(command, ()).unwrap().join().unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        let numbers: Vec<RawFd> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert!(!numbers.contains(&files[0].as_raw_fd()), "{numbers:?}");
    });
}

#[test]
fn children_end_with_the_thread_that_started_them() {
    in_own_process(|| {
        fn waits(_: ()) {
            loop {
                nix::unistd::pause();
            }
        }
        // What ends before its child has asked for the signal cannot end it.
        fn says_so_and_waits(begun: Sender<()>) {
            begun.send(()).unwrap();
            waits(());
        }
        let mut builder = Builder::new();
        builder.end_with_parent(true);
        let killed = ChildEnd::Killed {
            signal: 9,
            core_dumped: false,
        };
        // SAFETY: the other threads only wait.
        #[allow(unsafe_code, reason = "a fork of a process with threads")]
        let fork = |begun| unsafe { builder.spawn_unchecked(begun, says_so_and_waits) };
        let fresh = |begun| builder.spawn_fresh(begun, says_so_and_waits);
        let [mut fork, mut fresh] = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let (begun, have_begun) = channel().unwrap();
                let children = [fork(begun.clone()).unwrap(), fresh(begun).unwrap()];
                for _ in 0..2 {
                    have_begun.recv_timeout(DEADLINE).unwrap();
                }
                children
            });
            thread.join().unwrap()
        });
        assert_eq!(end_of(fork.join_timeout(DEADLINE)), killed);
        assert_eq!(end_of(fresh.join_timeout(DEADLINE)), killed);
        // Those of the main thread end with it, and so does a program.
        let (tell, told) = channel::<u32>().unwrap();
        rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).unwrap();
        let parent = spawn(tell, |tell: Sender<u32>| {
            let mut builder = Builder::new();
            builder.end_with_parent(true);
            let mut command = Command::new("sleep");
            command.arg("600");
            let program = builder.spawn_command(command, ()).unwrap();
            let fork = builder.spawn((), waits).unwrap();
            tell.send(program.pid()).unwrap();
            tell.send(fork.pid()).unwrap();
            waits(());
        })
        .unwrap();
        let children = [told.recv().unwrap(), told.recv().unwrap()];
        parent.kill().unwrap();
        assert!(parent.join().is_err());
        for child in children {
            let child = Pid::from_raw(i32::try_from(child).unwrap());
            assert!(nix::sys::signal::kill(child, None).is_err() || ends_within(DEADLINE, child));
        }
    });
}

#[test]
fn signals_are_reset_where_asked_for() {
    fn state(_: ()) -> (bool, bool, bool) {
        let blocked = SigSet::thread_get_mask().unwrap().contains(Signal::SIGUSR1);
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let ignored = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:\t"));
        let ignored = u64::from_str_radix(ignored.unwrap(), 16).unwrap();
        let has = |signal: Signal| ignored >> (signal as i32 - 1) & 1 == 1;
        (blocked, has(Signal::SIGUSR2), has(Signal::SIGPIPE))
    }
    in_own_process(|| {
        let mut set = SigSet::empty();
        set.add(Signal::SIGUSR1);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).unwrap();
        // SAFETY: no handler is installed.
        #[allow(unsafe_code, reason = "no safe way to change the action of a signal")]
        unsafe { signal(Signal::SIGUSR2, SigHandler::SigIgn) }.unwrap();
        let mut resets = Builder::new();
        resets.reset_signals(true);
        assert_eq!(
            spawn((), state).unwrap().join().unwrap(),
            (true, true, true)
        );
        assert_eq!(
            resets.spawn((), state).unwrap().join().unwrap(),
            (false, false, true)
        );
        let fresh = resets.spawn_fresh((), |()| state(()).1).unwrap();
        assert!(!fresh.join().unwrap());
    });
}

#[test]
fn a_child_has_the_name_and_the_streams_that_it_was_given() {
    fn name_of(_: ()) -> String {
        println!("printed");
        eprintln!("complained");
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        std::fs::read_to_string("/proc/self/comm").unwrap() + &line
    }
    in_own_process(|| {
        for fresh in [false, true] {
            let (mut out, stdout) = pipe();
            let (mut err, stderr) = pipe();
            let (stdin, mut input) = pipe();
            input.write_all(b"a line\n").unwrap();
            let mut builder = Builder::new();
            builder
                .name("a name that is too long")
                .stdin(stdin)
                .stdout(stdout)
                .stderr(stderr);
            let child = match fresh {
                true => builder.spawn_fresh((), name_of),
                false => builder.spawn((), name_of),
            };
            assert_eq!(child.unwrap().join().unwrap(), "a name that is \na line\n");
            drop(builder);
            let mut text = [String::new(), String::new()];
            out.read_to_string(&mut text[0]).unwrap();
            err.read_to_string(&mut text[1]).unwrap();
            assert_eq!(text, ["printed\n", "complained\n"]);
        }
    });
}

#[test]
fn a_program_is_a_child_with_deadlines_and_an_end() {
    in_own_process(|| {
        let before = open_fds();
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let builder = Builder::new();
        builder
            .spawn_command(shell("exit 0"), ())
            .unwrap()
            .join()
            .unwrap();
        let mut child = builder.spawn_command(shell("exit 7"), ()).unwrap();
        assert!(becomes_ready(&child, PollFlags::POLLIN, DEADLINE));
        assert_eq!(end_of(child.try_join()), ChildEnd::Exited { code: 7 });
        assert_eq!(end_of(child.join()), ChildEnd::Joined);
        let mut command = shell("read line; echo got $line; exec sleep 600");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = builder.spawn_command(command, ()).unwrap();
        writeln!(child.take_stdin().unwrap(), "it").unwrap();
        let mut text = [0; 7];
        child.take_stdout().unwrap().read_exact(&mut text).unwrap();
        assert_eq!(&text, b"got it\n");
        assert!(child.take_stdin().is_none() && child.take_stderr().is_none());
        let late = child.join_timeout(Duration::from_millis(5));
        assert!(matches!(late, Err(Error::TimedOut { .. })));
        child.kill().unwrap();
        let killed = ChildEnd::Killed {
            signal: 9,
            core_dumped: false,
        };
        assert_eq!(end_of(child.join_timeout(DEADLINE)), killed);
        drop(child);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn each_stream_of_a_program_can_be_a_pipe_by_itself() {
    in_own_process(|| {
        let before = open_fds();
        let builder = Builder::new();
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdin(Stdio::null());
            command
        };
        let mut text = String::new();

        let mut command = shell("read line; test \"$line\" = it");
        command.stdin(Stdio::piped());
        let mut child = builder.spawn_command(command, ()).unwrap();
        writeln!(child.take_stdin().unwrap(), "it").unwrap();
        child.join_timeout(DEADLINE).unwrap();
        drop(child);

        let mut command = shell("echo out");
        command.stdout(Stdio::piped());
        let mut child = builder.spawn_command(command, ()).unwrap();
        let mut stdout = child.take_stdout().unwrap();
        stdout.read_to_string(&mut text).unwrap();
        child.join_timeout(DEADLINE).unwrap();
        drop(child);

        let mut command = shell("echo err >&2");
        command.stderr(Stdio::piped());
        let mut child = builder.spawn_command(command, ()).unwrap();
        let mut stderr = child.take_stderr().unwrap();
        assert!(child.take_stderr().is_none() && child.take_stdin().is_none());
        stderr.read_to_string(&mut text).unwrap();
        child.join_timeout(DEADLINE).unwrap();
        drop(child);

        assert_eq!(text, "out\nerr\n");
        drop((stdout, stderr));
        assert_eq!(open_fds(), before);
    });
}

/// A child that its own child traces, which becomes a child of this process. It returns 8 or exits with 5.
pub(crate) fn traced_child(returns: bool) -> (Child<i32>, Pid) {
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).unwrap();
    let (tell, told) = channel::<i32>().unwrap();
    let child = spawn((tell, returns), |(tell, returns): (Sender<i32>, bool)| {
        // Where Yama says who may trace whom.
        let anyone = nix::libc::c_ulong::MAX;
        // SAFETY: sets a number.
        #[allow(unsafe_code, reason = "no safe way to set it")]
        unsafe {
            nix::libc::prctl(nix::libc::PR_SET_PTRACER, anyone)
        };
        let (attached, wait) = channel::<()>().unwrap();
        let tracer = forked(move || {
            nix::unistd::alarm::set(60);
            nix::sys::ptrace::seize(getppid(), nix::sys::ptrace::Options::empty()).unwrap();
            attached.send(()).unwrap();
            nix::unistd::pause();
        });
        wait.recv().unwrap();
        tell.send(tracer.pid.as_raw()).unwrap();
        if !returns {
            exit(5);
        }
        8
    });
    (child.unwrap(), Pid::from_raw(told.recv().unwrap()))
}

#[test]
fn a_child_that_its_own_child_traces_delays_nobody() {
    in_own_process(|| {
        for returns in [true, false] {
            let (mut child, tracer) = traced_child(returns);
            let joined = child.join_timeout(DEADLINE / 4);
            match returns {
                true => assert_eq!(joined.unwrap(), 8),
                false => assert_eq!(end_of(joined), ChildEnd::Unknown),
            }
            nix::sys::signal::kill(tracer, Signal::SIGKILL).unwrap();
            nix::sys::wait::waitpid(tracer, None).unwrap();
        }
        // And they are reaped afterwards.
        for _ in 0..2 {
            spawn((), |()| ()).unwrap().join().unwrap();
        }
        let pid = getpid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        assert_eq!(children, "");
    });
}

#[test]
fn where_sigchld_is_ignored_a_child_that_ends_at_once_is_joined_all_the_same() {
    in_own_process(|| {
        // SAFETY: no handler is installed.
        #[allow(unsafe_code, reason = "no safe way to change the action of a signal")]
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.unwrap();
        for _ in 0..300 {
            spawn((), |()| ()).unwrap().join().unwrap();
        }
        let unknown = spawn((), |()| exit(1)).unwrap();
        assert_eq!(end_of::<()>(unknown.join()), ChildEnd::Unknown);
    });
}

#[test]
fn many_children_whose_handles_are_dropped_take_up_nothing() {
    in_own_process(|| {
        let before = open_fds();
        let (go, wait) = channel::<()>().unwrap();
        for _ in 0..400 {
            drop(spawn(wait.clone(), |wait: Receiver<()>| drop(wait.recv())).unwrap());
        }
        drop(wait);
        assert_eq!(open_fds().len(), before.len() + 1, "the sender");
        drop(go);
        let pid = getpid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        while !std::fs::read_to_string(&path).unwrap().is_empty() {
            spawn((), |()| ()).unwrap().join().unwrap();
        }
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_spawn_does_not_wait_for_the_reader_of_standard_output() {
    in_own_process(|| {
        let (mut read, write) = pipe();
        nix::unistd::dup2_stdout(write).unwrap();
        print!("before ");
        // SAFETY: the pipe is open.
        #[allow(unsafe_code, reason = "fills the pipe behind the back of std")]
        let stdout = unsafe { BorrowedFd::borrow_raw(1) };
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        fcntl(stdout, FcntlArg::F_SETFL(flags)).unwrap();
        let mut filled = 0;
        while let Ok(len) = nix::unistd::write(stdout, &[b'.'; 4096]) {
            filled += len;
        }
        fcntl(stdout, FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
        // It returns, and what this process has not written yet is not printed by the child.
        let child = spawn((), |()| ()).unwrap();
        child.join().unwrap();
        let mut bytes = vec![0; filled];
        read.read_exact(&mut bytes).unwrap();
        print!("after");
        std::io::stdout().flush().unwrap();
        nix::unistd::dup2_stdout(File::create("/dev/null").unwrap()).unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        println!("1 passed");
        assert_eq!(text, "before after");
    });
}

#[test]
fn an_unchecked_spawn_does_not_wait_for_another_thread_that_prints() {
    in_own_process(|| {
        std::thread::scope(|scope| {
            let (has, is_held) = std::sync::mpsc::channel();
            let (done, wait) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                let _lock = std::io::stdout().lock();
                has.send(()).unwrap();
                wait.recv().unwrap();
            });
            is_held.recv().unwrap();
            // SAFETY: the other thread only waits, and the child does not print.
            #[allow(unsafe_code, reason = "this is the function under test")]
            let child = unsafe { spawn_unchecked(1, |n: u32| n + 1) }.unwrap();
            assert_eq!(child.join().unwrap(), 2);
            done.send(()).unwrap();
        });
    });
}

#[test]
fn threads_that_the_arguments_start_count_as_well() {
    struct StartsOne;
    impl Serialize for StartsOne {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            std::thread::spawn(std::thread::park);
            serializer.serialize_unit()
        }
    }
    in_own_process(|| {
        let error = spawn(StartsOne, |_| ()).unwrap_err();
        assert!(matches!(error, Error::MultiThreaded), "{error}");
    });
}

#[test]
fn a_function_may_fail_with_whatever_error_there_is() {
    fn fails(how: u32) -> Result<u32, Failure> {
        match how {
            0 => Ok("1".parse()?),
            1 => Ok("x".parse()?),
            2 => Err(Error::Disconnected)?,
            _ => Err(Failure::new("boxed".to_owned())),
        }
    }
    in_own_process(|| {
        let texts: Vec<_> = (0..4)
            .map(|how| spawn(how, fails).unwrap().join().unwrap())
            .collect();
        assert_eq!(texts[0], Ok(1));
        assert_eq!(
            texts[1].as_ref().unwrap_err().to_string(),
            "invalid digit found in string"
        );
        assert!(
            texts[2]
                .as_ref()
                .unwrap_err()
                .message()
                .contains("disconnected")
        );
        assert_eq!(texts[3].as_ref().unwrap_err().message(), "boxed");
    });
}

#[test]
fn a_socket_that_the_program_made_itself_is_not_inherited() {
    in_own_process(|| {
        let (_tx, rx) = channel::<u8>().unwrap();
        fcntl(&rx, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let number = rx.as_fd().as_raw_fd();
        // SAFETY: this process has one thread.
        #[allow(unsafe_code, reason = "no safe way to set a variable")]
        unsafe {
            std::env::set_var("WORMHOLE_FD", number.to_string())
        };
        let error = wormhole::inherit::<u8>().unwrap_err();
        assert!(error.to_string().contains("has made itself"), "{error}");
        assert!(rx.try_recv().is_err(), "still this one's");
    });
}

#[test]
fn nothing_of_this_crate_takes_the_number_of_a_standard_stream() {
    /// What stands there after each step.
    fn streams(directory: String) -> Vec<(u32, String)> {
        for stream in 0..3 {
            nix::unistd::close(stream).unwrap();
        }
        let mut found = Vec::new();
        let mut look = |step| {
            let open = open_fds();
            found.extend(open.range(..3).map(|(_, link)| (step, link.clone())));
        };
        let (tx, rx) = channel::<(String, Option<Receiver<Blob>>)>().unwrap();
        look(1);
        let (blobs, blob) = channel().unwrap();
        tx.send(("x".repeat(300_000), Some(blob))).unwrap();
        blobs.send(Blob::from_bytes(b"some").unwrap()).unwrap();
        let blob = rx.recv().unwrap().1.unwrap();
        look(2);
        let blob = blob.recv().unwrap();
        look(3);
        let mut set = ReceiverSet::new().unwrap();
        set.add(rx).unwrap();
        look(4);
        let path = std::path::Path::new(&directory).join("socket");
        let listener = Listener::<u8>::bind(&path).unwrap();
        let client = Sender::<u8>::connect(&path).unwrap();
        let accepted = listener.accept().unwrap();
        look(5);
        let child = spawn((), |()| ()).unwrap();
        look(6);
        let pool = Pool::new(2, |n: u8| n).unwrap();
        look(7);
        let fresh = PoolOptions::new(1).fresh().run(|n: u8| n).unwrap();
        look(8);
        let program = Builder::new().spawn_command(Command::new("true"), ());
        look(9);
        program.unwrap().join().unwrap();
        child.join().unwrap();
        drop((
            tx, blobs, blob, set, listener, client, accepted, pool, fresh,
        ));
        found
    }
    in_own_process(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap().to_owned();
        let found = spawn(path, streams).unwrap().join().unwrap();
        assert!(found.is_empty(), "{found:?}");
    });
}
