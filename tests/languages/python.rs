//! `clients/python`: its own tests, and Python programs at the other end of this crate's channels.
//!
//! Without a python3 of 3.9 or later they are skipped and say so, unless the environment variable CI is set.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use wormhole::{
    Blob, Error, JobError, Listener, Pool, PoolOptions, Receiver, Sender, channel, inherit,
    spawn_command,
};

use crate::support::{DEADLINE, in_own_process, open_fds, output_within};

fn client() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python")
}

/// A python3 that finds the package, if there is one.
fn python() -> Option<Command> {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", client());
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let mut check = Command::new("python3");
    check.args(["-c", "import sys; sys.exit(sys.version_info < (3, 9))"]);
    if check.status().is_ok_and(|status| status.success()) {
        return Some(command);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "CI needs a python3 of 3.9 or later"
    );
    eprintln!("skipped: no python3 of 3.9 or later");
    None
}

/// The same for a program, as text. It has a deadline of its own.
fn program(code: &str) -> Option<Command> {
    let mut command = python()?;
    let start = "import signal; signal.alarm(60)\nimport wormhole_ipc as wormhole\nfrom wormhole_ipc import *\n\
                 from dataclasses import dataclass\nfrom typing import *\n";
    command.arg("-c").arg(format!("{start}{code}"));
    Some(command)
}

