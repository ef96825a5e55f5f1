//! The example `wordcount`: it prints what `wc` prints, and it outlives its workers.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::PollFlags;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use rustix::process::{PidfdFlags, pidfd_open};
use tempfile::TempDir;

use crate::support::{
    DEADLINE, Random, becomes_ready, ends_within, example, os_error, output_within,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The program, or wc, with these arguments.
fn command<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[A]) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C.UTF-8").env("TERM", "xterm");
    command.args(arguments);
    command.env_remove("POSIXLY_CORRECT"); // it would make wc take no-break spaces for letters
    command
}

fn wordcount<A: AsRef<OsStr>>(arguments: &[A]) -> Output {
    output_within(DEADLINE, command(example("wordcount"), arguments))
}

/// What wc prints for these files.
fn wc<P: AsRef<OsStr>>(paths: &[P]) -> Vec<u8> {
    printed(output_within(DEADLINE, command("wc", paths)))
}

/// What a program has printed that has come to a good end.
fn printed(output: Output) -> Vec<u8> {
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    output.stdout
}

/// Compares the output for `arguments` with that of wc for `paths`.
fn assert_like_wc<A: AsRef<OsStr>, P: AsRef<OsStr>>(arguments: &[A], paths: &[P]) {
    let (ours, theirs) = (printed(wordcount(arguments)), wc(paths));
    let (our_lines, their_lines) = (lines(&ours), lines(&theirs));
    let mut pairs = our_lines.iter().zip(&their_lines);
    let first_difference = pairs.find(|(ours, theirs)| ours != theirs);
    assert!(ours == theirs, "{first_difference:?}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lines(bytes: &[u8]) -> Vec<String> {
    text(bytes).lines().map(str::to_owned).collect()
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

/// Directories of this repository, several times the same for it to take longer, and the files in them.
fn sources() -> (Vec<PathBuf>, Vec<PathBuf>) {
    let folders = ["src", "tests", "docs", "examples", "bench", "chaos", "cli"];
    let directories = folders.map(|folder| Path::new(ROOT).join(folder));
    let directories = [directories.as_slice(); 3].concat();
    let walk = |path| walkdir::WalkDir::new(path).sort_by_file_name().into_iter();
    let entries = directories.iter().flat_map(walk).map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().is_file());
    let files: Vec<_> = files.map(walkdir::DirEntry::into_path).collect();
    assert!(files.len() >= 600, "{} files", files.len());
    (directories, files)
}

#[test]
fn counts_of_source_trees_are_those_of_wc() {
    let (directories, files) = sources();
    assert_like_wc(&directories, &files);
}

#[test]
fn counts_of_odd_text_are_those_of_wc() {
    let odd = "|\n|\n\n\n| |no final newline|  leading, and trailing  \n|dos\r\nlines\r\n|lone\rcarriage\rreturns\
        |tabs\tand\u{b}vertical\u{c}feeds\n|no-break\u{a0}spaces\u{2007}of\u{202f}every\u{2060}kind\n\
        |wide\u{3000}and\u{2003}narrow\u{2009}and\u{1680}ogham\n|zero\u{200b}width\u{feff}and\u{ad}soft\u{301}\n\
        |\u{feff}byte order mark\n|\u{301} combining alone\n|日本語 の テキスト\n|\u{1f468}\u{200d}\u{1f469} \u{1f3f4}\n";
    let mut texts: Vec<_> = odd.split('|').map(str::to_owned).collect();
    texts.push("long line, ünd \u{1f300}".repeat(100_000));
    // All these characters in any order.
    let mut random = Random::new(9);
    let characters: Vec<_> = odd.chars().filter(|c| !c.is_ascii_lowercase()).collect();
    texts.extend((0..400).map(|_| {
        let length = random.below(60);
        let pick = |_| characters[random.below(characters.len())];
        (0..length).map(pick).collect::<String>()
    }));
    // Every character, in the middle of a word and at its end. But two are control characters to wc 9.1, and white space
    // to newer versions. In several files, for a difference to show up near its place.
    let is_agreed = |character: &char| !['\u{2028}', '\u{2029}'].contains(character);
    let characters: Vec<_> = ('\0'..=char::MAX).filter(is_agreed).collect();
    let line = |character| format!("a{character}b{character}\n");
    let blocks = characters.chunks(0x1000);
    texts.extend(blocks.map(|block| block.iter().map(line).collect::<String>()));
    let (_directory, paths) = directory(&texts);
    assert_like_wc(&paths, &paths);
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
    let row = |((text, words), path): (&(&[u8], u32), &PathBuf)| {
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        format!("{lines:>2} {words:>2} {:>2} {}", text.len(), path.display())
    };
    let mut expected: Vec<_> = texts.iter().zip(&paths).map(row).collect();
    expected.push(" 1 10 64 total".to_owned());
    assert_eq!(lines(&wordcount(&paths).stdout), expected);
    // wc 9.1 is of the same opinion, newer versions are not.
    let rows = lines(&wc(&paths));
    assert!(rows[0] != expected[0] || rows == expected, "{rows:?}");
}

#[test]
fn without_arguments_it_counts_its_own_repository() {
    let words = str::split_whitespace;
    let rows = lines(&printed(wordcount(&[""; 0])));
    for path in ["Cargo.toml", "src/lib.rs", "tests/examples/wordcount.rs"] {
        let path = Path::new(ROOT).join(path);
        let expected = text(&wc(&[path]));
        let mut same = rows.iter().filter(|row| words(row).eq(words(&expected)));
        assert!(same.next().is_some(), "{expected}");
    }
    let foreign = [".git", "target"].map(|folder| format!("{ROOT}/{folder}/"));
    let is_foreign = |row: &&String| foreign.iter().any(|folder| row.contains(folder));
    assert_eq!(rows.iter().find(is_foreign), None);
}

#[test]
fn directories_are_walked_in_order_and_links_in_them_are_left_alone() {
    let directory = TempDir::new().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let path = |name| root.join(name);
    let paths = |names: &'static str| -> Vec<_> { names.split(' ').map(path).collect() };
    for path in paths("b/2 b/1 b.c a/x/deep target/built .git/config B") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, path.to_str().unwrap()).unwrap();
    }
    symlink("b.c", root.join("link-to-file")).unwrap();
    symlink("b", root.join("link-to-directory")).unwrap();
    mkfifo(&root.join("fifo"), Mode::S_IRWXU).unwrap();
    let in_order = paths(".git/config B a/x/deep b/1 b/2 b.c target/built");
    assert_like_wc(&[&root], &in_order);
    // But what is named is counted, and in the order in which it is named.
    let named = paths("link-to-file B b/1 B");
    assert_like_wc(&named, &named);
}

