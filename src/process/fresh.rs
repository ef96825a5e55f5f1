//! `spawn_fresh`: a function in a fresh copy of this program.
//!
//! The parent starts `/proc/self/exe` with a socket as its standard input, in which two messages lie: a [`Hello`], which
//! any copy of the program can read, and the arguments. Its standard input travels in the first. A `Command` sets up
//! standard input by itself, so no code of this process runs between fork and exec, and std need not fork at all: the
//! cost does not depend on how large this process is. An environment variable tells the copy that it is one, by the inode
//! of the socket: nothing else that it might find as its standard input will do.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, process};

use rustix::fs::fstat;
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_getfd};
use rustix::process::Pid;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::child::Child;
use super::code;
use super::handle::Process;
use super::outcome::Delivery;
use super::run;
use super::settings::{Settings, Told};
use super::threads::has_one_task;
use crate::channel::{Receiver, Sender, channel};
use crate::error::{Error, Result};
use crate::fd;
use crate::sys::peer;
use crate::sys::registry::{FIRST, above_streams};
use crate::sys::socket::Socket;

/// The environment variable that makes a process a fresh copy: the inode of its standard input.
const VARIABLE: &str = "WORMHOLE_FRESH";

/// The exit status of a copy that got no further than this file.
const FAILED: i32 = 125;

/// Whether this process has called `init`, and so its copies will.
// ORDERING: relaxed will do, nothing else goes with it.
static READY: AtomicBool = AtomicBool::new(false);

/// A descriptor as a part of a message.
pub(super) struct Descriptor(OwnedFd);

impl Serialize for Descriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fd::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fd::deserialize(deserializer).map(Descriptor)
    }
}

/// What every copy is told: of which program it is a copy, the offset of its entry, and that of the function that it
/// passes to it; its standard input; where its result goes; its settings, and its parent.
type Hello = (
    String,
    u64,
    u64,
    Option<Descriptor>,
    Option<Descriptor>,
    Told,
    i32,
);

/// What a copy does: takes its arguments from the socket, and calls the function at that offset.
type Entry = fn(OwnedFd, u64, Option<OwnedFd>) -> i32;

/// The function of a copy, which gets its arguments, or why they did not arrive, and where its result goes.
pub(super) type Main<A> = fn(Result<A>, Option<OwnedFd>) -> i32;

/// Makes this process what [`spawn_fresh`] started it for, if it did. Otherwise it returns at once.
///
/// **Call it first thing in `main`**, in every program that uses [`spawn_fresh`] or a fresh
/// [`Pool`](crate::Pool):
///
/// ```
/// use wormhole::{Error, process, spawn_fresh};
///
/// fn main() -> Result<(), Error> {
///     process::init();
///     assert_eq!(spawn_fresh(20, |number: u32| number + 1)?.join()?, 21);
///     Ok(())
/// }
/// ```
///
/// In a process that [`spawn_fresh`] started it does not return: it runs the function, delivers the result, and ends the
/// process as [`std::process::exit`] does. What stands before it in `main` runs in each of these processes, what stands
/// after it does not. It may be called more than once.
///
/// Tests have no `main` of their own: see [`init_tests!`](crate::init_tests).
///
/// It finds out by the environment variable `WORMHOLE_FRESH`, which it removes if there is no other thread yet. By itself
/// the variable does nothing: it must name the socket that is this process's standard input, in which a copy of this very
/// program has left a message.
pub fn init() {
    READY.store(true, Ordering::Relaxed);
    let Some(variable) = env::var_os(VARIABLE) else {
        return;
    };
    // Another process of this program has left the variable to its children, of which this is one.
    if !is_for_me(&variable) {
        return;
    }
    match become_child() {
        Ok(code) => process::exit(code),
        // Never the rest of `main`: it would run a second time.
        Err(error) => {
            eprintln!("wormhole: a fresh copy of a program cannot start: {error:#}");
            process::exit(FAILED);
        }
    }
}

/// Whether the variable names this process's standard input.
fn is_for_me(variable: &OsString) -> bool {
    let number = variable.to_str().and_then(|text| text.parse().ok());
    let stdin = io::stdin();
    let is_named = fstat(&stdin).is_ok_and(|stat| Some(stat.st_ino) == number);
    // A socket that this process has made itself is none that it was handed.
    is_named
        && Socket::check(stdin.as_fd()).is_ok()
        && peer::credentials(&stdin).is_ok_and(|peer| peer.pid != Some(process::id()))
}

