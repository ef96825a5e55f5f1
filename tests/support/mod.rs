//! What the tests share: processes with deadlines, descriptor counts, raw packets.

#![allow(
    dead_code,
    reason = "each test binary uses its own part of this module"
)]

pub(crate) mod buffered;

use std::collections::BTreeMap;
use std::fs;
use std::io::{IoSlice, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::c_long;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, killpg, sigaction};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    UnixAddr, bind, listen, recvmsg, sendmsg, socket, socketpair,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use rustix::process::{PidfdFlags, pidfd_open};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tempfile::TempDir;
use wormhole::Sender;

/// How long a test in a process of its own may take. Far more than it needs: only a hang gets there.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// A message of that length, quotes and all, which takes little time to encode and to decode, however long it is.
pub(crate) fn written_text(len: usize) -> Box<RawValue> {
    RawValue::from_string(format!("\"{}\"", "x".repeat(len - 2))).unwrap()
}

/// Text, of which one is sent as any other and cannot be decoded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Picky(pub(crate) String);

impl Picky {
    pub(crate) fn undecodable() -> Self {
        Picky("undecodable".to_owned())
    }
}

impl TryFrom<String> for Picky {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let picky = Picky(text);
        match picky == Self::undecodable() {
            true => Err("the one text that cannot be decoded"),
            false => Ok(picky),
        }
    }
}

const IN_OWN_PROCESS: &str = "TEST_IN_OWN_PROCESS";

/// Runs a test's body in a process of its own, which has one thread and so may fork, whose descriptors
/// nobody else opens or closes, and which fails instead of hanging.
///
/// Every test that says anything about disconnection or descriptors needs it: while another test of the
/// same process starts a program, all descriptors have a copy in the child that has not yet called exec.
///
/// To be called once, with a closure, as the whole test.
pub(crate) fn in_own_process<F: FnOnce()>(body: F) {
    // "it::module::test::{{closure}}"
    let path = std::any::type_name::<F>();
    let test = path
        .split_once("::")
        .and_then(|(_, path)| path.strip_suffix("::{{closure}}"))
        .expect("the closure of a test");
    if std::env::var(IN_OWN_PROCESS).is_ok_and(|running| running == test) {
        // What all processes of one user have in flight may not exceed this limit.
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        ends_with_its_parent();
        // The test harness has a second thread, which only waits for this one. A fork leaves it behind.
        return fork_and_run(|| {
            ends_with_its_parent();
            body();
        })
        .join();
    }
    let mut command = test_as_program(test);
    command.env(IN_OWN_PROCESS, test).stdin(Stdio::null());
    let output = output_within(DEADLINE, command);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{test} in a process of its own: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Has this process end when whoever has started it is killed, as a test that hangs would go on without end.
fn ends_with_its_parent() {
    let kill = rustix::process::Signal::KILL;
    rustix::process::set_parent_process_death_signal(Some(kill)).unwrap();
}

/// This program again, for one of its tests, which finds in its environment that it is to be something else.
pub(crate) fn test_as_program(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--include-ignored", "--nocapture"]);
    command.arg("--test-threads=1");
    command
}

/// The program of an example. `cargo test` builds them all, into the directory next to that of the tests;
/// if only this test was asked for, it is built now.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let path = profile.join("examples").join(name);
    if !path.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--example", name]);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        if cfg!(feature = "tokio") {
            build.arg("--all-features");
        }
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "{build:?}");
    }
    assert!(path.exists(), "{}", path.display());
    path
}

/// Denies system calls to this process from now on: they fail with EPERM.
pub(crate) fn deny<const N: usize>(calls: [c_long; N]) {
    deny_with(nix::Error::EPERM, calls);
}

/// Denies system calls to this process from now on: they fail with that error.
///
/// Where seccompiler knows no filters, on 32 bits, this says so and ends the process as one that has passed.
pub(crate) fn deny_with<const N: usize>(error: nix::Error, calls: [c_long; N]) {
    let Ok(architecture) = TargetArch::try_from(std::env::consts::ARCH) else {
        eprintln!("skipped: no filters for {}", std::env::consts::ARCH);
        std::process::exit(0);
    };
    // As seccompiler has it, whatever the size of a word.
    #[allow(clippy::useless_conversion, reason = "only where a word has 64 bits")]
    let number = |call: c_long| i64::from(call);
    let filter = SeccompFilter::new(
        calls.map(|call| (number(call), vec![])).into(),
        SeccompAction::Allow,
        SeccompAction::Errno((error as i32).unsigned_abs()),
        architecture,
    );
    let filter = BpfProgram::try_from(filter.unwrap()).unwrap();
    apply_filter(&filter).unwrap();
}

