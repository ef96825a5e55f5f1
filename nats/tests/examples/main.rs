//! The example, run as its users run it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use tempfile::TempDir;

#[path = "../support/server.rs"]
#[allow(unreachable_pub, reason = "other programs include it as well")]
mod server;

use server::Server;

/// How long anything may take. Nobody waits for it to pass, but a hang fails then.
const DEADLINE: Duration = Duration::from_secs(60);

/// The program of the example. `cargo test` builds it; if only this test was asked for, it is built now.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let path = profile.join("examples/cluster_wordcount");
    if !path.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--example", "cluster_wordcount"]);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "{build:?}");
    }
    path
}

/// A program that is running, and is killed when the test is over.
struct Running {
    child: Child,
    printed: Option<[JoinHandle<Vec<u8>>; 2]>,
}

fn read_all(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut read = Vec::new();
        if let Some(mut stream) = stream {
            stream.read_to_end(&mut read).unwrap();
        }
        read
    })
}

fn start(command: &mut Command) -> Running {
    let mut child = command
        .env("LC_ALL", "C.UTF-8")
        .env_remove("POSIXLY_CORRECT") // it would make wc take no-break spaces for letters
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let printed = [read_all(child.stdout.take()), read_all(child.stderr.take())];
    Running {
        child,
        printed: Some(printed),
    }
}

/// Starts a machine of two workers.
fn machine(server: &Server) -> Running {
    start(Command::new(example()).args(["work", "--workers", "2", "--server", &server.url()]))
}

/// Starts to count.
fn count(server: &Server, paths: &[&Path]) -> Running {
    let mut command = Command::new(example());
    start(
        command
            .args(["count", "--server", &server.url()])
            .args(paths),
    )
}

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for its end, and gives its status and what it has printed.
    fn finish(mut self) -> (ExitStatus, String, String) {
        let status = eventually("end", || self.child.try_wait().unwrap());
        let printed = self.printed.take().unwrap();
        let [out, error] = printed.map(|stream| String::from_utf8(stream.join().unwrap()).unwrap());
        (status, out, error)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `probe` finds something. For what is seen in `/proc` only: nobody tells when that changes.
fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what} after {DEADLINE:?}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// The children of a process, of all its threads.
fn children(parent: Pid) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{parent}/task"));
    let threads = threads.into_iter().flatten().flatten(); // none: it has ended
    let lists = threads.map(|thread| fs::read_to_string(thread.path().join("children")));
    let lists: String = lists.map(Result::unwrap_or_default).collect();
    let pids = lists.split_whitespace().map(|pid| pid.parse().unwrap());
    pids.map(Pid::from_raw).collect()
}

/// A FIFO that blocks the worker that reads it until the test has it go on.
struct Fifo {
    path: PathBuf,
    end: File,
}

impl Fifo {
    fn new(directory: &TempDir) -> Self {
        let path = directory.path().canonicalize().unwrap().join("fifo");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let end = OpenOptions::new().read(true).write(true).open(&path);
        Fifo {
            path,
            end: end.unwrap(),
        }
    }

    fn is_open_in(&self, process: Pid) -> bool {
        let fds = fs::read_dir(format!("/proc/{process}/fd"));
        let mut fds = fds.into_iter().flatten().flatten(); // none: it has ended
        fds.any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == self.path))
    }

    /// Waits until a worker of one of these machines reads it: which machine, and which worker.
    fn reader(&self, machines: &[Running], dead: &[Pid]) -> (usize, Pid) {
        eventually("worker that reads the FIFO", || {
            let workers = machines.iter().enumerate().flat_map(|(index, machine)| {
                children(machine.pid())
                    .into_iter()
                    .map(move |pid| (index, pid))
            });
            let mut workers = workers.filter(|(_, pid)| !dead.contains(pid));
            workers.find(|(_, pid)| self.is_open_in(*pid))
        })
    }
}

/// Rows of a table: three numbers and a name.
fn rows(table: &str) -> Vec<([u64; 3], &str)> {
    let mut rows = Vec::new();
    for line in table.lines() {
        let mut numbers = line.split_whitespace().flat_map(str::parse);
        let numbers = [(); 3].map(|()| numbers.next().unwrap());
        let name = line.find(['/', 't']).unwrap(); // a path or the total
        rows.push((numbers, &line[name..]));
    }
    rows
}

