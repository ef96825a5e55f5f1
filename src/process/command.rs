//! `spawn_command` and `inherit`: a value for another program.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::{env, fmt, io};

use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::process::{Pid, getpid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::child::{Child, Streams};
use super::handle::Process;
use super::settings::{Settings, end_with, reset_signals, signals_are_default};
use super::table::{self, close_on_exec_from};
use super::threads::has_one_task;
use crate::channel::{Receiver, channel};
use crate::error::{Error, Result};
use crate::sys::peer;
use crate::sys::registry::FIRST;
use crate::sys::socket::Socket;
use crate::trace;

/// The environment variable that names the descriptor.
const VARIABLE: &str = "WORMHOLE_FD";

/// Starts a program, and hands it `args`, which may hold channel ends and other descriptors. There,
/// [`inherit`] takes them.
///
/// Takes both by value: no copy of an end or a descriptor stays in this process. The program gets one descriptor
/// more, whose number the environment variable `WORMHOLE_FD` tells; nothing else is inherited that would not
/// be otherwise, neither by the program nor by others that other threads start meanwhile. Safe in
/// processes with several threads.
///
/// Blocks until the program is executed, as [`Command::spawn`] does. `Ok` means that it is, and that
/// `args` lie waiting for it; if it never takes them, they are gone with it.
///
/// What it costs does not depend on how much memory this process has, unless the `command` says something for which the
/// standard library forks: a `pre_exec`, another user. In a process with several threads another one is started for as
/// long as the call takes: its descriptors are copies of its own, so what it lets through to the program reaches no other.
///
/// # Errors
///
/// No program is started then, and `args` is dropped:
///
/// - [`Error::Encode`], [`Error::TooLarge`], [`Error::TooManyFds`], [`Error::TooManyFdsInFlight`]: `args` cannot
///   be sent, as in [`Sender::send`](crate::Sender::send).
/// - [`Error::Io`]: the program, which its source names, cannot be executed, or the kernel refuses something else.
///   The source is of the kind of the system's error, which is in turn its source and has the number.
///
/// # Examples
///
/// ```no_run
/// use std::process::Command;
/// use wormhole::{Error, channel, spawn_command};
///
/// let (answer, answers) = channel::<String>()?;
/// let mut plugin = spawn_command(Command::new("./plugin"), ("a question".to_owned(), answer))?;
/// // There: let (question, answer): (String, Sender<String>) = wormhole::inherit()?;
/// println!("{}", answers.recv()?); // `Disconnected` if the plugin ends without a word
/// plugin.wait().expect("a child that was not waited for");
///
/// let missing = spawn_command(Command::new("/missing"), ());
/// assert!(matches!(missing, Err(Error::Io { .. })));
/// # Ok::<(), Error>(())
/// ```
pub fn spawn_command<A: Serialize>(command: Command, args: A) -> Result<process::Child> {
    let child = execute(&Settings::default(), command, args)?;
    trace::child_started(child.id());
    Ok(child)
}

/// Starts a program that becomes a [`Child`].
pub(super) fn start<A: Serialize>(
    settings: &Settings,
    command: Command,
    args: A,
) -> Result<Child<()>> {
    let (process, streams) = start_process(settings, command, args)?;
    Ok(Child::with_status(process, streams))
}

/// Starts a program, of which a handle is all that is asked for.
pub(super) fn start_process<A: Serialize>(
    settings: &Settings,
    command: Command,
    args: A,
) -> Result<(Process, Option<Box<Streams>>)> {
    let mut child = execute(settings, command, args)?;
    let streams = Streams {
        stdin: child.stdin.take(),
        stdout: child.stdout.take(),
        stderr: child.stderr.take(),
    };
    let piped = streams.stdin.is_some() || streams.stdout.is_some() || streams.stderr.is_some();
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Error::io("look up the id of a child", Errno::SRCH))?;
    let process = Process::adopt(pid)?;
    Ok((process, piped.then(|| Box::new(streams))))
}

