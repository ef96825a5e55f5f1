//! How a child starts.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::child::Child;
use super::settings::Settings;
use super::spawn::Threads;
use super::{command, fresh, spawn};
use crate::error::Result;
use crate::sys::registry::above_streams;

/// How a child process starts: the same settings for all kinds of children, and for any number of them.
///
/// Without any setting, its methods do what [`spawn`](crate::spawn()), [`spawn_fresh`](crate::spawn_fresh) and
/// [`spawn_command`](crate::spawn_command) do.
///
/// # Examples
///
/// ```
/// use std::io::Read;
///
/// use wormhole::{ChildEnd, Error, process};
///
/// let (mut printed, stdout) = std::io::pipe()?;
/// let mut builder = process::Builder::new();
/// builder.name("greeter").only_arguments(true).stdout(stdout);
/// let child = builder.spawn("hello", |text: &str| println!("{text}"))?;
/// child.join()?;
/// drop(builder); // which holds the other end of the pipe
/// let mut text = String::new();
/// printed.read_to_string(&mut text)?;
/// assert_eq!(text, "hello\n");
///
/// let failed = process::Builder::new().spawn((), |()| -> () { std::process::exit(1) })?;
/// let Err(Error::Child { end, .. }) = failed.join() else { panic!() };
/// assert_eq!(end, ChildEnd::Exited { code: 1 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Builder {
    settings: Settings,
}

impl Builder {
    /// Starts from the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has the kernel kill the child (`SIGKILL`) as soon as its parent ends, however that ends. Off by default.
    ///
    /// **Its parent is the thread that starts it**, not the process: where that thread ends, the child does. So
    /// start such children from the main thread, or from one that lives as long as they shall. The threads that a runtime
    /// lends for blocking work do not: tokio's end after some idle seconds. See `PR_SET_PDEATHSIG` in
    /// [`prctl(2)`](https://man7.org/linux/man-pages/man2/prctl.2.html). A child that becomes another user loses
    /// this.
    ///
    /// A program that is started with this is forked, which takes long in a process with much memory.
    ///
    /// Without it, a child that waits for a channel of its parent's sees [`Error::Disconnected`](crate::Error) when the
    /// parent is gone, and may end by itself.
    pub fn end_with_parent(&mut self, yes: bool) -> &mut Self {
        self.settings.ends_with_parent = yes;
        self
    }

    /// Leaves the child no descriptor but the standard streams and those in its arguments. Off by default.
    ///
    /// A forked child has copies of all that its parent has open: a client's connection, say, which then stays open when
    /// the parent closes it, and a file keeps its [lock](crate::process#locks-on-files). With this, a dead socket stands in
    /// the place of each. A fresh child never has any, and a program none that is close-on-exec.
    pub fn only_arguments(&mut self, yes: bool) -> &mut Self {
        self.settings.only_arguments = yes;
        self
    }

    /// Gives all signals their default action, and blocks none, before the function runs or the program starts. Off by
    /// default.
    ///
    /// A forked child has the handlers and the blocked signals of its parent, a fresh one and a program the signals that are
    /// blocked or ignored; only if there are any, a program is forked for this. `SIGPIPE` stays ignored in functions, as
    /// Rust has it, and a stack overflow goes on to say that it is one.
    pub fn reset_signals(&mut self, yes: bool) -> &mut Self {
        self.settings.resets_signals = yes;
        self
    }

    /// Names the child, as `ps` and `top` show it: the first 15 bytes, up to a NUL. For a program it does nothing, as the
    /// kernel names these after their files.
    pub fn name(&mut self, name: &str) -> &mut Self {
        let bytes = name.bytes().take_while(|&byte| byte != 0).take(15);
        self.settings.name = CString::new(bytes.collect::<Vec<_>>()).ok();
        self
    }

