//! `spawn`: a function in a forked child.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::Errno;
use rustix::process::{Pid, getpid};
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};

use super::abandoned;
use super::child::Child;
use super::detach::detach;
use super::handle::Process;
use super::outcome::Delivery;
use super::run;
use super::settings::{Settings, discard_output, takes_output};
use super::threads::{has_one_task, is_single_threaded};
use crate::blob;
use crate::channel::{Sender, channel};
use crate::error::{Error, Result};
use crate::message::outbound;
use crate::sys::registry::{FIRST, FdSet};
use crate::sys::{registry, socket};

/// Runs `f(args)` in a child process.
///
/// Forks, and moves `args` into the child: when this returns, this process has dropped it, and the channel
/// ends and descriptors that it held are the child's. All other channel ends of this process are dead in
/// the child, see [the module](crate::process), which also says what else a child has. `f` is a
/// function pointer: a closure that captures nothing will do.
///
/// Whatever else is open here is open there as well, with its `flock`s: see [the module](crate::process#locks-on-files).
///
/// Does not block. `Ok` means that the child exists; [`Child::join`] gives the result of `f`, or says how the child
/// ended: if `f` panics, say, with which message (where panics unwind).
///
/// `args` is serialized to find what it holds, so it must be something that [`Sender::send`] could send.
/// It is not sent, and need not be [`Deserialize`](serde::Deserialize).
///
/// # Errors
///
/// There is no child then, and `args` is dropped:
///
/// - [`Error::MultiThreaded`]: this process has more than one thread. Use
///   [`spawn_fresh`](crate::spawn_fresh), or [`spawn_command`](crate::spawn_command).
/// - [`Error::Encode`]: `args` cannot be written as JSON.
/// - [`Error::Io`]: the kernel refused to fork, for lack of memory or because of `RLIMIT_NPROC`; or this process is
///   out of descriptors; or there is neither `/proc` nor another way to count its threads. Where the kernel
///   has no pidfds (Linux before 5.4) the child has begun by then, and is killed.
///
/// # Examples
///
/// ```
/// use wormhole::{ChildEnd, Error, Receiver, channel, spawn};
///
/// fn total(numbers: Receiver<u64>) -> u64 {
///     numbers.iter().map(Result::unwrap).sum()
/// }
///
/// let (number, numbers) = channel()?;
/// let child = spawn(numbers, total)?;
/// (1..=10).try_for_each(|n| number.send(n))?;
/// drop(number);
/// assert_eq!(child.join()?, 55);
///
/// let child = spawn("seven", |text: &str| text.parse::<u64>().unwrap())?;
/// let Err(Error::Child { end, .. }) = child.join() else { panic!() };
/// assert!(matches!(end, ChildEnd::Panicked { message } if message.contains("ParseIntError")));
/// # Ok::<(), Error>(())
/// ```
pub fn spawn<A, R>(args: A, f: fn(A) -> R) -> Result<Child<R>>
where
    A: Serialize,
    R: Serialize + DeserializeOwned,
{
    call(&Settings::default(), Threads::One, args, f)
}

/// Runs `f(args)` in a child process, as [`spawn`] does, whatever threads this process has.
///
/// # Safety
///
/// In the child there is only the calling thread. What other threads held locked at the moment of the fork stays
/// locked forever, and what they were changing stays as it was. So, if there are other threads:
///
/// - `f` and the `Serialize` of its result may only call what
///   [`signal-safety(7)`](https://man7.org/linux/man-pages/man7/signal-safety.7.html) allows, or what the
///   caller knows not to depend on other threads. Allocating memory works with the
///   allocator of glibc. Printing may deadlock, and what is printed without a line's end is lost.
/// - Descriptors that other threads open or close at that moment are the caller's concern. An end that they are making,
///   receiving or dropping may stay open in the child, and a number that was an end's when the child's were looked up and
///   is another file's by the time of the fork is replaced in the child by a dead socket.
///
/// With or without other threads, memory that is shared with the child rather than copied, such as that of a
/// [`Blob`](crate::Blob) which is being filled, must not be reached by both.
///
/// # Errors
///
/// As [`spawn`], without [`Error::MultiThreaded`].
///
/// # Examples
///
/// ```
/// use wormhole::{Error, spawn, spawn_unchecked};
///
/// std::thread::scope(|scope| {
///     let (alive, over) = std::sync::mpsc::channel::<()>();
///     scope.spawn(move || over.recv());
///     assert!(matches!(spawn(2, |n: u32| n + 2), Err(Error::MultiThreaded)));
///     // SAFETY: the other thread only waits.
///     let child = unsafe { spawn_unchecked(2, |n: u32| n + 2) }?;
///     drop(alive);
///     assert_eq!(child.join()?, 4);
///     Ok::<(), Error>(())
/// })?;
/// # Ok::<(), Error>(())
/// ```
#[allow(unsafe_code, reason = "what a fork leaves behind is up to the caller")]
pub unsafe fn spawn_unchecked<A, R>(args: A, f: fn(A) -> R) -> Result<Child<R>>
where
    A: Serialize,
    R: Serialize + DeserializeOwned,
{
    call(&Settings::default(), Threads::Any, args, f)
}

/// Whether a process may fork that has several threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Threads {
    One,
    Any,
}

/// A call in a child, with where its result goes. Serialized, it shows the descriptors in it.
struct Call<A, R> {
    args: A,
    f: fn(A) -> R,
    result: Sender<Delivery<R>>,
}

impl<A: Serialize, R> Serialize for Call<A, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.args, &self.result).serialize(serializer)
    }
}