/// The whole life of a fresh copy. Gives its exit status.
#[allow(unsafe_code, reason = "calls a function by its offset")]
fn become_child() -> Result<i32> {
    if code::is_privileged() {
        let reason = "this program was started with more rights than its parent has".to_owned();
        return Err(Error::FreshCopy { reason });
    }
    let failed = |errno| Error::io("set up the standard streams", errno);
    fill_streams()?;
    let boot = fcntl_dupfd_cloexec(io::stdin(), FIRST).map_err(failed)?;
    // So that nothing reads the messages, whatever happens.
    dup2_stdin(null()?).map_err(failed)?;
    close_inherited(&boot);
    forget_variable();

    let hello: Receiver<Hello> = boot.try_into()?;
    let (program, entry, function, stdin, result, told, parent) = hello.try_recv()?;
    if let Some(Descriptor(stdin)) = stdin {
        dup2_stdin(stdin).map_err(failed)?;
    }
    if code::identity()? != program {
        let reason = "it is another program than its parent".to_owned();
        return Err(Error::FreshCopy { reason });
    }
    // SAFETY: the same program has said that this is one.
    let Some(entry) = (unsafe { code::function_at::<Entry>(entry) }) else {
        return Err(not_here());
    };
    Settings::from_told(told).apply(Pid::from_raw(parent))?;
    let result = result.map(|Descriptor(result)| result);
    Ok(entry(hello.try_into()?, function, result))
}

fn not_here() -> Error {
    let reason = "its function is not in this program".to_owned();
    Error::FreshCopy { reason }
}

fn null() -> Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/null");
    file.map(|file| above_streams(file.into()))
        .map_err(|source| Error::io("open /dev/null", source))
}

/// Opens those of the standard streams that are closed, as Rust's runtime does before `main`.
fn fill_streams() -> Result<()> {
    let failed = |errno| Error::io("open the standard streams", errno);
    if fcntl_getfd(io::stdout()) == Err(Errno::BADF) {
        dup2_stdout(null()?).map_err(failed)?;
    }
    if fcntl_getfd(io::stderr()) == Err(Errno::BADF) {
        dup2_stderr(null()?).map_err(failed)?;
    }
    Ok(())
}

/// Closes what the parent has let through by mistake: what this process opens itself is close-on-exec.
#[allow(unsafe_code, reason = "an inherited descriptor is a mere number")]
fn close_inherited(boot: &OwnedFd) {
    use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd};
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers: Vec<RawFd> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers {
        if number < FIRST || number == boot.as_raw_fd() {
            continue;
        }
        // SAFETY: it is only looked at, and that it is closed by now is an answer.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        if fcntl_getfd(fd).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC)) {
            // SAFETY: it came through the exec, so nothing in this process owns it.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
}

/// Removes the variable, so that no child of this process looks at it.
#[allow(unsafe_code, reason = "other threads may be reading the environment")]
fn forget_variable() {
    if has_one_task().unwrap_or(false) {
        // SAFETY: there is no other thread.
        unsafe { env::remove_var(VARIABLE) };
    }
}

/// Runs `f(args)` in a fresh copy of this program, from any thread.
///
/// The copy is started anew (`/proc/self/exe`) rather than forked: nothing of this process's memory is in it, no locks,
/// random generators, buffers or threads, and the cost does not depend on how much that is. So it works in a program with
/// threads, inside an async runtime, in tests, and after the program's file was replaced or removed. What
/// [`spawn`](crate::spawn) is to [`fork(2)`](https://man7.org/linux/man-pages/man2/fork.2.html), this is to
/// [`posix_spawn(3)`](https://man7.org/linux/man-pages/man3/posix_spawn.3.html).
///
/// **The program calls [`process::init`](crate::process::init) first thing in `main`**; tests use
/// [`init_tests!`](crate::init_tests).
///
/// `args` is sent, so it is something that [`Sender::send`] can send and the child can receive, nested at most 126 levels
/// deep; the ends and descriptors that it holds move into the child. The child has these and the standard streams, its
/// environment and its arguments are those of this process, and nothing else is inherited, no lock on a file either but
/// [those of files in `args`](crate::process#locks-on-files). `f` is a function of this program: a closure that captures
/// nothing will do. When it has returned, the child exits in the ordinary way, with exit handlers, as
/// [`std::process::exit`] does.
///
/// Blocks until the copy is executed, a millisecond or less. [`Child::join`] gives the result of `f`, or says how the child
/// ended.
///
/// # Errors
///
/// There is no child then, and `args` is dropped:
///
/// - [`Error::FreshCopy`]: this program has not called [`process::init`](crate::process::init); or `f` is not a function of
///   this program itself, but of a library that it has loaded; or the program runs with other rights than its user's
///   (setuid), or was started as an argument of the dynamic loader.
/// - [`Error::Encode`], [`Error::TooLarge`], [`Error::TooManyFds`], [`Error::TooManyFdsInFlight`]: `args` cannot
///   be sent, as in [`Sender::send`].
/// - [`Error::Io`]: the copy cannot be executed, or the kernel refuses something else.
///
/// # Examples
///
/// ```
/// use wormhole::{ChildEnd, Error, process, spawn_fresh};
///
/// fn main() -> Result<(), Error> {
///     process::init();
///     let waits = std::thread::spawn(std::thread::park); // `spawn` would refuse
///     let child = spawn_fresh((20, 22), |(a, b): (u32, u32)| a + b)?;
///     assert_eq!(child.join()?, 42);
///
///     let child = spawn_fresh((), |()| -> u32 { std::process::exit(3) })?;
///     let Err(Error::Child { end, .. }) = child.join() else { panic!() };
///     assert_eq!(end, ChildEnd::Exited { code: 3 });
/// #   waits.thread().unpark();
///     Ok(())
/// }
/// ```
pub fn spawn_fresh<A, R>(args: A, f: fn(A) -> R) -> Result<Child<R>>
where
    A: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    call(&Settings::default(), args, f)
}

