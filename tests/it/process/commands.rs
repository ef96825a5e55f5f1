//! Other programs, and what they are handed. The program is this test binary.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde::{Deserialize, Serialize};
use wormhole::process::Builder;
use wormhole::{Error, Options, Receiver, Sender, channel, inherit, spawn_command};

use crate::support::{
    DEADLINE, DescriptorLimit, deny_with, forked, in_own_process, open_fds, os_error,
    output_within, pipe, test_as_program, two_way_pair,
};

const ROLE: &str = "TEST_PROGRAM";

/// What this test binary does as a program of its own.
#[test]
fn program() {
    match std::env::var(ROLE).as_deref() {
        Ok("greet") => {
            let (name, reply): (String, Sender<String>) = inherit().unwrap();
            reply.send(format!("hello, {name}")).unwrap();
        }
        Ok("measure") => {
            let (text, reply): (String, Sender<usize>) = inherit().unwrap();
            reply.send(text.len()).unwrap();
        }
        Ok("write") => {
            let Written { mut file, ends } = inherit().unwrap();
            let number = ends[0].recv().unwrap();
            write!(file, "number {number}").unwrap();
        }
        Ok("leave") => {}
        Ok("list") => list(),
        Ok("refused") => say(&inherit::<()>().unwrap_err()),
        Ok("opens it itself") => {
            // The variable names what is the next number in a process that has only its streams.
            let number: i32 = std::env::var("WORMHOLE_FD").unwrap().parse().unwrap();
            let (tx, _rx) = channel::<u32>().unwrap();
            let higher = nix::fcntl::fcntl(&tx, FcntlArg::F_DUPFD_CLOEXEC(number)).unwrap();
            assert_eq!(higher, number);
            say(&inherit::<()>().unwrap_err());
        }
        Ok("twice") => {
            let () = inherit().unwrap();
            say(&inherit::<()>().unwrap_err());
        }
        Ok("wrong type") => {
            say(&inherit::<Vec<u8>>().unwrap_err());
            say(&inherit::<()>().unwrap_err());
        }
        Ok("starts another") => {
            let () = inherit().unwrap();
            let mut another = as_program("refused");
            another.env("WORMHOLE_FD", std::env::var("WORMHOLE_FD").unwrap());
            print!("{}", said(another));
        }
        Ok(role) => panic!("{role}"),
        Err(_) => {} // a test among others
    }
}

#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(with = "wormhole::fd")]
    file: File,
    ends: Vec<Receiver<u32>>,
}

const SAYS: &str = "program says: ";

fn say(words: &dyn std::fmt::Display) {
    println!("\n{SAYS}{words}");
}