/// Runs a command to its end, or kills it and its children and fails.
pub(crate) fn output_within(deadline: Duration, mut command: Command) -> std::process::Output {
    let out = tempfile::tempfile().unwrap();
    let err = tempfile::tempfile().unwrap();
    let mut child = command
        .stdout(out.try_clone().unwrap())
        .stderr(err.try_clone().unwrap())
        .process_group(0)
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let ended = ends_within(deadline, pid);
    if !ended {
        killpg(pid, Signal::SIGKILL).unwrap();
    }
    let status = child.wait().unwrap();
    let _ = killpg(pid, Signal::SIGKILL); // children that a failed test has left behind
    let output = std::process::Output {
        status,
        stdout: contents(out),
        stderr: contents(err),
    };
    assert!(ended, "{command:?} hung, and was killed: {output:?}");
    output
}

fn contents(mut file: fs::File) -> Vec<u8> {
    use std::io::{Read, Seek};
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Waits for a child of this process to end, and leaves it to be reaped.
pub(crate) fn ends_within(timeout: Duration, pid: Pid) -> bool {
    let pid = rustix::process::Pid::from_raw(pid.as_raw()).unwrap();
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    becomes_ready(&pidfd, PollFlags::POLLIN, timeout)
}

/// Waits for an event on a descriptor, signals notwithstanding.
pub(crate) fn becomes_ready(fd: &impl AsFd, events: PollFlags, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap();
        match poll(&mut [PollFd::new(fd.as_fd(), events)], left) {
            Ok(count) => return count > 0,
            Err(nix::Error::EINTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// A forked child. It must be told to end or waited for.
#[must_use]
pub(crate) struct Forked {
    pub(crate) pid: Pid,
}

/// A channel that another process has made, with that message in it and no sender: what `inherit` takes.
pub(crate) fn handed_over<T: serde::Serialize>(message: T) -> OwnedFd {
    let (hand, handed) = wormhole::channel().unwrap();
    forked(|| {
        let (tx, rx) = wormhole::channel::<T>().unwrap();
        tx.send(message).unwrap();
        hand.send(rx).unwrap();
    })
    .join();
    let rx: wormhole::Receiver<T> = handed.recv().unwrap();
    rx.try_into().unwrap()
}

/// Forks a child that runs `body` and ends with status 0, or 101 if it panics.
pub(crate) fn forked(body: impl FnOnce()) -> Forked {
    assert_eq!(
        fs::read_dir("/proc/self/task").unwrap().count(),
        1,
        "only a process with one thread may fork: use `in_own_process`"
    );
    fork_and_run(body)
}

fn fork_and_run(body: impl FnOnce()) -> Forked {
    fork_here().unwrap_or_else(|| end_after(body))
}

/// Forks a process that has one thread. `None` in the child.
pub(crate) fn fork_here() -> Option<Forked> {
    // SAFETY: no other thread is in the middle of anything that the child could need.
    #[allow(unsafe_code, reason = "tests of processes need processes")]
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => Some(Forked { pid: child }),
        ForkResult::Child => None,
    }
}

/// Ends this process with status 0, or 101 if `body` panics.
pub(crate) fn end_after(body: impl FnOnce()) -> ! {
    let status = catch_unwind(AssertUnwindSafe(body)).map_or(101, |()| 0);
    std::process::exit(status);
}

impl Forked {
    /// Waits for the child and checks that it succeeded.
    pub(crate) fn join(self) {
        let status = loop {
            match waitpid(self.pid, None) {
                Err(nix::Error::EINTR) => {}
                status => break status.unwrap(),
            }
        };
        assert_eq!(status, WaitStatus::Exited(self.pid, 0));
    }

    pub(crate) fn kill(self) {
        kill(self.pid, Signal::SIGKILL).unwrap();
        assert_eq!(
            waitpid(self.pid, None).unwrap(),
            WaitStatus::Signaled(self.pid, Signal::SIGKILL, false)
        );
    }
}

/// Waits until a process sleeps, which is all that can be known of one that has nothing to say.
pub(crate) fn until_asleep(pid: Pid) {
    until_in_state("S", pid);
}

/// Waits until a process is in a state, as ps(1) has it.
pub(crate) fn until_in_state(state: &str, pid: Pid) {
    loop {
        match stat(pid)[0].as_str() {
            wanted if wanted == state => return,
            "Z" | "X" => panic!("process {pid} has ended, and was to be in state {state}"),
            _ => thread::yield_now(),
        }
    }
}

/// What the kernel says of a process, from its state on: proc_pid_stat(5).
pub(crate) fn stat(pid: Pid) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // "PID (name) S ..."
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
    fields.map(str::to_owned).collect()
}

/// From now on SIGUSR1 interrupts whatever this process waits for, and does nothing else.
pub(crate) fn interruptible() {
    extern "C" fn ignore(_: i32) {}
    // No SA_RESTART.
    let handler = SigHandler::Handler(ignore);
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing.
    #[allow(unsafe_code, reason = "no safe way to install a handler")]
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
}

/// A directory, and the path of a socket in it that is not there yet.
pub(crate) fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    (directory, path)
}

/// A listener at a path, or at an abstract name, with room for one client, and that client.
pub(crate) fn full_listener(name: impl AsRef<Path>) -> (OwnedFd, Sender<u32>) {
    let kind = SockType::SeqPacket;
    let listener = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let address = match name.as_ref().as_os_str().as_bytes() {
        [0, name @ ..] => UnixAddr::new_abstract(name),
        path => UnixAddr::new(path),
    };
    bind(listener.as_raw_fd(), &address.unwrap()).unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    (listener, Sender::connect(name).unwrap())
}

/// How std shows an error of the system: in the words of the C library.
pub(crate) fn os_error(error: nix::Error) -> String {
    std::io::Error::from(error).to_string()
}

/// The open descriptors of this process, and what each one is.
pub(crate) fn open_fds() -> BTreeMap<RawFd, String> {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let mut fds = BTreeMap::new();
    for entry in entries {
        let entry = entry.unwrap();
        let fd = entry.file_name().to_str().unwrap().parse().unwrap();
        let link = fs::read_link(entry.path()).unwrap_or_default();
        // The descriptor that reads the list is in the list.
        if !(link.starts_with("/proc/") && link.ends_with("fd")) {
            fds.insert(fd, link.display().to_string());
        }
    }
    fds
}

/// Leaves this process with room for exactly so many more descriptors.
pub(crate) struct DescriptorLimit {
    soft: rlim_t,
    hard: rlim_t,
    used: rlim_t,
    _fillers: Vec<fs::File>,
}

impl DescriptorLimit {
    /// With no room at first.
    pub(crate) fn new() -> Self {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let used = rlim_t::try_from(*open_fds().keys().max().unwrap()).unwrap() + 1;
        setrlimit(Resource::RLIMIT_NOFILE, used, hard).unwrap();
        // The numbers below the highest one that are free.
        let fillers = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
        DescriptorLimit {
            soft,
            hard,
            used,
            _fillers: fillers,
        }
    }

    pub(crate) fn leave_room_for(&self, more: rlim_t) {
        setrlimit(Resource::RLIMIT_NOFILE, self.used + more, self.hard).unwrap();
    }
}

impl Drop for DescriptorLimit {
    fn drop(&mut self) {
        setrlimit(Resource::RLIMIT_NOFILE, self.soft, self.hard).unwrap();
    }
}

/// A packet as the protocol has it, for a text that fits.
pub(crate) fn packet(text: &[u8]) -> Vec<u8> {
    packet_of_length(text.len() as u64, text)
}

/// A packet whose header may lie.
pub(crate) fn packet_of_length(length: u64, text: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes(), text].concat()
}