/// Starts a child whose function returns a value.
pub(super) fn call<A, R>(settings: &Settings, args: A, f: fn(A) -> R) -> Result<Child<R>>
where
    A: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    let f = offset_of(f as usize)?;
    let (result, results) = channel::<Delivery<R>>()?;
    let result = Descriptor(result.try_into()?);
    let process =
        start(settings, (f, args), Some(result), called::<A, R>).map_err(|error| match error {
            Error::Encode { reason, .. } => Error::encode::<A>(reason),
            error => error,
        })?;
    Ok(Child::new(process, results))
}

/// The offset of a function, if it is one of this program.
pub(super) fn offset_of(function: usize) -> Result<u64> {
    code::offset_of(function).ok_or_else(|| Error::FreshCopy {
        reason: "the function is not one of the program itself, but of a library".to_owned(),
    })
}

/// What a copy does with the function of a `spawn_fresh`, and its arguments.
#[allow(unsafe_code, reason = "calls a function by its offset")]
fn called<A, R: Serialize>(call: Result<(u64, A)>, result: Option<OwnedFd>) -> i32 {
    let Some(Ok(result)) = result.map(Sender::<Delivery<R>>::try_from) else {
        return FAILED;
    };
    let ready = call.and_then(|(f, args)| {
        // SAFETY: the parent, which is the same program, has had one of this type.
        let f = unsafe { code::function_at::<fn(A) -> R>(f) }.ok_or_else(not_here)?;
        Ok(move || f(args))
    });
    run::run(&result, ready)
}

/// What a copy does with its arguments, of whichever type.
#[allow(unsafe_code, reason = "calls a function by its offset")]
fn entry<A: DeserializeOwned>(boot: OwnedFd, main: u64, result: Option<OwnedFd>) -> i32 {
    let args = Receiver::<A>::try_from(boot).and_then(|args| args.try_recv());
    // SAFETY: the parent, which is the same program, has passed one of this type together with this entry.
    match unsafe { code::function_at::<Main<A>>(main) } {
        Some(main) => main(args, result),
        None => FAILED,
    }
}

/// Starts a fresh copy that calls `main` with `args`.
///
/// `W` is `A`, or the same with references in it.
pub(super) fn start<W: Serialize, A: DeserializeOwned>(
    settings: &Settings,
    args: W,
    result: Option<Descriptor>,
    main: Main<A>,
) -> Result<Process> {
    let refused = |reason: &str| {
        let reason = reason.to_owned();
        Err(Error::FreshCopy { reason })
    };
    if !READY.load(Ordering::Relaxed) {
        return refused(
            "`wormhole::process::init()` was not called: it has to be the first thing in `main` (in tests, use \
             `wormhole::init_tests!()`)",
        );
    }
    if code::is_privileged() {
        return refused("the program runs with more rights than its user has");
    }
    if code::is_run_by_a_loader() {
        return refused("the program was started by naming it to the dynamic loader");
    }
    let entry: Entry = entry::<A>;
    let hello = (
        code::identity()?,
        offset_of(entry as usize)?,
        offset_of(main as usize)?,
        standard_input(settings)?.map(Descriptor),
        result,
        settings.told(),
        rustix::process::getpid().as_raw_pid(),
    );
    // KERNEL: one packet fits an empty channel at once, however long the message, and so does one behind a short one
    // (`arguments_of_any_length_reach_a_fresh_child`). So this does not block.
    let (tell, boot) = channel::<Hello>()?;
    tell.send(hello)?;
    let tell = Sender::<W>::try_from(OwnedFd::try_from(tell)?)?;
    tell.send(args)?;
    drop(tell);
    execute(settings, boot.try_into()?)
}