fn as_program(role: &str) -> Command {
    let mut command = test_as_program("process::commands::program");
    command
        .env(ROLE, role)
        .env_remove("WORMHOLE_FD")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// What a program says until it ends.
fn said(command: Command) -> String {
    let output = output_within(DEADLINE, command);
    assert!(output.status.success(), "{output:?}");
    lines_said(&String::from_utf8(output.stdout).unwrap())
}

fn lines_said(text: &str) -> String {
    let said = text.lines().filter(|line| line.starts_with(SAYS));
    said.map(|line| format!("\n{line}\n")).collect()
}

/// What a program that is handed `args` says.
fn said_with<A: Serialize>(role: &str, args: A) -> Vec<String> {
    let (mut read, write) = pipe();
    let mut command = as_program(role);
    command.stdout(write);
    let mut program = spawn_command(command, args).unwrap();
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert!(program.wait().unwrap().success(), "{text}");
    let lines = text.lines().filter_map(|line| line.strip_prefix(SAYS));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_program_gets_its_arguments() {
    in_own_process(|| {
        let before = open_fds();
        let (reply, answer) = channel::<String>().unwrap();
        let args = ("world".to_owned(), reply);
        let mut program = spawn_command(as_program("greet"), args).unwrap();
        assert_eq!(answer.recv().unwrap(), "hello, world");
        // No copy of the end has stayed here.
        assert!(matches!(answer.recv(), Err(Error::Disconnected)));
        assert!(program.wait().unwrap().success());

        let (read, write) = pipe();
        let (tx, rx) = channel().unwrap();
        let args = Written {
            file: write,
            ends: vec![rx],
        };
        let mut program = spawn_command(as_program("write"), args).unwrap();
        tx.send(7).unwrap();
        assert_eq!(std::io::read_to_string(read).unwrap(), "number 7");
        assert!(program.wait().unwrap().success());
        drop((answer, tx, program));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn arguments_of_any_length_arrive() {
    in_own_process(|| {
        for len in [0, 200_000, 212_000, 300_000, 10_000_000] {
            let (reply, answer) = channel::<usize>().unwrap();
            let args = ("x".repeat(len), reply);
            let mut program = spawn_command(as_program("measure"), args).unwrap();
            assert_eq!(answer.recv().unwrap(), len);
            assert!(program.wait().unwrap().success());
        }
    });
}

#[test]
fn one_message_of_any_length_fits_an_empty_channel() {
    for buffer in [0, 1, 2048, 4096, 20_000, 100_000] {
        for len in [0, 1000, 2000, 4000, 30_000, 212_000, 300_000, 5_000_000] {
            let (tx, rx) = match buffer {
                0 => channel::<String>(),
                bytes => Options::new().buffer(bytes).channel(),
            }
            .unwrap();
            tx.try_send("x".repeat(len)).unwrap();
            assert_eq!(rx.try_recv().unwrap().len(), len, "buffer of {buffer}");
        }
    }
}

#[test]
fn arguments_that_the_program_does_not_take_are_gone_with_it() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let mut program = spawn_command(as_program("leave"), tx).unwrap();
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        program.wait().unwrap();
    });
}

#[test]
fn a_program_that_cannot_be_started_is_an_error_that_leaves_nothing() {
    in_own_process(|| {
        let before = open_fds();
        let (tx, rx) = channel::<u32>().unwrap();
        let error = spawn_command(Command::new("/does/not/exist"), tx).unwrap_err();
        assert_eq!(error.to_string(), "cannot start a program");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.starts_with("`/does/not/exist`: "), "{cause}");
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        let error = spawn_command(as_program("leave"), vec![rx; 300]).unwrap_err();
        assert!(matches!(error, Error::TooManyFds { count: 300, .. }));
        assert_eq!(open_fds(), before);
    });
}

/// The open descriptors of this program: which are close-on-exec, and which a program that it
/// starts has.
fn list() {
    let args: (Sender<Listing>, Receiver<()>) = inherit().unwrap();
    let shell = sockets_of_a_shell();
    let cloexec = |(number, link): (i32, String)| {
        let path = format!("/proc/self/fdinfo/{number}");
        let flags = std::fs::read_to_string(path).unwrap_or_default();
        let flags = flags.lines().find_map(|line| line.strip_prefix("flags:\t"));
        let flags = flags.map_or(0, |text| i64::from_str_radix(text, 8).unwrap());
        (number, (link, flags & i64::from(nix::libc::O_CLOEXEC) != 0))
    };
    let open = open_fds().into_iter().map(cloexec).collect();
    args.0.send(Listing { open, shell }).unwrap();
}

#[derive(Serialize, Deserialize)]
struct Listing {
    /// Of the program: what each number is, and whether it is close-on-exec.
    open: BTreeMap<i32, (String, bool)>,
    /// Of a shell that it starts: the sockets.
    shell: Vec<String>,
}

/// The sockets among the descriptors that a program started by this one has.
fn sockets_of_a_shell() -> Vec<String> {
    let mut shell = Command::new("sh");
    shell.args(["-c", "for fd in /proc/$$/fd/*; do readlink $fd; done; true"]);
    shell.stdin(Stdio::null());
    let output = output_within(DEADLINE, shell);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let sockets = text.lines().filter(|link| link.starts_with("socket:"));
    sockets.map(str::to_owned).collect()
}

#[test]
fn a_program_has_its_arguments_and_standard_streams_and_what_it_starts_has_neither() {
    in_own_process(|| {
        let (_others, _pairs) = (channel::<u8>().unwrap(), two_way_pair());
        let (tx, rx) = channel().unwrap();
        let (leave, wait) = channel::<()>().unwrap();
        let mut program = spawn_command(as_program("list"), (tx, wait)).unwrap();
        let Listing { open, shell } = rx.recv().unwrap();
        drop(leave);
        program.wait().unwrap();
        assert!(shell.is_empty(), "{shell:?}");
        let sockets: Vec<_> = open
            .iter()
            .filter(|(number, (link, _))| **number > 2 && link.starts_with("socket:"))
            .collect();
        assert_eq!(sockets.len(), 2, "{open:?}");
        assert!(sockets.iter().all(|(_, (_, cloexec))| *cloexec), "{open:?}");
    });
}

#[test]
fn nothing_leaks_into_programs_that_other_threads_start() {
    in_own_process(|| {
        std::thread::scope(|scope| {
            let starts = scope.spawn(|| {
                for _ in 0..40 {
                    let (tx, rx) = channel::<u8>().unwrap();
                    let mut program = Command::new("true");
                    program.stdin(Stdio::null());
                    let mut program = spawn_command(program, tx).unwrap();
                    assert!(matches!(rx.recv(), Err(Error::Disconnected)));
                    program.wait().unwrap();
                }
            });
            while !starts.is_finished() {
                assert_eq!(sockets_of_a_shell(), [""; 0]);
            }
        });
    });
}

/// Runs `body` while there is another thread, which only waits.
fn beside_a_thread(body: impl FnOnce()) {
    std::thread::scope(|scope| {
        let (over, wait) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || wait.recv());
        let over = over; // also if `body` panics
        body();
        drop(over);
    });
}

