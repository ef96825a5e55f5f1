//! The example `wordcount`: it prints what `wc` prints, and it outlives its workers.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, mkfifo};
use proptest::collection::vec;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

/// How long anything may take. Nobody waits for it to pass, but a hang fails then.
const DEADLINE: Duration = Duration::from_secs(60);

/// A program in a process group of its own, which is killed at the deadline.
struct Running {
    child: Child,
    /// Dropping the sender calls the alarm off. The thread says whether it went off before.
    alarm: Option<(mpsc::Sender<()>, JoinHandle<bool>)>,
}

struct Finished {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: String,
}

fn start(command: &mut Command) -> Running {
    let child = command.process_group(0).spawn().unwrap();
    let group = pid_of(&child);
    let (call_off, alarm) = mpsc::channel();
    let alarm = thread::spawn(move || {
        let late = alarm.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout);
        if late {
            let _ = killpg(group, Signal::SIGKILL);
        }
        late
    });
    Running {
        child,
        alarm: Some((call_off, alarm)),
    }
}

impl Running {
    fn pid(&self) -> Pid {
        pid_of(&self.child)
    }

    /// Waits for the end of the program, and before that for the end of what it prints: when no process
    /// is left that could print more, which includes workers.
    fn finish(mut self) -> Finished {
        let stdout = read_all(self.child.stdout.take());
        let stderr = read_all(self.child.stderr.take());
        let stdout = stdout.join().unwrap();
        let stderr = String::from_utf8(stderr.join().unwrap()).unwrap();
        // As long as the process is not reaped, the alarm cannot hit another one of the same id.
        let pid = Id::Pid(self.pid());
        waitid(pid, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        let (call_off, alarm) = self.alarm.take().unwrap();
        drop(call_off);
        let late = alarm.join().unwrap();
        let status = self.child.wait().unwrap();
        let printed = String::from_utf8_lossy(&stdout);
        assert!(
            !late,
            "still running after {DEADLINE:?}:\n{printed}{stderr}"
        );
        Finished {
            status,
            stdout,
            stderr,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that fails half way leaves nothing behind.
        if self.alarm.is_some() {
            let _ = killpg(self.pid(), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
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

/// The program, with its output in pipes.
fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C.UTF-8");
    command.env_remove("POSIXLY_CORRECT"); // it would make wc take no-break spaces for letters
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn wordcount() -> Command {
    command(crate::support::example("wordcount"))
}

/// What wc prints for these files.
fn wc<P: AsRef<OsStr>>(paths: &[P]) -> Vec<u8> {
    let finished = start(command("wc").args(paths)).finish();
    assert!(finished.status.success(), "{}", finished.stderr);
    finished.stdout
}

/// Compares the output for `arguments` with that of wc for `paths`.
fn assert_like_wc<A: AsRef<OsStr>, P: AsRef<OsStr>>(arguments: &[A], paths: &[P]) {
    let finished = start(wordcount().args(arguments)).finish();
    assert_eq!(finished.stderr, "");
    assert!(finished.status.success());
    let expected = wc(paths);
    if finished.stdout != expected {
        let (ours, theirs) = (lines(&finished.stdout), lines(&expected));
        let different = ours
            .iter()
            .zip(&theirs)
            .find(|(ours, theirs)| ours != theirs);
        panic!(
            "{} and {} lines, first difference: {different:?}",
            ours.len(),
            theirs.len()
        );
    }
}

fn lines(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    text.lines().map(str::to_owned).collect()
}

/// A directory with a file for each text.
fn directory<T: AsRef<[u8]>>(texts: &[T]) -> (TempDir, Vec<PathBuf>) {
    let directory = TempDir::new().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let name = |(index, text): (usize, &T)| {
        let path = root.join(format!("{index:04}"));
        fs::write(&path, text).unwrap();
        path
    };
    let paths = texts.iter().enumerate().map(name).collect();
    (directory, paths)
}

/// All regular files below a directory, in the order of their paths.
fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => files.extend(walk(&entry.path())),
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files.sort();
    files
}

/// The source directories of some of the packages that this one depends on.
fn sources() -> Vec<PathBuf> {
    let cargo = env!("CARGO");
    let version = start(command(cargo).arg("-vV")).finish();
    let version = lines(&version.stdout);
    let host = version.iter().find_map(|line| line.strip_prefix("host: "));
    let metadata = |offline: &[&str]| {
        let mut metadata = command(cargo);
        metadata.args(["metadata", "--format-version=1", "--locked"]);
        metadata.args(["--filter-platform", host.unwrap()]);
        start(
            metadata
                .args(offline)
                .current_dir(env!("CARGO_MANIFEST_DIR")),
        )
        .finish()
    };
    // Where nothing but this package has been built so far, those of the rest of the workspace are missing.
    let mut found = metadata(&["--offline"]);
    if !found.status.success() {
        found = metadata(&[]);
    }
    assert!(found.status.success(), "{}", found.stderr);
    let metadata: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let chosen = packages.filter(|package| {
        let name = package["name"].as_str().unwrap();
        ["nix", "proptest", "rustix", "serde", "serde_json"].contains(&name)
    });
    let manifests = chosen.map(|package| Path::new(package["manifest_path"].as_str().unwrap()));
    manifests
        .map(|path| path.parent().unwrap().to_owned())
        .collect()
}

// The counts.

#[test]
fn counts_of_source_trees_are_those_of_wc() {
    let directories = sources();
    let files: Vec<_> = directories.iter().flat_map(|path| walk(path)).collect();
    assert!(files.len() >= 300, "{} files", files.len());
    assert_like_wc(&directories, &files);
}

#[test]
fn counts_of_odd_text_are_those_of_wc() {
    let long_line = "long line, ünd \u{1f300}".repeat(100_000);
    let texts = [
        "",
        "\n",
        "\n\n\n",
        " ",
        "no final newline",
        "  leading, and trailing  \n",
        "dos\r\nlines\r\n",
        "lone\rcarriage\rreturns",
        "tabs\tand\u{b}vertical\u{c}feeds\n",
        "no-break\u{a0}spaces\u{2007}of\u{202f}every\u{2060}kind\n",
        "wide\u{3000}and\u{2003}narrow\u{2009}and\u{1680}ogham\n",
        "zero\u{200b}width\u{feff}and\u{ad}soft\u{301}\n",
        "\u{feff}byte order mark\n",
        "\u{301} combining alone\n",
        "日本語 の テキスト\n",
        "\u{1f468}\u{200d}\u{1f469} \u{1f3f4}\n",
        &long_line,
    ];
    let (directory, paths) = directory(&texts);
    assert_like_wc(&[directory.path().canonicalize().unwrap()], &paths);
}

/// In the middle of a word and at its end, each on a line of its own.
#[test]
fn every_character_separates_words_if_and_only_if_it_does_for_wc() {
    // To wc 9.1 they are control characters, to newer versions they are white space.
    let disputed = ['\u{2028}', '\u{2029}'];
    let characters = ('\0'..=char::MAX).filter(|character| !disputed.contains(character));
    let characters: Vec<_> = characters.collect();
    // Several files, for a difference to show up near its place.
    let texts = characters.chunks(0x1000).map(|block| {
        let line = |character| format!("a{character}b{character}\n");
        block.iter().map(line).collect::<String>()
    });
    let (_directory, paths) = directory(&texts.collect::<Vec<_>>());
    assert_like_wc(&paths, &paths);
}

#[test]
fn counts_of_arbitrary_text_are_those_of_wc() {
    let printed = "ab0.é語\u{1f300}\u{301}\u{200b}\u{ad}\u{feff}";
    let ascii_space = " \t\n\n\r\u{b}\u{c}";
    let wide_space = "\u{a0}\u{1680}\u{2000}\u{2007}\u{200a}\u{202f}\u{205f}\u{2060}\u{3000}";
    let characters = [printed, ascii_space, wide_space].concat();
    let character = select(characters.chars().collect::<Vec<_>>());
    let text = vec(character, 0..60);
    let config = Config {
        cases: 8,
        failure_persistence: None,
        ..Config::default()
    };
    let run = TestRunner::new(config).run(&vec(text, 1..60), |texts| {
        let texts: Vec<_> = texts.iter().map(String::from_iter).collect();
        let (_directory, paths) = directory(&texts);
        assert_like_wc(&paths, &paths);
        Ok(())
    });
    run.unwrap();
}

/// What versions of wc do not agree on.
#[test]
fn what_cannot_be_printed_neither_begins_nor_ends_a_word() {
    let texts: [(&[u8], u32); 9] = [
        (b"\x01", 0),
        (b"\0 \x7f \x1b", 0),
        (b"\x01a \0b\0 c\x02d", 3),
        ("\u{85} a\u{85}b \u{2028} a\u{2028}b\u{2029}".as_bytes(), 2),
        (b"\xff", 0),
        (b"a\xffb \xff c\xff", 2),
        (b"\xe2\x82 a\xe2\x82b", 1), // a euro sign less its last byte
        (b"\xed\xa0\x80", 0),        // a surrogate
        (b"a\xe2\x82\n\xac b\xe2\x82", 2), // a newline in the middle of a character
    ];
    let (_directory, paths) = directory(&texts.map(|(text, _)| text));
    let finished = start(wordcount().args(&paths)).finish();
    let row = |((text, words), path): (&(&[u8], u32), &PathBuf)| {
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        format!("{lines:>2} {words:>2} {:>2} {}", text.len(), path.display())
    };
    let mut expected: Vec<_> = texts.iter().zip(&paths).map(row).collect();
    expected.push(" 1 10 64 total".to_owned());
    assert_eq!(lines(&finished.stdout), expected);
    // wc 9.1 is of the same opinion, newer versions are not.
    let rows = lines(&wc(&paths));
    if rows[0] == expected[0] {
        assert_eq!(rows, expected);
    }
}

// The files and the table.

#[test]
fn without_arguments_it_counts_its_own_repository() {
    let finished = start(&mut wordcount()).finish();
    assert!(finished.status.success(), "{}", finished.stderr);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows = lines(&finished.stdout);
    for path in [
        "Cargo.toml",
        "src/lib.rs",
        "examples/wordcount/main.rs",
        "tests/examples/wordcount.rs",
    ] {
        let path = root.join(path);
        let row = rows
            .iter()
            .find(|row| row.ends_with(path.to_str().unwrap()));
        let row = row.unwrap_or_else(|| panic!("no row for {}", path.display()));
        let expected = lines(&wc(&[path]));
        assert!(
            row.split_whitespace().eq(expected[0].split_whitespace()),
            "{row}"
        );
    }
    for row in rows.iter().filter(|row| !row.ends_with(" total")) {
        let path = Path::new(&row[row.find('/').unwrap()..]);
        assert!(!path.starts_with(root.join(".git")), "{row}");
        assert!(!path.starts_with(root.join("target")), "{row}");
    }
}

#[test]
fn directories_are_walked_in_order_and_links_in_them_are_left_alone() {
    let directory = TempDir::new().unwrap();
    let root = directory.path().canonicalize().unwrap();
    for name in [
        "b/2",
        "b/1",
        "b.c",
        "a/x/deep",
        "target/built",
        ".git/config",
        "B",
    ] {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    std::os::unix::fs::symlink("b.c", root.join("link to a file")).unwrap();
    std::os::unix::fs::symlink("b", root.join("link to a directory")).unwrap();
    mkfifo(&root.join("fifo"), Mode::S_IRWXU).unwrap();
    let files = walk(&root);
    assert_eq!(files.len(), 7);
    assert_like_wc(&[&root], &files);
    // But what is named is counted, and in the order in which it is named.
    let named = ["link to a file", "B", "b/1", "B"].map(|name| root.join(name));
    assert_like_wc(&named, &named);
}

#[test]
fn the_table_is_laid_out_as_that_of_wc() {
    let (directory, paths) = directory(&["a b c\n".repeat(1000), "a".to_owned()]);
    let odd_name = directory.path().join(OsStr::from_bytes(b"not \xff UTF-8"));
    fs::write(&odd_name, "x y z").unwrap();
    let null = PathBuf::from("/dev/null");
    let [long, short] = [&paths[0], &paths[1]];
    assert_like_wc(&[long], &[long]); // one file, no total
    assert_like_wc(&[short], &[short]);
    assert_like_wc(&[&null], &[&null]); // a file without a size makes wide columns
    assert_like_wc(&[short, &null], &[short, &null]);
    assert_like_wc(&[short, long, &odd_name], &[short, long, &odd_name]);
    let empty = TempDir::new().unwrap();
    let finished = start(wordcount().arg(empty.path())).finish();
    assert_eq!((finished.stdout, finished.stderr), (vec![], String::new()));
    assert!(finished.status.success());
}

#[test]
fn what_cannot_be_read_is_reported_and_the_rest_is_counted() {
    let (directory, paths) = directory(&["one two\n", "three\n"]);
    let missing = directory.path().join("missing");
    let below_a_file = paths[0].join("x");
    // It opens. Only reading it fails: nothing is mapped at its beginning.
    let unreadable = PathBuf::from("/proc/self/mem");
    for order in [
        [&missing, &paths[0], &below_a_file, &paths[1], &unreadable],
        [&paths[0], &missing, &unreadable, &below_a_file, &paths[1]],
    ] {
        let finished = start(wordcount().args(order)).finish();
        assert_eq!(finished.status.code(), Some(1));
        let mut reports: Vec<_> = finished.stderr.lines().collect();
        reports.sort_unstable();
        let report =
            |path: &Path, reason: String| format!("wordcount: {}: {reason}", path.display());
        let mut expected = [
            report(&missing, crate::support::os_error(nix::Error::ENOENT)),
            report(&below_a_file, crate::support::os_error(nix::Error::ENOTDIR)),
            report(&unreadable, crate::support::os_error(nix::Error::EIO)),
        ];
        expected.sort_unstable();
        assert_eq!(reports, expected);
        // wc prints a row of zeros for what it could open but not read. That is no count.
        let theirs = start(command("wc").args(order)).finish();
        let mut theirs = lines(&theirs.stdout);
        theirs.retain(|row| !row.ends_with("/proc/self/mem"));
        assert_eq!(lines(&finished.stdout), theirs);
    }
}

#[test]
fn wrong_arguments_are_refused() {
    for (arguments, reason) in [
        (&["--workers", "0"][..], "\"0\""),
        (&["--workers", "x"], "\"x\""),
        (&["--workers", "-1"], "\"-1\""),
        (&["--workers"], "--workers"),
        (&["--wrong"], "--wrong"),
        (&["-w"], "-w"),
    ] {
        let finished = start(wordcount().args(arguments)).finish();
        assert_eq!(finished.status.code(), Some(2), "{arguments:?}");
        assert!(
            finished.stderr.starts_with("wordcount: "),
            "{}",
            finished.stderr
        );
        assert!(finished.stderr.contains(reason), "{}", finished.stderr);
        assert!(finished.stdout.is_empty());
    }
    let help = start(wordcount().arg("--help")).finish();
    assert!(help.status.success());
    assert!(
        help.stdout
            .starts_with(b"Usage: wordcount [--workers N] [PATH]...")
    );
}

#[test]
fn a_terminal_gets_a_progress_bar() {
    let (_directory, paths) = directory(&["one", "two", "three"]);
    // Close-on-exec, unlike what `openpty` gives: other tests start processes at the same time.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let mut terminal = posix_openpt(flags).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname_r(&terminal).unwrap();
    let mut other_side = OpenOptions::new();
    other_side.write(true).custom_flags(libc::O_NOCTTY);
    let mut program = wordcount();
    program
        .args(&paths)
        .env("TERM", "xterm")
        .stderr(other_side.open(name).unwrap());
    let running = start(&mut program);
    drop(program); // and with it this process's copy of the other side
    let mut shown = Vec::new();
    // KERNEL: reading a terminal that nobody has open at the other side fails with EIO.
    let end = terminal.read_to_end(&mut shown);
    assert_eq!(end.unwrap_err().raw_os_error(), Some(libc::EIO));
    let finished = running.finish();
    assert!(finished.status.success());
    assert_eq!(finished.stdout, wc(&paths));
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("/3"), "{shown:?}");
}

// The workers.

/// A FIFO that blocks the worker that reads it until the test has it go on. Both of its ends are open here,
/// so nobody blocks in opening it.
struct Fifo {
    path: PathBuf,
    end: File,
}

impl Fifo {
    fn new(directory: &TempDir, name: &str) -> Self {
        let path = directory.path().canonicalize().unwrap().join(name);
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let end = OpenOptions::new().read(true).write(true).open(&path);
        Fifo {
            path,
            end: end.unwrap(),
        }
    }

    /// Lets whoever reads it see this text, and then its end.
    fn finish(mut self, text: &str) {
        self.end.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until a worker that is not in `dead` reads the FIFO.
    fn reader(&self, running: &Running, dead: &[Pid]) -> Pid {
        eventually("worker that reads the FIFO", || {
            let mut workers = children(running.pid()).into_iter();
            workers.find(|worker| !dead.contains(worker) && has_open(*worker, &self.path))
        })
    }

    /// Kills the worker that reads the FIFO.
    fn kill_reader(&self, running: &Running, dead: &mut Vec<Pid>) {
        let reader = self.reader(running, dead);
        kill(reader, Signal::SIGKILL).unwrap();
        dead.push(reader);
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
        thread::yield_now();
    }
}

fn children(parent: Pid) -> Vec<Pid> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let children = children.unwrap_or_default(); // the parent has ended
    let pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
    pids.map(Pid::from_raw).collect()
}

fn has_open(process: Pid, path: &Path) -> bool {
    let fds = fs::read_dir(format!("/proc/{process}/fd"));
    let mut fds = fds.into_iter().flatten().flatten(); // none: it has ended
    fds.any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == path))
}

/// The rows for these files when one of them has no size that could be known in advance.
fn wide_rows(rows: &[(&str, u64, u64, u64)]) -> String {
    let row = |(name, lines, words, bytes)| format!("{lines:>7} {words:>7} {bytes:>7} {name}\n");
    rows.iter().map(|&counts| row(counts)).collect()
}

fn died(workers: &[Pid]) -> String {
    let report = |worker| {
        format!("wordcount: worker {worker} died: child process was killed by signal 9 (SIGKILL)\n")
    };
    workers.iter().map(report).collect()
}

#[test]
fn a_worker_that_is_killed_is_replaced_and_its_file_is_counted() {
    for (workers, deaths) in [("1", 1), ("1", 2), ("2", 1), ("2", 2)] {
        let (directory, paths) = directory(&["a b\n", "c\n", "", "d e f\n", "g\n", "h"]);
        let fifo = Fifo::new(&directory, "fifo");
        let mut names: Vec<_> = paths.iter().map(|path| path.to_str().unwrap()).collect();
        let fifo_name = fifo.path.to_str().unwrap().to_owned();
        names.insert(1, &fifo_name);
        let running = start(wordcount().args(["--workers", workers]).args(&names));
        let mut dead = Vec::new();
        for _ in 0..deaths {
            fifo.kill_reader(&running, &mut dead);
        }
        fifo.reader(&running, &dead);
        fifo.finish("from the\nfifo\n");
        let finished = running.finish();
        assert_eq!(finished.stderr, died(&dead));
        assert!(finished.status.success());
        let expected = wide_rows(&[
            (names[0], 1, 2, 4),
            (names[1], 2, 3, 14),
            (names[2], 1, 1, 2),
            (names[3], 0, 0, 0),
            (names[4], 1, 3, 6),
            (names[5], 1, 1, 2),
            (names[6], 0, 1, 1),
            ("total", 6, 11, 29),
        ]);
        assert_eq!(String::from_utf8(finished.stdout).unwrap(), expected);
    }
}

/// Which says nothing about another file, that takes as long.
#[test]
fn a_file_that_three_workers_died_of_is_given_up() {
    let (directory, paths) = directory(&["a b\n", "c\n"]);
    let fatal = Fifo::new(&directory, "fatal");
    let slow = Fifo::new(&directory, "slow");
    let names = [&paths[0], &fatal.path, &slow.path, &paths[1]];
    let names = names.map(|path| path.to_str().unwrap().to_owned());
    let running = start(wordcount().args(["--workers", "2"]).args(&names));
    let mut dead = Vec::new();
    for _ in 0..3 {
        fatal.kill_reader(&running, &mut dead);
    }
    slow.reader(&running, &dead);
    slow.finish("d\n");
    let finished = running.finish();
    let [first, fatal, slow, last] = &names;
    let given_up = format!(
        "wordcount: {fatal}: job died with its worker: child process {} was killed by signal 9 (SIGKILL)\n",
        dead[2]
    );
    assert_eq!(finished.stderr, died(&dead) + &given_up);
    assert_eq!(finished.status.code(), Some(1));
    let expected = wide_rows(&[
        (first, 1, 2, 4),
        (slow, 1, 1, 2),
        (last, 1, 1, 2),
        ("total", 3, 4, 8),
    ]);
    assert_eq!(String::from_utf8(finished.stdout).unwrap(), expected);
}

/// Two deaths cannot make it give up a file, whenever they come.
#[test]
fn workers_that_are_killed_at_any_moment_change_nothing() {
    let directories = sources();
    let files: Vec<_> = directories.iter().flat_map(|path| walk(path)).collect();
    let expected = wc(&files);
    let mut reported = 0;
    for round in 0..10 {
        let running = start(wordcount().args(["--workers", "3"]).args(&directories));
        let mut dead = Vec::new();
        for kills in 1..=2 {
            // How far it has come by then is anybody's guess, and it does not matter.
            for _ in 0..round * kills * 20 {
                children(running.pid());
            }
            dead.extend(kill_a_worker(&running));
        }
        let finished = running.finish();
        assert!(finished.status.success(), "{}", finished.stderr);
        assert!(finished.stdout == expected, "{}", finished.stderr);
        let mut reports = finished.stderr.lines();
        assert!(reports.all(|report| dead.iter().any(|&pid| died(&[pid]).trim_end() == report)));
        reported += finished.stderr.lines().count();
    }
    assert!(reported > 0);
}

/// Kills whichever worker there is, unless the program comes to its end first.
fn kill_a_worker(running: &Running) -> Option<Pid> {
    eventually("worker, nor the end", || {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        let status = waitid(Id::Pid(running.pid()), flags).unwrap();
        if status != WaitStatus::StillAlive {
            return Some(None);
        }
        let worker = children(running.pid()).pop()?;
        let pidfd = pidfd(worker)?;
        // It is a worker's if there is a worker of that id after it was opened.
        if !children(running.pid()).contains(&worker) {
            return None;
        }
        pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).ok()?;
        Some(Some(worker))
    })
}

/// A descriptor for the process, unless it has ended.
fn pidfd(process: Pid) -> Option<OwnedFd> {
    let process = rustix::process::Pid::from_raw(process.as_raw())?;
    pidfd_open(process, PidfdFlags::empty()).ok()
}

#[test]
fn workers_end_with_their_parent() {
    let (directory, paths) = directory(&["a b\n", "c\n"]);
    let fifo = Fifo::new(&directory, "fifo");
    let names = [&paths[0], &fifo.path, &paths[1]];
    let mut running = start(wordcount().args(["--workers", "3"]).args(names));
    let blocked = fifo.reader(&running, &[]);
    let workers = children(running.pid());
    assert_eq!(workers.len(), 3);
    let workers = workers
        .into_iter()
        .map(|worker| (worker, pidfd(worker).unwrap()));
    let (blocked, idle): (Vec<_>, Vec<_>) = workers.partition(|(worker, _)| *worker == blocked);
    running.child.kill().unwrap();
    for (_, worker) in idle {
        wait_for_end(worker.as_fd());
    }
    // The one that has a file ends when it has read it, and finds nobody to tell.
    fifo.finish("");
    wait_for_end(blocked[0].1.as_fd());
    let finished = running.finish();
    assert_eq!(finished.status.signal(), Some(libc::SIGKILL));
    assert_eq!(finished.stderr, "");
}

fn wait_for_end(process: BorrowedFd<'_>) {
    let timeout = PollTimeout::try_from(DEADLINE).unwrap();
    let ended = poll(&mut [PollFd::new(process, PollFlags::POLLIN)], timeout).unwrap();
    assert_eq!(ended, 1, "a worker still runs after {DEADLINE:?}");
}