#[test]
fn the_table_is_laid_out_as_that_of_wc() {
    let (directory, paths) = directory(&["a b c\n".repeat(1000), "a".to_owned()]);
    let odd_name = directory.path().join(OsStr::from_bytes(b"not \xff UTF-8"));
    fs::write(&odd_name, "x y z").unwrap();
    let null = Path::new("/dev/null"); // a file without a size makes wide columns
    let [long, short] = [&*paths[0], &*paths[1]];
    // One file has no total.
    for case in [
        &[long][..],
        &[short],
        &[null],
        &[short, null],
        &[short, long, &odd_name],
    ] {
        assert_like_wc(case, case);
    }
    let empty = TempDir::new().unwrap();
    assert!(printed(wordcount(&[empty.path()])).is_empty());
}

#[test]
fn what_cannot_be_read_is_reported_and_the_rest_is_counted() {
    use nix::errno::Errno::{EIO, ENOENT, ENOTDIR};
    let (directory, paths) = directory(&["one two\n", "three\n"]);
    let missing = directory.path().join("missing");
    let below_a_file = paths[0].join("x");
    // It opens. Only reading it fails: nothing is mapped at its beginning.
    let unreadable = PathBuf::from("/proc/self/mem");
    let errors = [(&missing, ENOENT), (&below_a_file, ENOTDIR)];
    let report = |path: &Path, error| format!("wordcount: {}: {}", path.display(), os_error(error));
    let mut reports = errors.map(|(path, error)| report(path, error)).to_vec();
    reports.push(report(&unreadable, EIO));
    reports.sort_unstable();
    for order in [
        [&missing, &paths[0], &below_a_file, &paths[1], &unreadable],
        [&paths[0], &missing, &unreadable, &below_a_file, &paths[1]],
    ] {
        let output = wordcount(&order);
        assert_eq!(output.status.code(), Some(1));
        let mut said = lines(&output.stderr);
        said.sort_unstable();
        assert_eq!(said, reports);
        // wc prints a row of zeros for what it could open but not read. That is no count.
        let mut theirs = lines(&output_within(DEADLINE, command("wc", &order)).stdout);
        theirs.retain(|row| !row.ends_with("/proc/self/mem"));
        assert_eq!(lines(&output.stdout), theirs);
    }
}

