//! Processes with deadlines, and packets by hand.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal, kill, killpg};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};
use nix::unistd::Pid;
use tempfile::TempDir;
use wormhole::{Raw, Sender};

/// How long anything may take. Far more than it needs: only a hang gets there.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_wormholectl");

/// wormholectl with these arguments.
pub(crate) fn ctl<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    command
}

/// A script of bash, which finds wormholectl.
pub(crate) fn bash(script: &str, directory: &Path) -> Command {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]);
    command.current_dir(directory);
    with_path(&mut command);
    command
}

pub(crate) fn with_path(command: &mut Command) {
    let own = Path::new(PROGRAM).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", own.display()));
}

/// A place for sockets and files.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A path as an argument.
    pub(crate) fn at(&self, name: &str) -> String {
        self.join(name).to_str().unwrap().to_owned()
    }
}

/// A script as a file that can be run.
///
/// Another process writes it: a child that some other test forks meanwhile would have a copy of this one's descriptor, and
/// what is open for writing cannot be run.
#[track_caller]
pub(crate) fn program(place: &Place, name: &str, script: &str) -> PathBuf {
    let path = place.join(name);
    let mut command = Command::new("bash");
    command
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(&path);
    run(command, script.as_bytes()).done();
    path
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// The exit status, 128 and more for a signal.
    pub(crate) fn code(&self) -> i32 {
        let signal = || 128 + self.status.signal().unwrap();
        self.status.code().unwrap_or_else(signal)
    }

    /// What it printed, if it was done and had nothing to say.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!((self.code(), &*self.err), (0, ""), "{self:?}");
        self.out
    }

    /// Checks how it failed, and with which words.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, words: &str) {
        assert_eq!(self.code(), code, "{self:?}");
        let one_line = self.err.trim_end().lines().count() == 1 || code == 2;
        assert!(one_line && self.err.contains(words), "{words}: {self:?}");
    }
}

/// A process that is killed, with its children, when this is dropped or the deadline passes.
pub(crate) struct Running {
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    err: Receiver<String>,
}

/// What has started these tests may ignore signals, as nohup(1) does and a shell for what runs in the background, and so
/// would all that they start.
fn have_signals_as_in_a_terminal() {
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: no handler is set, or taken away from anybody: these tests have none.
        #[allow(unsafe_code, reason = "nix does not know that there are no handlers")]
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }.unwrap();
    }
}

/// Starts a process whose streams are pipes.
#[track_caller]
pub(crate) fn start(mut command: Command) -> Running {
    have_signals_as_in_a_terminal();
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap();
    // `command` may hold descriptors for the child.
    drop(command);
    let stdout = child.stdout.take().unwrap();
    let (line, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut text = String::new();
        while stdout.read_line(&mut text).unwrap_or(0) > 0 {
            if line.send(std::mem::take(&mut text)).is_err() {
                break;
            }
        }
    });
    let mut stderr = child.stderr.take().unwrap();
    let (report, err) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stderr.read_to_end(&mut bytes);
        let _ = report.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    let stdin = child.stdin.take();
    Running {
        child,
        stdin,
        lines,
        err,
    }
}

/// Runs a process to its end, with that input.
#[track_caller]
pub(crate) fn run(command: Command, input: &[u8]) -> Ended {
    let mut running = start(command);
    let mut stdin = running.stdin.take().unwrap();
    let input = input.to_owned();
    thread::spawn(move || stdin.write_all(&input)); // it may end without reading
    running.end()
}

impl Running {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// The next line that it prints, with its end.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("a line in time")
    }

    #[track_caller]
    pub(crate) fn write(&mut self, text: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(text).unwrap();
    }

    /// Waits for the end. What was read by `line` is not in it.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        self.stdin = None;
        let limit = Instant::now() + DEADLINE;
        let left = || limit.saturating_duration_since(Instant::now());
        let mut out = String::new();
        while let Ok(line) = self.lines.recv_timeout(left()) {
            out.push_str(&line);
        }
        let Ok(err) = self.err.recv_timeout(left()) else {
            // It, or a process that it has started.
            let ended = self.child.try_wait().unwrap();
            let _ = killpg(self.pid(), Signal::SIGKILL);
            let err = self.err.recv_timeout(DEADLINE);
            panic!("a hang: {ended:?}, it has printed {out:?} and {err:?}");
        };
        let status = self.child.wait().unwrap();
        Ended { status, out, err }
    }

    /// All that it says until it ends by itself, though its input is still open.
    #[track_caller]
    pub(crate) fn wait_for_error(&mut self) -> String {
        let err = self.err.recv_timeout(DEADLINE).expect("an end in time");
        // For `end`.
        let (report, again) = mpsc::channel();
        report.send(String::new()).unwrap();
        self.err = again;
        err
    }

    pub(crate) fn open_descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .unwrap()
            .count()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Waits for something that no message tells of.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < limit, "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Connects as soon as somebody listens.
#[track_caller]
pub(crate) fn sender(path: impl AsRef<Path>) -> Sender<Raw> {
    let mut sender = None;
    eventually("a listener", || {
        sender = Sender::connect(path.as_ref()).ok();
        sender.is_some()
    });
    sender.unwrap()
}

pub(crate) fn raw(text: &str) -> Raw {
    Raw::from_parts(text.to_owned(), Vec::new()).unwrap()
}

/// Descriptors that the tests themselves have been started with, and that their children have, too.
pub(crate) fn strays() -> Vec<u32> {
    let mut command = Command::new("bash");
    command.args(["-c", "ls /proc/self/fd"]);
    let listed = run(command, b"").done();
    let numbers = listed.lines().map(|number| number.parse().unwrap());
    let mut strays: Vec<u32> = numbers.filter(|&number| number > 3).collect(); // 3 is the directory
    strays.sort_unstable();
    strays
}

/// Gives a child a descriptor by that number.
pub(crate) fn give(command: &mut Command, fd: OwnedFd, number: RawFd) {
    // Out of the way of the numbers that are given.
    let fd = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(100)).unwrap();
    // SAFETY: it has just been made.
    #[allow(unsafe_code, reason = "fcntl gives a number")]
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let place = move || {
        // SAFETY: `dup2` of two numbers, in a child that has no use for what was there.
        #[allow(unsafe_code, reason = "the number is the point of it")]
        let placed = unsafe { nix::libc::dup2(fd.as_raw_fd(), number) };
        match placed {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: one system call.
    #[allow(unsafe_code, reason = "std's only way to run code in the child")]
    unsafe {
        command.pre_exec(place);
    }
}

/// A client that sends packets of any kind.
pub(crate) fn raw_client(path: impl AsRef<Path>) -> OwnedFd {
    let client = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    let address = UnixAddr::new(path.as_ref()).unwrap();
    eventually("a listener", || {
        connect(client.as_raw_fd(), &address).is_ok()
    });
    client
}

pub(crate) fn send_packet(client: &OwnedFd, packet: &[u8], fds: &[RawFd]) {
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(
        client.as_raw_fd(),
        &[IoSlice::new(packet)],
        control,
        flags,
        None,
    )
    .unwrap();
}

/// A packet as it should be.
pub(crate) fn packet(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}