/// Starts a child whose function returns a value.
pub(super) fn call<A, R>(
    settings: &Settings,
    threads: Threads,
    args: A,
    f: fn(A) -> R,
) -> Result<Child<R>>
where
    A: Serialize,
    R: Serialize + DeserializeOwned,
{
    let (result, results) = channel::<Delivery<R>>()?;
    let call = Call { args, f, result };
    let results = Some(results);
    let forked = fork_and_run(settings, threads, call, results, |call, ready| {
        let Call { args, f, result } = call;
        run::run(&result, ready.map(|()| || f(args)))
    });
    match forked {
        Ok((process, Some(results))) => Ok(Child::new(process, results)),
        Ok((_, None)) => Err(Error::Disconnected), // it was `Some`
        // What the caller knows is the type of its arguments.
        Err(Error::Encode { reason, .. }) => Err(Error::encode::<A>(reason)),
        Err(error) => Err(error),
    }
}

/// Forks a child, which has `args`, runs `main` and ends with the exit status that this gives. `main` is told whether
/// it is ready. It may not unwind. `private` is closed in the child.
// Memory decides what this costs. After a fork both processes pay for each page, of data or of code, that they
// touch for the first time, and a page costs as much as several system calls. So the child of an empty function
// neither allocates nor frees.
pub(super) fn fork_and_run<A: Serialize, P: AsFd>(
    settings: &Settings,
    threads: Threads,
    args: A,
    private: Option<P>,
    main: fn(A, Result<()>) -> i32,
) -> Result<(Process, Option<P>)> {
    if threads == Threads::One && !is_single_threaded()? {
        return Err(Error::MultiThreaded);
    }
    let (mut keep, given) = detach(&args)?;
    if threads == Threads::One && blob::is_being_filled() {
        let operation = "fork while a blob is being filled, whose memory the child would share";
        return Err(Error::io(operation, Errno::BUSY));
    }
    if registry::has_unknown_strays() {
        let operation = "take away from a child the ends that are numbered beyond 2^20";
        return Err(Error::io(operation, Errno::BADF));
    }
    if let Some(private) = &private {
        keep.insert(private.as_fd().as_raw_fd());
    }
    // What the caller's `Serialize` has started counts as well.
    let alone = match threads {
        Threads::One if !is_single_threaded()? => return Err(Error::MultiThreaded),
        Threads::One => true,
        Threads::Any => has_one_task().unwrap_or(false),
    };

    // What the child needs to lock as well is locked by this thread during the fork, so by no other. With several
    // threads another one may hold standard output as long as it likes: then it is left alone.
    let mut stdout = alone.then(|| io::stdout().lock());
    // Or both processes would print what it holds.
    let flushed = stdout
        .as_mut()
        .is_none_or(|stdout| takes_output(stdout.as_fd()) && stdout.flush().is_ok());
    let mut abandoned = abandoned::abandoned();
    abandoned::reap_some(&mut abandoned);
    let mut strays = registry::strays(&keep);
    if settings.only_arguments {
        let open = open_numbers()?;
        let others = open.iter().filter(|&number| !keep.contains(number));
        others.for_each(|number| strays.insert(number));
    }
    let dead = match strays.is_empty() {
        true => None,
        false => Some(socket::dead()?),
    };
    if let Some(dead) = &dead {
        strays.remove(dead.as_raw_fd());
    }
    outbound::warm_up();
    let parent = settings.ends_with_parent.then(getpid);
    let Some(pid) = fork()? else {
        let ready = settings.redirect().and_then(|()| match &dead {
            Some(dead) => registry::replace_by_dead(&strays, dead.as_fd()),
            None => Ok(()),
        });
        abandoned.clear();
        drop((abandoned, stdout, dead));
        private.into_iter().for_each(registry::close);
        let ready = ready
            .map_err(|errno| Error::io("replace the descriptors of its parent", errno))
            .and_then(|()| settings.apply(parent));
        if !flushed {
            discard_output();
        }
        // Nothing may unwind into the frames of the parent.
        let code = catch_unwind(AssertUnwindSafe(|| main(args, ready))).unwrap_or(run::PANICKED);
        if alone {
            let _ = catch_unwind(|| io::stdout().flush());
        }
        exit(code)
    };
    drop((abandoned, stdout));

    // Closed first, which leaves room for the pidfd.
    drop(dead);
    given.note();
    drop(args);
    Ok((Process::adopt(pid)?, private))
}

/// The descriptors of this process that are no standard streams.
fn open_numbers() -> Result<FdSet> {
    let entries = fs::read_dir("/proc/self/fd")
        .map_err(|error| Error::io("list the open descriptors (/proc/self/fd)", error))?;
    let mut numbers = FdSet::default();
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("list the open descriptors", error))?;
        let number: Option<RawFd> = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(number @ FIRST..) = number {
            numbers.insert(number);
        }
    }
    Ok(numbers)
}

/// Makes a child process, and returns in both: `None` in the child.
#[allow(unsafe_code, reason = "a child process takes a fork")]
fn fork() -> Result<Option<Pid>> {
    // SAFETY: either this is the only thread, or the caller of `spawn_unchecked` has promised that
    // the child does without the others.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(Error::io("fork", io::Error::last_os_error()));
    }
    Ok(Pid::from_raw(pid))
}

#[allow(unsafe_code, reason = "std has no exit that skips the exit handlers")]
fn exit(code: i32) -> ! {
    // SAFETY: ends the process, and runs nothing of it any more.
    unsafe { libc::_exit(code) }
}