#[test]
#[ignore = "CI runs them by themselves, with all versions of Python: `.ci/run client_python`"]
fn the_clients_own_tests_pass() {
    let Some(mut command) = python() else { return };
    command.args(["-W", "error", "-m", "unittest"]);
    command.current_dir(client()).stdin(Stdio::null());
    let output = output_within(DEADLINE, command);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    // "Ran 69 tests in 4.9s"
    let (_, count) = errors.split_once("\nRan ").unwrap();
    let count: u32 = count.split(' ').next().unwrap().parse().unwrap();
    assert!(count >= 60, "{errors}");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Order {
    Stop,
    Scale(f64),
    Move { x: i64, y: Option<i64> },
    Name(String, Vec<u8>),
}

#[test]
fn values_of_all_kinds_go_to_python_and_come_back() {
    in_own_process(|| {
        let Some(python) = program(
            "
@dataclass
class Stop: pass
class Scale(NamedTuple):
    factor: float
@dataclass
class Move:
    x: I64
    y: Optional[I64]
class Name(NamedTuple):
    text: str
    tag: bytes
Command = Union[Stop, Scale, Move, Name]
Value = Tuple[Receiver[Command], Sender[Command]]
commands, back = wormhole.inherit(Value)
for command in commands:
    back.send(command)
",
        ) else {
            return;
        };
        let before = open_fds();
        let (tx, commands) = channel::<Order>().unwrap();
        let (back, rx) = channel::<Order>().unwrap();
        let mut child = spawn_command(python, (commands, back)).unwrap();
        let long = "\u{1f600}\0\u{2028}\"\\".repeat(100_000);
        for command in [
            Order::Stop,
            Order::Scale(0.1 + 0.2),
            Order::Scale(-0.0),
            Order::Scale(5e-324),
            Order::Scale(f64::MAX),
            Order::Move {
                x: i64::MIN,
                y: None,
            },
            Order::Move {
                x: (1 << 53) + 1,
                y: Some(i64::MAX),
            },
            Order::Name("naïve".to_owned(), vec![0, 127, 255]),
            Order::Name(long, vec![]),
        ] {
            tx.by_ref().send(&command).unwrap();
            assert_eq!(rx.recv().unwrap(), command);
        }
        drop(tx);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        assert!(child.wait().unwrap().success());
        drop((rx, child));
        assert_eq!(open_fds(), before);
    });
}

#[derive(Debug, Serialize, Deserialize)]
struct Job {
    #[serde(with = "wormhole::fd")]
    input: File,
    picture: Blob,
    reply: Sender<Reply>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    text: String,
    picture: Blob,
    more: Receiver<u32>,
}

#[test]
fn files_blobs_and_ends_go_to_python_and_come_back() {
    in_own_process(|| {
        let Some(python) = program(
            "
import io
@dataclass
class Reply:
    text: str
    picture: Blob
    more: Receiver[U32]
@dataclass
class Job:
    input: io.FileIO
    picture: Blob
    reply: Sender[Reply]
for job in wormhole.inherit(Receiver[Job]):
    assert bytes(job.picture) == b'picture' * 10_000
    tx, more = wormhole.channel(U32)
    text = job.input.read().decode()
    job.reply.send(Reply(text, Blob.from_bytes(bytes(job.picture)[::-1]), more), move=True)
    for number in range(1000):
        tx.send(number)
    del job, tx
",
        ) else {
            return;
        };
        let before = open_fds();
        let (tx, jobs) = channel::<Job>().unwrap();
        let mut child = spawn_command(python, jobs).unwrap();
        let picture = b"picture".repeat(10_000);
        for round in 0..3 {
            let mut input = tempfile::tempfile().unwrap();
            write!(input, "round {round}").unwrap();
            input.rewind().unwrap();
            let (reply, replies) = channel::<Reply>().unwrap();
            let job = Job {
                input,
                picture: Blob::from_bytes(&picture).unwrap(),
                reply,
            };
            tx.send(job).unwrap();
            let reply = replies.recv().unwrap();
            assert_eq!(reply.text, format!("round {round}"));
            assert!(reply.picture.iter().rev().eq(&picture));
            let numbers = reply.more.iter().map(Result::unwrap);
            assert!(numbers.eq(0..1000));
            assert!(matches!(replies.recv(), Err(Error::Disconnected)));
        }
        drop(tx);
        assert!(child.wait().unwrap().success());
        drop(child);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn whoever_is_killed_is_gone_for_the_other() {
    in_own_process(|| {
        let code = "
hello, requests = wormhole.inherit(Tuple[Sender[str], Receiver[str]])
hello.send('ready')
requests.recv()
";
        let Some(python) = program(code) else { return };
        let (hello, greeting) = channel::<String>().unwrap();
        let (tx, requests) = channel::<String>().unwrap();
        let mut child = spawn_command(python, (hello, requests)).unwrap();
        assert_eq!(greeting.recv().unwrap(), "ready");
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        kill(pid, Signal::SIGKILL).unwrap();
        assert!(matches!(greeting.recv(), Err(Error::Disconnected)));
        assert!(matches!(tx.send(String::new()), Err(Error::Disconnected)));
        child.wait().unwrap();
    });
}

const ROLE: &str = "TEST_PROGRAM";

/// What this test binary does as a program that Python starts.
#[test]
fn program_for_python() {
    if std::env::var_os(ROLE).is_none() {
        return; // a test among others
    }
    let (name, reply): (String, Sender<(String, usize)>) = inherit().unwrap();
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().count();
    // The standard streams, the reply, and the one that reads the list.
    assert_eq!(entries, 5);
    reply.send((format!("hello, {name}"), name.len())).unwrap();
}

#[test]
fn python_starts_a_rust_program_and_hands_it_a_value() {
    let Some(mut python) = program(
        "
import os, subprocess, sys
before = set(os.listdir('/proc/self/fd'))
for name in ('Python', 'x' * 1_000_000):
    reply, replies = wormhole.channel(Tuple[str, int])
    command = [sys.argv[1], '--exact', 'python::program_for_python', '--test-threads=1']
    child = wormhole.spawn(command, (name, reply), env={**os.environ, 'TEST_PROGRAM': '1'},
        stdout=subprocess.DEVNULL)
    assert replies.recv() == ('hello, ' + name, len(name))
    try:
        replies.recv()
    except wormhole.Disconnected:
        pass
    assert child.wait() == 0
    replies.close()
assert set(os.listdir('/proc/self/fd')) == before
",
    ) else {
        return;
    };
    python
        .arg(std::env::current_exe().unwrap())
        .stdin(Stdio::null());
    let output = output_within(DEADLINE, python);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn python_connects_to_a_listener() {
    in_own_process(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server").display().to_string();
        for name in [path, format!("\0wormhole {}", std::process::id())] {
            let code = "
name = wormhole.inherit(str)
with wormhole.connect(name, str) as tx:
    tx.send('hello')
    tx.send('x' * 1_000_000)
";
            let Some(python) = program(code) else { return };
            let listener = Listener::<String>::bind(&name).unwrap();
            let mut child = spawn_command(python, name).unwrap();
            let (rx, peer) = listener.accept().unwrap();
            assert_eq!(peer.pid, Some(child.id()));
            assert_eq!(rx.recv().unwrap(), "hello");
            assert_eq!(rx.recv().unwrap().len(), 1_000_000);
            assert!(matches!(rx.recv(), Err(Error::Disconnected)));
            assert!(child.wait().unwrap().success());
        }
    });
}

#[test]
fn what_the_two_languages_cannot_say_to_each_other_is_an_error() {
    in_own_process(|| {
        let code = "
rx, back = wormhole.inherit(Tuple[Receiver[Any], Sender[Any]])
floats = Receiver(rx.detach(), float)
for _ in range(2):
    try:
        floats.recv()
    except wormhole.Decode as error:
        back.send(str(error))
for bad in (float('nan'), float('inf'), '\\ud800'):
    try:
        back.send(bad)
    except wormhole.Encode:
        back.send(True)
back.send(2 ** 64)
";
        let Some(python) = program(code) else { return };
        let (tx, rx) = channel::<Option<f64>>().unwrap();
        let (back, answers) = channel::<serde_json::Value>().unwrap();
        let mut child = spawn_command(python, (rx, back)).unwrap();
        for _ in 0..2 {
            tx.send(None).unwrap();
            let error = answers.recv().unwrap();
            let text = error.as_str().unwrap();
            assert!(text.ends_with("expected a number, got null"), "{text}");
        }
        for _ in 0..3 {
            assert_eq!(answers.recv().unwrap(), true);
        }
        assert!(answers.recv().unwrap().is_f64()); // 2^64, for want of an integer type
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn a_python_program_is_the_worker_of_a_pool() {
    in_own_process(|| {
        let code = "
import os
def root(number: int) -> int:
    if number == 1000:
        os._exit(3)
    return int(number ** 0.5) if number >= 0 else int('none')
wormhole.work(root)
";
        if program(code).is_none() {
            return;
        }
        let before = open_fds();
        let mut pool: Pool<i64, u64> = PoolOptions::new(2)
            .command(move || program(code).unwrap())
            .unwrap();
        let mut outcomes = HashMap::new();
        for job in [16, -1, 1000, 81, 0] {
            outcomes.insert(pool.submit(job).unwrap(), job);
        }
        for _ in 0..outcomes.len() {
            let (id, outcome) = pool.recv_timeout(DEADLINE).unwrap();
            match (outcomes.remove(&id).unwrap(), outcome) {
                (16, Ok(4)) | (81, Ok(9)) | (0, Ok(0)) => {}
                (
                    -1,
                    Err(JobError::Panicked {
                        message,
                        place,
                        backtrace,
                    }),
                ) => {
                    assert!(message.starts_with("ValueError: "), "{message}");
                    assert_eq!(place.unwrap().split(':').count(), 3);
                    assert!(backtrace.unwrap().contains("in root"));
                }
                (1000, Err(JobError::Died { .. })) => {}
                (job, outcome) => panic!("{job}: {outcome:?}"),
            }
        }
        pool.finish().unwrap();
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn rust_connects_to_a_listener_in_python() {
    in_own_process(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        let code = "
path, ready = wormhole.inherit(Tuple[str, Sender[int]])
with Listener.bind(path, str) as listener:
    ready.send(os.getpid())
    rx, peer = listener.accept()
    ready.send(peer.pid)
    for text in rx:
        ready.send(len(text))
";
        let Some(python) = program(&format!("import os\n{code}")) else {
            return;
        };
        let (ready, answers) = channel::<u64>().unwrap();
        let name = path.display().to_string();
        let mut child = spawn_command(python, (name, ready)).unwrap();
        assert_eq!(answers.recv().unwrap(), u64::from(child.id()));
        let tx = Sender::<String>::connect(&path).unwrap();
        assert_eq!(answers.recv().unwrap(), u64::from(std::process::id()));
        for length in [5, 1_000_000] {
            tx.send("x".repeat(length)).unwrap();
            assert_eq!(answers.recv().unwrap(), length as u64);
        }
        drop(tx);
        assert!(matches!(answers.recv(), Err(Error::Disconnected)));
        assert!(child.wait().unwrap().success());
        assert!(!path.exists());
    });
}

#[test]
fn the_worker_of_the_readme_works() {
    let Some(command) = python() else { return };
    let mut source = String::new();
    let readme = client().join("README.md");
    File::open(readme)
        .unwrap()
        .read_to_string(&mut source)
        .unwrap();
    // The first program of the README, as it stands.
    let (_, code) = source.split_once("```python\n").unwrap();
    let (code, _) = code.split_once("```").unwrap();
    let code = code.to_owned();
    in_own_process(move || {
        #[derive(Serialize, Deserialize)]
        struct Job {
            name: String,
            #[serde(with = "wormhole::fd")]
            input: File,
            reply: Sender<i64>,
        }
        let mut command = command;
        command.arg("-c").arg(code);
        let (tx, jobs) = channel::<Job>().unwrap();
        let (reply, replies) = channel().unwrap();
        let mut child = spawn_command(command, jobs).unwrap();
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(b"twelve bytes").unwrap();
        input.rewind().unwrap();
        let name = "input".to_owned();
        tx.send(Job { name, input, reply }).unwrap();
        let answer = replies.recv();
        let answer = answer.unwrap_or_else(|error| panic!("{error}; {:?}", child.wait()));
        assert_eq!(answer, 12);
        drop(tx);
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn python_workers_answer_fail_and_die() {
    if python().is_none() {
        return;
    }
    let mut command = Command::new(crate::support::example("python_workers"));
    command.stdin(Stdio::null());
    let output = output_within(DEADLINE, command);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let printed = String::from_utf8(output.stdout).unwrap();
    let (answers, ends) = printed.split_at(printed.find("a worker").unwrap());
    let license = include_str!("../../LICENSE-MIT");
    let answers: Vec<&str> = answers.lines().collect();
    assert_eq!(
        answers[0],
        format!(
            "license: {} lines, {} words",
            license.lines().count(),
            license.split_whitespace().count()
        )
    );
    assert!(answers[1].starts_with("program: UnicodeDecodeError: 'utf-8' codec"));
    assert_eq!(
        answers[2..],
        ["crash: its worker died", "nothing: 0 lines, 0 words"]
    );
    let mut ends: Vec<&str> = ends.lines().collect();
    ends.sort_unstable();
    assert_eq!(
        ends,
        [
            "a worker ended with exit status: 0",
            "a worker ended with exit status: 0",
            "a worker ended with signal: 9 (SIGKILL)",
        ]
    );
}