#[test]
fn wrong_arguments_are_refused() {
    for (arguments, reason) in [
        ("--workers 0", "\"0\""),
        ("--workers x", "\"x\""),
        ("--workers -1", "\"-1\""),
        ("--workers", "--workers"),
        ("--wrong", "--wrong"),
        ("-w", "-w"),
    ] {
        let output = wordcount(&arguments.split(' ').collect::<Vec<_>>());
        let said = text(&output.stderr);
        assert!(
            said.starts_with("wordcount: ") && said.contains(reason),
            "{said}"
        );
        assert_eq!((output.status.code(), output.stdout), (Some(2), vec![]));
    }
    let help = printed(wordcount(&["--help"]));
    assert!(help.starts_with(b"Usage: wordcount [--workers N] [PATH]..."));
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
    let mut shell = command("sh", &["-c", "exec \"$@\" 2> \"$0\"", &name]);
    shell.arg(example("wordcount")).args(&paths);
    assert_eq!(printed(output_within(DEADLINE, shell)), wc(&paths));
    let mut shown = Vec::new();
    // KERNEL: reading a terminal that nobody has open at the other side fails with EIO, after what was written there.
    let end = terminal.read_to_end(&mut shown);
    assert_eq!(end.unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(text(&shown).contains("/3"), "{:?}", text(&shown));
}

/// The program while it runs, and where it prints. It does not outlive this.
struct Running {
    child: Child,
    directory: TempDir,
}

fn start<A: AsRef<OsStr>>(workers: &str, paths: &[A]) -> Running {
    let directory = TempDir::new().unwrap();
    let stream = |name| File::create(directory.path().join(name)).unwrap();
    let mut command = command(example("wordcount"), &["--workers", workers]);
    command.args(paths).process_group(0);
    let child = command.stdout(stream("out")).stderr(stream("err")).spawn();
    let child = child.unwrap();
    Running { child, directory }
}

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    fn workers(&self) -> Vec<Pid> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default(); // it has ended
        let pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
        pids.map(Pid::from_raw).collect()
    }

    /// Waits for a worker that is like that, unless the program comes to its end first. It looks in `/proc`: nobody tells.
    fn worker(&self, is_it: impl Fn(&Pid) -> bool) -> Option<Pid> {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline && !ends_within(Duration::ZERO, self.pid()) {
            if let Some(worker) = self.workers().into_iter().find(&is_it) {
                return Some(worker);
            }
            thread::yield_now();
        }
        None
    }

    /// Waits for its end.
    fn finish(mut self) -> Output {
        assert!(ends_within(DEADLINE, self.pid()), "still running");
        let [stdout, stderr] = ["out", "err"].map(|name| self.directory.path().join(name));
        Output {
            status: self.child.wait().unwrap(),
            stdout: fs::read(stdout).unwrap(),
            stderr: fs::read(stderr).unwrap(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = killpg(self.pid(), Signal::SIGKILL); // its workers as well, if a test fails half way
        let _ = self.child.wait();
    }
}

/// A FIFO that blocks the worker that reads it until something is written. Both of its ends are open here, so nobody
/// blocks in opening it.
fn fifo(directory: &TempDir, name: &str) -> (PathBuf, File) {
    let path = directory.path().canonicalize().unwrap().join(name);
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let ends = File::options().read(true).write(true).open(&path);
    (path, ends.unwrap())
}

/// Waits until a worker that is not in `dead` reads that file.
fn reader(path: &Path, running: &Running, dead: &[Pid]) -> Pid {
    let has_open = |worker: &Pid| {
        let fds = fs::read_dir(format!("/proc/{worker}/fd"));
        let mut fds = fds.into_iter().flatten().flatten(); // none: it has ended
        fds.any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == path))
    };
    let reader = running.worker(|worker| !dead.contains(worker) && has_open(worker));
    reader.expect("a worker that reads it")
}

fn died(worker: Pid) -> String {
    format!("wordcount: worker {worker} died: child process was killed by signal 9 (SIGKILL)\n")
}