fn execute<A: Serialize>(
    settings: &Settings,
    mut command: Command,
    args: A,
) -> Result<process::Child> {
    // KERNEL: one packet fits an empty channel at once, however long the message
    // (`arguments_of_any_length_arrive`), so this does not block.
    let (sender, receiver) = channel::<A>()?;
    let given = sender.send_borrowed(&args)?;
    drop(sender);
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |source: io::Error| {
        let kind = source.kind();
        let program = program.clone();
        let named = CannotStart { program, source };
        Error::io("start a program", io::Error::new(kind, named))
    };
    for (stream, set) in [
        (
            &settings.stdin,
            Command::stdin as fn(&mut Command, Stdio) -> &mut Command,
        ),
        (&settings.stdout, Command::stdout),
        (&settings.stderr, Command::stderr),
    ] {
        if let Some(stream) = stream {
            set(&mut command, stream.try_clone().map_err(failed)?.into());
        }
    }
    command.env(VARIABLE, receiver.as_fd().as_raw_fd().to_string());
    let started = start_program(settings, &mut command, receiver.as_fd());
    drop(receiver);
    let started = started.map_err(failed)?;
    given.note();
    drop(args);
    Ok(started)
}

/// Names the program, and has the error of the system as its source: `E2BIG`, say, is known by its number only.
#[derive(Debug)]
struct CannotStart {
    program: String,
    source: io::Error,
}

impl fmt::Display for CannotStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.program, self.source)
    }
}