/// Sends raw bytes and descriptors, as a foreign program would.
pub(crate) fn raw_send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let sent = sendmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &[IoSlice::new(bytes)],
        if fds.is_empty() { &[] } else { &rights },
        MsgFlags::MSG_NOSIGNAL,
        None,
    );
    assert_eq!(sent, Ok(bytes.len()));
}

/// Receives one packet as a foreign program would.
pub(crate) fn raw_recv(socket: impl AsFd) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut bytes = vec![0; 300_000];
    let mut iov = [IoSliceMut::new(&mut bytes)];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 253]);
    let message = recvmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &mut iov,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )
    .unwrap();
    let mut fds = Vec::new();
    for control in message.cmsgs().unwrap() {
        let ControlMessageOwned::ScmRights(raw) = control else {
            panic!("{control:?}");
        };
        assert!(fds.is_empty(), "one SCM_RIGHTS a packet");
        for fd in raw {
            // SAFETY: the kernel has just made these descriptors for this process.
            #[allow(unsafe_code, reason = "nix hands out received descriptors as numbers")]
            fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    let len = message.bytes;
    bytes.truncate(len);
    (bytes, fds)
}

/// A memfd of these contents, close-on-exec, without seals.
pub(crate) fn memfd(contents: &[u8]) -> OwnedFd {
    let fd = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
    let mut file = fs::File::from(fd);
    file.write_all(contents).unwrap();
    file.into()
}

/// The two ends of a pipe, the reading one first.
pub(crate) fn pipe() -> (fs::File, fs::File) {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    (reader.into(), writer.into())
}

/// A pair of sockets as peers make it: both directions open.
pub(crate) fn two_way_pair() -> (OwnedFd, OwnedFd) {
    socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .unwrap()
}

/// A small generator of test data, the same in every run: xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}