fn standard_input(settings: &Settings) -> Result<Option<OwnedFd>> {
    let stdin = match &settings.stdin {
        Some(stdin) => stdin.try_clone(),
        None => io::stdin().as_fd().try_clone_to_owned(),
    };
    match stdin {
        Ok(stdin) => Ok(Some(stdin)),
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(None),
        Err(error) => Err(Error::io("duplicate the standard input", error)),
    }
}

fn execute(settings: &Settings, boot: OwnedFd) -> Result<Process> {
    let failed = |source| {
        Error::io(
            "start a fresh copy of this program (/proc/self/exe)",
            source,
        )
    };
    let inode = fstat(&boot).map_err(|errno| failed(errno.into()))?.st_ino;
    let mut command = Command::new(code::EXECUTABLE);
    let mut arguments = env::args_os();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env(VARIABLE, inode.to_string());
    command.stdin(Stdio::from(boot));
    if let Some(stdout) = &settings.stdout {
        command.stdout(stdout.try_clone().map_err(failed)?);
    }
    if let Some(stderr) = &settings.stderr {
        command.stderr(stderr.try_clone().map_err(failed)?);
    }
    let child = command.spawn().map_err(failed)?;
    drop(command); // with its copy of the socket
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    Process::adopt(pid.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?)
}

/// Lets [`spawn_fresh`](crate::spawn_fresh) work in tests: [`process::init`](crate::process::init) for a program whose
/// `main` is the test harness.
///
/// Write it once, anywhere at the top level of the crate whose tests use it: of each file in `tests/`, and of the library
/// for its unit tests (`#[cfg(test)] wormhole::init_tests!();`). It runs before `main` and before any thread; in a fresh
/// copy it runs the function instead of the tests. What that function prints goes to the standard output as it is.
///
/// # Examples
///
/// ```no_run
/// wormhole::init_tests!();
///
/// #[test]
/// fn squares_are_computed_elsewhere() {
///     let child = wormhole::spawn_fresh(7, |n: u32| n * n).unwrap();
///     assert_eq!(child.join().unwrap(), 49);
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! init_tests {
    () => {
        #[allow(unsafe_code, reason = "a function that runs before `main`")]
        const _: () = {
            type Constructor = extern "C" fn(i32, *const *const u8, *const *const u8);

            unsafe extern "C" {
                static __init_array_end: [Option<Constructor>; 0];
            }

            /// Runs the other constructors first, in a copy that will not return to them.
            extern "C" fn construct(
                count: i32,
                arguments: *const *const u8,
                variables: *const *const u8,
            ) {
                $crate::process::__init_tests(|| {
                    let mut next = (&raw const HOOK)
                        .wrapping_add(1)
                        .cast::<Option<Constructor>>();
                    let end = &raw const __init_array_end;
                    while next < end.cast() {
                        // SAFETY: between this one and the end lie those that the loader would call next, just so.
                        if let Some(constructor) = unsafe { *next } {
                            constructor(count, arguments, variables);
                        }
                        next = next.wrapping_add(1);
                    }
                });
            }

            #[used]
            #[unsafe(link_section = ".init_array")]
            static HOOK: Constructor = construct;
        };
    };
}

/// For [`init_tests!`](crate::init_tests).
#[doc(hidden)]
pub fn __init_tests(run_the_other_constructors: impl FnOnce()) {
    if env::var_os(VARIABLE).is_some_and(|variable| is_for_me(&variable)) {
        run_the_other_constructors();
    }
    init();
}

#[cfg(test)]
mod tests {
    use super::*;

    // This test binary has no `init_tests!`.
    #[test]
    fn without_init_there_is_an_error_and_no_second_run_of_main() {
        if !READY.load(Ordering::Relaxed) {
            let error = spawn_fresh((), |()| ()).map(drop).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with(
                "cannot start a fresh copy of this program: `wormhole::process::init()`"
            ));
            init(); // as in a program: it returns
            assert!(READY.load(Ordering::Relaxed));
        }
    }
}