#[test]
fn a_program_that_is_started_beside_threads_has_its_pipes_and_nothing_is_left() {
    in_own_process(|| {
        beside_a_thread(|| {
            let before = open_fds();
            let mut command = Command::new("sh");
            command.args(["-c", "tr a-z A-Z; echo late >&2; exit 3"]);
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let (tx, rx) = channel::<u8>().unwrap();
            let mut program = spawn_command(command, tx).unwrap();
            program.stdin.take().unwrap().write_all(b"hello").unwrap();
            let output = program.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(3));
            assert_eq!(
                (&*output.stdout, &*output.stderr),
                (&b"HELLO"[..], &b"late\n"[..])
            );
            assert!(matches!(rx.recv(), Err(Error::Disconnected)));

            let mut command = Command::new("cat");
            command.stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = Builder::new().spawn_command(command, ()).unwrap();
            assert!(child.take_stdin().is_none() && child.take_stderr().is_none());
            assert_eq!(
                std::io::read_to_string(child.take_stdout().unwrap()).unwrap(),
                ""
            );
            child.join().unwrap();
            drop((rx, program_that_is_missing()));
            assert_eq!(open_fds(), before);
        });
    });
}

fn program_that_is_missing() -> Error {
    spawn_command(Command::new("/does/not/exist"), ()).unwrap_err()
}

#[test]
fn nothing_of_it_stays_open_in_this_process() {
    in_own_process(|| {
        beside_a_thread(|| {
            for _ in 0..500 {
                let (tx, rx) = channel::<u8>().unwrap();
                program_that_is_missing();
                drop(tx);
                // At once: no other process has ever had it.
                assert!(matches!(rx.try_recv(), Err(Error::Disconnected)));
            }
        });
    });
}

// Where seccompiler knows filters.
#[cfg(target_arch = "x86_64")]
#[test]
fn without_the_calls_of_later_kernels_programs_start_beside_threads_all_the_same() {
    use nix::libc::{SYS_close_range, SYS_unshare};
    in_own_process(|| {
        for denied in [SYS_close_range, SYS_unshare] {
            forked(|| {
                deny_with(nix::Error::ENOSYS, [denied]);
                beside_a_thread(|| {
                    let before = open_fds();
                    // Not close-on-exec, as programs of others leave them.
                    let (read, write) = nix::unistd::pipe().unwrap();
                    let (tx, rx) = channel::<u8>().unwrap();
                    let mut command = Command::new("sh");
                    command.args(["-c", "echo /proc/$$/fd/*"]);
                    command.stdin(Stdio::null()).stdout(Stdio::piped());
                    let mut builder = Builder::new();
                    builder.only_arguments(true);
                    let mut child = builder.spawn_command(command, tx).unwrap();
                    let text = std::io::read_to_string(child.take_stdout().unwrap()).unwrap();
                    // The streams, what is handed over, and what the shell reads the list with.
                    assert!(text.split_whitespace().count() <= 5, "{text}");
                    child.join().unwrap();
                    assert!(matches!(rx.recv(), Err(Error::Disconnected)));
                    let (tx, ended) = channel::<u8>().unwrap();
                    program_that_is_missing();
                    drop(tx);
                    assert!(matches!(ended.try_recv(), Err(Error::Disconnected)));
                    drop((rx, ended, read, write));
                    assert_eq!(open_fds(), before);
                });
            })
            .join();
        }
    });
}