impl std::error::Error for CannotStart {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Starts a program that inherits that descriptor: without a fork, which takes long in a process with much memory, unless
/// the program has to do something itself before it begins.
fn start_program(
    settings: &Settings,
    command: &mut Command,
    args: BorrowedFd<'_>,
) -> io::Result<process::Child> {
    if settings.ends_with_parent || settings.resets_signals && !signals_are_default() {
        return with_a_fork(settings, command, args);
    }
    if !settings.only_arguments && has_one_task().unwrap_or(false) {
        return while_inheritable(command, args);
    }
    table::start(command, args, settings.only_arguments)
        .unwrap_or_else(|| with_a_fork(settings, command, args))
}

/// Makes the descriptor inheritable for a moment. There is no other thread that could start something meanwhile.
fn while_inheritable(command: &mut Command, args: BorrowedFd<'_>) -> io::Result<process::Child> {
    fcntl_setfd(args, FdFlags::empty())?;
    let started = command.spawn();
    let _ = fcntl_setfd(args, FdFlags::CLOEXEC);
    started
}

/// Makes the descriptor inheritable between fork and exec, so that in this process it is close-on-exec all the time.
#[allow(unsafe_code, reason = "std's only way to run code in the child")]
fn with_a_fork(
    settings: &Settings,
    command: &mut Command,
    args: BorrowedFd<'_>,
) -> io::Result<process::Child> {
    let number = args.as_raw_fd();
    let settings = Settings {
        name: None, // the kernel names the process after the program
        stdin: None,
        stdout: None,
        stderr: None,
        ..settings.clone()
    };
    let parent = getpid();
    let get_ready = move || {
        if settings.only_arguments {
            close_on_exec_from(FIRST);
        }
        // SAFETY: the parent keeps it open until the program is executed.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl_setfd(fd, FdFlags::empty())?;
        if settings.resets_signals {
            reset_signals();
        }
        if settings.ends_with_parent {
            end_with(Some(parent))?;
        }
        Ok(())
    };
    // SAFETY: all that it does is some system calls.
    unsafe {
        command.pre_exec(get_ready);
    }
    command.spawn()
}

/// Takes what [`spawn_command`] handed to this program.
///
/// Can be done once. Never blocks: the value has been there since before the program was started. All
/// descriptors are close-on-exec again from here on. Until this is called, programs that this one starts
/// inherit the descriptor, so call it first thing in `main`.
///
/// The environment variable stays set. A program that this one starts and that calls `inherit` gets an
/// error.
///
/// # Errors
///
/// - [`Error::NotInherited`]: this program was not started by [`spawn_command`], or the value was taken
///   before. Nothing is changed or closed. The reason tells whether `WORMHOLE_FD` is not set, not a number,
///   names a descriptor that is closed, or one that is something else.
/// - [`Error::Decode`], [`Error::TooLarge`], [`Error::FdsLost`], [`Error::UnexpectedFds`], [`Error::Malformed`],
///   [`Error::Io`]: as in [`Receiver::recv`]. The value is lost.
///
/// # Examples
///
/// ```
/// use wormhole::{Error, Sender, inherit};
///
/// // This program was started by hand.
/// let error = inherit::<(String, Sender<String>)>().unwrap_err();
/// assert!(matches!(error, Error::NotInherited { .. }));
/// assert_eq!(
///     error.to_string(),
///     "nothing to inherit: the environment variable WORMHOLE_FD is not set"
/// );
/// ```
pub fn inherit<A: DeserializeOwned>() -> Result<A> {
    static TAKEN: Mutex<bool> = Mutex::new(false);
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if *taken {
        return refused("it was taken before");
    }
    let number = number()?;
    check(number)?;
    // SAFETY: it is open, and no other part of this program owns it: `spawn_command` made it
    // inheritable for this function, which gets here once; what the program opens itself is close-on-exec.
    #[allow(unsafe_code, reason = "an inherited descriptor is a mere number")]
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    *taken = true;
    drop(taken);
    // For the programs that other threads start before it is closed again.
    fcntl_setfd(&fd, FdFlags::CLOEXEC)
        .map_err(|errno| Error::io("make an inherited descriptor close-on-exec", errno))?;
    match Receiver::try_from(fd)?.try_recv() {
        Err(Error::Empty | Error::Disconnected) => refused("the channel is empty"),
        received => received,
    }
}

fn refused<T>(reason: impl Into<String>) -> Result<T> {
    let reason = reason.into();
    Err(Error::NotInherited { reason })
}

fn number() -> Result<RawFd> {
    let Some(value) = env::var_os(VARIABLE) else {
        return refused(format!("the environment variable {VARIABLE} is not set"));
    };
    match value.to_str().map(str::parse) {
        Some(Ok(number)) if number >= FIRST => Ok(number),
        _ => refused(format!(
            "{VARIABLE}={} is no descriptor that can be inherited",
            value.to_string_lossy()
        )),
    }
}

/// Checks that a descriptor is what `spawn_command` hands on.
fn check(number: RawFd) -> Result<()> {
    // SAFETY: it is only looked at here, and every answer will do, that it is closed included.
    #[allow(unsafe_code, reason = "an inherited descriptor is a mere number")]
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = match fcntl_getfd(fd) {
        Err(Errno::BADF) => {
            return refused(format!("{VARIABLE}={number} names a closed descriptor"));
        }
        flags => flags.map_err(|errno| Error::io("look at an inherited descriptor", errno))?,
    };
    // Whatever this program has opened itself by that number.
    if flags.contains(FdFlags::CLOEXEC) {
        return refused(format!(
            "{VARIABLE}={number} names a foreign descriptor: it is close-on-exec"
        ));
    }
    let own = || match peer::credentials(fd) {
        Ok(peer) => Ok(peer.pid == Some(process::id())),
        Err(errno) => Err(Error::io(
            "look up which process has made an inherited descriptor",
            errno,
        )),
    };
    match Socket::check(fd) {
        // One that this program owns.
        Ok(()) if own()? => refused(format!(
            "{VARIABLE}={number} names a descriptor that this process has made itself"
        )),
        Ok(()) => Ok(()),
        Err(Error::NotAChannel { reason }) => refused(format!(
            "{VARIABLE}={number} names a foreign descriptor: {reason}"
        )),
        Err(error) => Err(error),
    }
}
