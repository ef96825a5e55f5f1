//! `spawn_command` and `inherit`: a value for another program.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};
use std::{env, io};

use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::channel::{Receiver, channel};
use crate::error::{Error, Result};
use crate::sys::socket::Socket;

/// The environment variable that names the descriptor.
const VARIABLE: &str = "WORMHOLE_FD";

/// Descriptors below are the standard streams, which a `Command` sets up in the child.
const FIRST: RawFd = 3;

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
/// # Errors
///
/// No program is started then, and `args` is dropped:
///
/// - [`Error::Encode`], [`Error::TooLarge`], [`Error::TooManyFds`], [`Error::TooManyFdsInFlight`]: `args` cannot
///   be sent, as in [`Sender::send`](crate::Sender::send).
/// - [`Error::Io`]: the program cannot be executed, or the kernel refuses something else.
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
pub fn spawn_command<A: Serialize>(mut command: Command, args: A) -> Result<Child> {
    // KERNEL: one packet fits an empty channel at once, however long the message
    // (`arguments_of_any_length_arrive`), so this does not block.
    let (sender, mut receiver) = channel::<A>()?;
    sender.send(args)?;
    drop(sender);
    if receiver.as_fd().as_raw_fd() < FIRST {
        let higher = fcntl_dupfd_cloexec(&receiver, FIRST)
            .map_err(|errno| Error::io("duplicate the descriptor of a channel end", errno))?;
        receiver = higher.try_into()?;
    }
    let number = receiver.as_fd().as_raw_fd();
    command.env(VARIABLE, number.to_string());
    let inheritable = move || {
        // SAFETY: the parent keeps it open until the program is executed.
        #[allow(unsafe_code, reason = "`pre_exec` takes what lives for ever")]
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl_setfd(fd, FdFlags::empty()).map_err(io::Error::from)
    };
    // Between fork and exec, so that in this process it is close-on-exec all the time.
    // SAFETY: all that it does is one system call.
    #[allow(unsafe_code, reason = "std's only way to run code in the child")]
    unsafe {
        command.pre_exec(inheritable);
    }
    let started = command.spawn();
    drop(receiver);
    started.map_err(|source| Error::io("start a program", source))
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
    match Socket::check(fd) {
        Ok(()) => Ok(()),
        Err(Error::NotAChannel { reason }) => refused(format!(
            "{VARIABLE}={number} names a foreign descriptor: {reason}"
        )),
        Err(error) => Err(error),
    }
}