#[test]
fn without_room_for_its_pipes_no_program_is_left() {
    in_own_process(|| {
        beside_a_thread(|| {
            let limit = DescriptorLimit::new();
            for room in 0..12 {
                limit.leave_room_for(20);
                let before = open_fds();
                limit.leave_room_for(room);
                let mut command = Command::new("cat");
                command
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped());
                match spawn_command(command, ()) {
                    Ok(program) => assert!(program.wait_with_output().unwrap().status.success()),
                    Err(error) => assert!(matches!(error, Error::Io { .. }), "{error}"),
                }
                let nobody = nix::sys::wait::waitpid(None::<nix::unistd::Pid>, None);
                assert_eq!(nobody, Err(nix::Error::ECHILD), "with room for {room}");
                limit.leave_room_for(20);
                assert_eq!(open_fds(), before);
            }
            drop(limit);
        });
    });
}

#[test]
fn the_descriptor_is_none_of_the_standard_streams() {
    in_own_process(|| {
        let (reply, answer) = channel::<String>().unwrap();
        // The next channel gets these numbers, which are the streams of the program that is started.
        nix::unistd::close(0).unwrap();
        nix::unistd::close(1).unwrap();
        let mut program = spawn_command(as_program("greet"), ("one".to_owned(), reply)).unwrap();
        assert_eq!(answer.recv().unwrap(), "hello, one");
        assert!(program.wait().unwrap().success());
    });
}

#[test]
fn inherit_says_why_there_is_nothing() {
    in_own_process(|| {
        let refusal = |value: &str| {
            let mut command = as_program("refused");
            command.env("WORMHOLE_FD", value);
            said(command).trim().to_owned()
        };
        let expect = |value: &str, reason: &str| {
            assert_eq!(
                refusal(value),
                format!("{SAYS}nothing to inherit: {reason}")
            );
        };
        assert_eq!(
            said(as_program("refused")).trim(),
            format!("{SAYS}nothing to inherit: the environment variable WORMHOLE_FD is not set")
        );
        for value in ["", "x", "3x", "-1", "2", "0", "99999999999"] {
            expect(
                value,
                &format!("WORMHOLE_FD={value} is no descriptor that can be inherited"),
            );
        }
        expect("777", "WORMHOLE_FD=777 names a closed descriptor");
        let mut opens = as_program("opens it itself");
        opens.env("WORMHOLE_FD", "777");
        assert_eq!(
            said(opens).trim(),
            format!(
                "{SAYS}nothing to inherit: WORMHOLE_FD=777 names a foreign descriptor: it is close-on-exec"
            )
        );

        // Descriptors that the program does inherit.
        let inheritable = |fd: OwnedFd| {
            fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
            fd
        };
        let file = inheritable(File::open("/dev/null").unwrap().into());
        let number = file.as_raw_fd();
        expect(
            &number.to_string(),
            &format!(
                "WORMHOLE_FD={number} names a foreign descriptor: {}",
                os_error(nix::Error::ENOTSOCK)
            ),
        );
        let (stream, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let stream = inheritable(stream.into());
        let number = stream.as_raw_fd();
        expect(
            &number.to_string(),
            &format!(
                "WORMHOLE_FD={number} names a foreign descriptor: a unix socket of type 1, not SOCK_SEQPACKET"
            ),
        );
        let (pair, _peer) = two_way_pair();
        let pair = inheritable(pair);
        expect(&pair.as_raw_fd().to_string(), "the channel is empty");
    });
}

#[test]
fn inherit_works_once() {
    in_own_process(|| {
        let twice = "nothing to inherit: it was taken before";
        assert_eq!(said_with("twice", ()), [twice]);
        let said = said_with("wrong type", ());
        assert!(said[0].starts_with("cannot decode a message as `alloc::vec::Vec<u8>`"));
        assert_eq!(said[1], twice);
    });
}

#[test]
fn a_program_that_a_program_starts_inherits_nothing() {
    in_own_process(|| {
        let (mut read, write) = pipe();
        let mut command = as_program("starts another");
        command.stdout(write);
        let mut program = spawn_command(command, ()).unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert!(program.wait().unwrap().success());
        assert!(text.contains("names a closed descriptor"), "{text}");
    });
}