#[test]
fn the_totals_are_those_of_wc_although_a_machine_is_lost_meanwhile() {
    for program in server::programs() {
        let server = Server::start(program);
        let directory = TempDir::new().unwrap();
        let mut fifo = Fifo::new(&directory);
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = root.parent().unwrap().canonicalize().unwrap();
        let [src, docs] = ["src", "docs"].map(|name| root.join(name));
        let mut machines: Vec<_> = (0..3).map(|_| machine(&server)).collect();
        let counting = count(&server, &[&fifo.path, &src, &docs]);

        // The machine that has the FIFO is lost, and its workers with it. Another one gets it.
        let (lost, first) = fifo.reader(&machines, &[]);
        let lost = machines.swap_remove(lost);
        lost.signal(Signal::SIGKILL);
        assert!(!lost.finish().0.success());
        eventually("end of the worker", || {
            (!fifo.is_open_in(first)).then_some(())
        });
        fifo.reader(&machines, &[first]);
        let text = "from the\nfifo\n";
        fifo.end.write_all(text.as_bytes()).unwrap();
        drop(fifo.end);

        let (status, table, errors) = counting.finish();
        assert!(status.success() && errors.is_empty(), "{table}{errors}");
        let rows = rows(&table);
        let all = [&src, &docs].into_iter().flat_map(walkdir::WalkDir::new);
        let all = all.map(|entry| entry.unwrap().into_path());
        let expected = start(Command::new("wc").args(all.filter(|path| path.is_file())));
        let (_, expected, _) = expected.finish();
        let mut expected = self::rows(&expected);
        let (total, _) = expected.pop().unwrap();
        let (own_total, _) = *rows.last().unwrap();
        assert_eq!(
            own_total,
            [total[0] + 2, total[1] + 3, total[2] + text.len() as u64]
        );
        assert_eq!(
            rows[0],
            ([2, 3, text.len() as u64], fifo.path.to_str().unwrap())
        );
        let mut files = rows[1..rows.len() - 1].to_vec();
        files.sort_unstable();
        expected.sort_unstable();
        assert_eq!(files, expected);

        for machine in machines {
            machine.signal(Signal::SIGTERM);
            let (status, _, errors) = machine.finish();
            assert!(status.success(), "{errors}");
        }
    }
}

#[test]
fn a_file_that_all_its_workers_die_of_is_given_up() {
    let Some(program) = server::newest() else {
        return;
    };
    let server = Server::start(&program);
    let directory = TempDir::new().unwrap();
    let fifo = Fifo::new(&directory);
    let other = directory.path().canonicalize().unwrap().join("other");
    fs::write(&other, "a b\n").unwrap();
    let machines = [machine(&server), machine(&server)];
    let counting = count(&server, &[&fifo.path, &other]);
    let mut dead = Vec::new();
    for _ in 0..10 {
        let (_, reader) = fifo.reader(&machines, &dead);
        kill(reader, Signal::SIGKILL).unwrap();
        dead.push(reader);
    }
    let (status, table, errors) = counting.finish();
    assert_eq!(status.code(), Some(1), "{errors}");
    let reason = "all who tried to count it died";
    assert_eq!(
        errors,
        format!("wordcount: {}: {reason}\n", fifo.path.display())
    );
    let [other_row, total] = rows(&table)[..] else {
        panic!("{table}");
    };
    assert_eq!(other_row, ([1, 2, 4], other.to_str().unwrap()));
    assert_eq!(total, ([1, 2, 4], "total"));
}

#[test]
fn wrong_arguments_are_refused() {
    for (arguments, reason) in [
        (&[][..], "work or count"),
        (&["play"], "play"),
        (&["work", "--workers", "0"], "\"0\""),
        (&["work", "a path"], "a path"),
        (&["count", "--wrong"], "--wrong"),
        (
            &["work", "--name", "a.b", "--server", "nats://127.0.0.1:1"],
            "127.0.0.1:1",
        ),
    ] {
        let (status, out, errors) = start(Command::new(example()).args(arguments)).finish();
        assert_eq!(status.code(), Some(2), "{arguments:?}");
        assert!(errors.starts_with("cluster_wordcount: "), "{errors}");
        assert!(errors.contains(reason), "{errors}");
        assert!(out.is_empty());
    }
    let (status, help, _) = start(Command::new(example()).arg("--help")).finish();
    assert!(status.success());
    assert!(help.starts_with("Usage: cluster_wordcount work "));
}