    /// Sets what the child has as its standard input. That of this process by default; for a program, what its
    /// [`Command`] says.
    ///
    /// It is a file, a pipe, a socket, and so on; it stays open here for as long as this builder lives.
    pub fn stdin(&mut self, stream: impl Into<OwnedFd>) -> &mut Self {
        self.settings.stdin = Some(Arc::new(above_streams(stream.into())));
        self
    }

    /// Sets what the child has as its standard output, as [`stdin`](Self::stdin) does for the input.
    pub fn stdout(&mut self, stream: impl Into<OwnedFd>) -> &mut Self {
        self.settings.stdout = Some(Arc::new(above_streams(stream.into())));
        self
    }

    /// Sets what the child has as its standard error, as [`stdin`](Self::stdin) does for the input.
    pub fn stderr(&mut self, stream: impl Into<OwnedFd>) -> &mut Self {
        self.settings.stderr = Some(Arc::new(above_streams(stream.into())));
        self
    }

    /// Runs `f(args)` in a forked child, as [`spawn`](crate::spawn()) does.
    ///
    /// # Errors
    ///
    /// As [`spawn`](crate::spawn()). That the child cannot have what was set, it says as the
    /// [`ChildEnd::Undelivered`](crate::ChildEnd) of its join.
    pub fn spawn<A, R>(&self, args: A, f: fn(A) -> R) -> Result<Child<R>>
    where
        A: Serialize,
        R: Serialize + DeserializeOwned,
    {
        spawn::call(&self.settings, Threads::One, args, f)
    }

    /// Runs `f(args)` in a forked child whatever threads this process has, as
    /// [`spawn_unchecked`](crate::spawn_unchecked) does.
    ///
    /// # Safety
    ///
    /// As [`spawn_unchecked`](crate::spawn_unchecked). With [`only_arguments`](Self::only_arguments), a descriptor that
    /// another thread is opening at that moment may stay open in the child.
    ///
    /// # Errors
    ///
    /// As [`Builder::spawn`], without [`Error::MultiThreaded`](crate::Error::MultiThreaded).
    #[allow(unsafe_code, reason = "what a fork leaves behind is up to the caller")]
    pub unsafe fn spawn_unchecked<A, R>(&self, args: A, f: fn(A) -> R) -> Result<Child<R>>
    where
        A: Serialize,
        R: Serialize + DeserializeOwned,
    {
        spawn::call(&self.settings, Threads::Any, args, f)
    }

    /// Runs `f(args)` in a fresh copy of this program, as [`spawn_fresh`](crate::spawn_fresh) does.
    ///
    /// # Errors
    ///
    /// As [`spawn_fresh`](crate::spawn_fresh). A child that cannot have what was set says so on its standard error, and
    /// ends with status 125.
    pub fn spawn_fresh<A, R>(&self, args: A, f: fn(A) -> R) -> Result<Child<R>>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        fresh::call(&self.settings, args, f)
    }

    /// Starts a program and hands it `args`, as [`spawn_command`](crate::spawn_command) does, and gives a [`Child`]:
    /// with a pidfd, deadlines, [`kill`](Child::kill), and an end with a type.
    ///
    /// [`Child::join`] is `Ok` if the program ends with an exit status of 0. The pipes that the command asks for
    /// ([`Stdio::piped`](std::process::Stdio::piped)) are the child's [`take_stdin`](Child::take_stdin) and so on.
    ///
    /// # Errors
    ///
    /// As [`spawn_command`](crate::spawn_command).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::process::Command;
    ///
    /// use wormhole::{ChildEnd, Error, process};
    ///
    /// let builder = process::Builder::new();
    /// builder.spawn_command(Command::new("true"), ())?.join()?;
    ///
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "exit 3"]);
    /// let Err(Error::Child { end, .. }) = builder.spawn_command(command, ())?.join() else { panic!() };
    /// assert_eq!(end, ChildEnd::Exited { code: 3 });
    /// # Ok::<(), Error>(())
    /// ```
    pub fn spawn_command<A: Serialize>(&self, command: Command, args: A) -> Result<Child<()>> {
        command::start(&self.settings, command, args)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }
}