/// Kills so many workers that read a certain file, among others. If it is given up, another one takes as long.
fn killed_at_one_file(workers: &str, deaths: usize) {
    let is_given_up = deaths > 2;
    let (directory, paths) = directory(&["a b\n", "", "d\n", "d e f"]);
    let [(fatal, mut end), (slow, mut end_of_slow)] =
        ["fatal", "slow"].map(|name| fifo(&directory, name));
    let third = if is_given_up { &slow } else { &paths[2] };
    let files = [&paths[0], &fatal, &paths[1], third, &paths[3]];
    let running = start(workers, &files);
    let mut dead = Vec::new();
    for _ in 0..deaths {
        let reader = reader(&fatal, &running, &dead);
        kill(reader, Signal::SIGKILL).unwrap();
        dead.push(reader);
    }
    let mut rows = vec![
        (1, 2, 4),
        (2, 3, 14),
        (0, 0, 0),
        (1, 1, 2),
        (0, 3, 5),
        (4, 9, 25),
    ];
    let mut names = files.map(|path| path.to_str().unwrap()).to_vec();
    names.push("total");
    let mut reports: String = dead.iter().map(|&worker| died(worker)).collect();
    if is_given_up {
        rows[5] = (2, 6, 11);
        rows.remove(1);
        let fatal = names.remove(1);
        let end = format!("child process {} was killed by signal 9 (SIGKILL)", dead[2]);
        reports += &format!("wordcount: {fatal}: job died with its worker: {end}\n");
        reader(&slow, &running, &dead);
        end_of_slow.write_all(b"d\n").unwrap();
    } else {
        reader(&fatal, &running, &dead);
        end.write_all(b"from the\nfifo\n").unwrap();
    }
    drop((end, end_of_slow));
    let output = running.finish();
    // Wide ones, as not all of the files have a size that could be known in advance.
    let row = |((lines, words, bytes), name)| format!("{lines:>7} {words:>7} {bytes:>7} {name}\n");
    let expected: String = rows.into_iter().zip(names).map(row).collect();
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        (expected, reports)
    );
    assert_eq!(output.status.code(), Some(i32::from(is_given_up)));
}

#[test]
fn a_worker_that_is_killed_is_replaced_and_its_file_is_counted() {
    for (workers, deaths) in [("1", 1), ("1", 2), ("2", 1), ("2", 2)] {
        killed_at_one_file(workers, deaths);
    }
}

#[test]
fn a_file_that_three_workers_died_of_is_given_up() {
    killed_at_one_file("2", 3);
}

/// Two deaths cannot make it give up a file, whenever they come.
#[test]
fn workers_that_are_killed_at_any_moment_change_nothing() {
    let (directories, files) = sources();
    let expected = wc(&files);
    let mut reported = 0;
    for round in 0..10 {
        let running = start("3", &directories);
        let mut dead = String::new();
        for kills in 1..=2 {
            // How far it has come by then is anybody's guess, and it does not matter.
            let looks = 0..=round * kills * 20;
            if let Some(worker) = looks.fold(None, |_, _| running.worker(|_| true)) {
                let _ = kill(worker, Signal::SIGKILL);
                dead += &died(worker);
            }
        }
        let output = running.finish();
        let said = lines(&output.stderr);
        assert!(output.status.success(), "{said:?}");
        assert!(output.stdout == expected, "{said:?}");
        assert!(said.iter().all(|line| dead.contains(line)), "{said:?}");
        reported += said.len();
    }
    assert!(reported > 0);
}

#[test]
fn workers_end_with_their_parent() {
    let (directory, paths) = directory(&["a b\n", "c\n"]);
    let (path, end) = fifo(&directory, "fifo");
    let mut running = start("3", &[&paths[0], &path, &paths[1]]);
    let blocked = reader(&path, &running, &[]);
    let workers = running.workers().into_iter().map(|worker| {
        let pid = rustix::process::Pid::from_raw(worker.as_raw()).unwrap();
        (
            worker == blocked,
            pidfd_open(pid, PidfdFlags::empty()).unwrap(),
        )
    });
    let (blocked, idle): (Vec<_>, Vec<_>) = workers.partition(|(is_blocked, _)| *is_blocked);
    assert_eq!((blocked.len(), idle.len()), (1, 2));
    running.child.kill().unwrap();
    let has_ended = |(_, worker): &_| becomes_ready(worker, PollFlags::POLLIN, DEADLINE);
    assert!(idle.iter().all(has_ended));
    // The one that has a file ends when it has read it, and finds nobody to tell.
    drop(end);
    assert!(blocked.iter().all(has_ended));
    let output = running.finish();
    assert_eq!(output.status.signal(), Some(libc::SIGKILL));
    assert_eq!(text(&output.stderr), "");
}
