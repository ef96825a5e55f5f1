//! `spawn`: a function in a forked child.

use std::any::Any;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::child::{self, Child};
use super::detach::detach;
use super::outcome::Delivery;
use crate::channel::{Sender, channel};
use crate::error::{Error, Result};
use crate::message::outbound;
use crate::sys::{registry, socket};

/// Runs `f(args)` in a child process.
///
/// Forks, and moves `args` into the child: when this returns, this process has dropped it, and the channel
/// ends and descriptors that it held are the child's. All other channel ends of this process are dead in
/// the child, see [the module](crate::process), which also says what else a child has. `f` is a
/// function pointer: a closure that captures nothing will do.
///
/// Does not block. `Ok` means that the child exists; [`Child::join`] gives the result of `f`, or says how the child
/// ended: if `f` panics, say, with which message (where panics unwind). `SIGCHLD` must not be ignored, or a child that ends at
/// once cannot be told from none.
///
/// `args` is serialized to find what it holds, so it must be something that [`Sender::send`] could send.
/// It is not sent, and need not be [`Deserialize`](serde::Deserialize).
///
/// # Errors
///
/// There is no child then, and `args` is dropped:
///
/// - [`Error::MultiThreaded`]: this process has more than one thread. Use
///   [`spawn_command`](crate::spawn_command).
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
/// let Err(Error::Child { end }) = child.join() else { panic!() };
/// assert!(matches!(end, ChildEnd::Panicked { message } if message.contains("ParseIntError")));
/// # Ok::<(), Error>(())
/// ```
pub fn spawn<A, R>(args: A, f: fn(A) -> R) -> Result<Child<R>>
where
    A: Serialize,
    R: Serialize + DeserializeOwned,
{
    if !is_single_threaded()? {
        return Err(Error::MultiThreaded);
    }
    fork_and_run(args, f)
}

/// Runs `f(args)` in a child process, as [`spawn`] does, whatever threads this process has.
///
/// # Safety
///
/// In the child there is only the calling thread. What other threads held locked at the moment of the fork stays
/// locked for ever, and what they were changing stays as it was. So, if there are other threads, `f` and the
/// `Serialize` of its result may only call what
/// [`signal-safety(7)`](https://man7.org/linux/man-pages/man7/signal-safety.7.html) allows, or what the
/// caller knows not to depend on other threads. Allocating memory works with the
/// allocator of glibc. Ends that other threads are making, receiving or dropping at that moment may
/// stay open in the child.
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
    fork_and_run(args, f)
}

// Memory decides what this costs. After a fork both processes pay for each page, of data or of code, that they
// touch for the first time, and a page costs as much as several system calls. So the child of an empty function
// neither allocates nor frees.
fn fork_and_run<A, R>(args: A, f: fn(A) -> R) -> Result<Child<R>>
where
    A: Serialize,
    R: Serialize + DeserializeOwned,
{
    let mut keep = detach(&args)?;
    let (result, results) = channel::<Delivery<R>>()?;
    keep.insert(result.as_fd().as_raw_fd());
    keep.insert(results.as_fd().as_raw_fd());

    // What the child needs to lock as well is locked by this thread during the fork, so by no other.
    let mut stdout = io::stdout().lock();
    let _ = stdout.flush(); // or both processes would print what it holds
    let mut abandoned = child::abandoned();
    child::reap_abandoned(&mut abandoned);
    let strays = registry::strays(&keep);
    let dead = match strays.is_empty() {
        true => None,
        false => Some(socket::dead()?),
    };
    outbound::warm_up();
    let Some(pid) = fork()? else {
        let ready = dead
            .as_ref()
            .map_or(Ok(()), |dead| registry::make_inert(&strays, dead.as_fd()));
        abandoned.clear();
        drop((abandoned, stdout, dead));
        registry::close(results);
        let ready = ready.map_err(|errno| Error::io("replace the ends of other channels", errno));
        end_child(result, ready, || f(args))
    };
    drop((abandoned, stdout));

    // Closed first, which leaves room for the pidfd.
    drop((dead, result));
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| {
        // Unless it is gone, with its number, because SIGCHLD is ignored: nobody would ever reap it.
        if errno != Errno::SRCH {
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
        Error::io("open a descriptor (pidfd_open) for a child", errno)
    })?;
    drop(args);
    Ok(Child::new(pid, pidfd, results))
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

/// The rest of a child's life: the function, and its result.
fn end_child<R: Serialize + DeserializeOwned>(
    result: Sender<Delivery<R>>,
    ready: Result<()>,
    f: impl FnOnce() -> R,
) -> ! {
    // Nothing may unwind into the frames of the parent.
    let run = AssertUnwindSafe(|| match ready {
        Ok(()) => deliver(&result, Delivery::Value(f())),
        Err(error) => deliver(&result, Delivery::Undelivered(format!("{error:#}"))),
    });
    let code = catch_unwind(run).unwrap_or_else(|payload| {
        // The function panicked, or else the `Serialize` of its result.
        let _ = result.send(Delivery::Panicked(panic_message(payload)));
        PANICKED
    });
    let _ = catch_unwind(|| io::stdout().flush());
    exit(code)
}

/// The exit status of a Rust program that panics.
const PANICKED: i32 = 101;

/// Sends the result, or else why there is none, and gives the exit status.
fn deliver<R: Serialize>(result: &Sender<Delivery<R>>, outcome: Delivery<R>) -> i32 {
    let code = (!matches!(outcome, Delivery::Value(_))).into();
    match result.send(outcome) {
        Ok(()) | Err(Error::Disconnected) => code, // disconnected: nobody wants to know
        Err(error) => {
            let _ = result.send(Delivery::Undelivered(format!("{error:#}")));
            1
        }
    }
}

fn panic_message(payload: Box<dyn Any + Send>) -> String {
    let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref()) {
        (Some(text), _) => String::from(*text),
        (None, Some(text)) => String::clone(text),
        (None, None) => "a value that is no text".to_owned(),
    };
    std::mem::forget(payload); // its destructor could panic again
    message
}

#[allow(unsafe_code, reason = "std has no exit that skips the exit handlers")]
fn exit(code: i32) -> ! {
    // SAFETY: ends the process, and runs nothing of it any more.
    unsafe { libc::_exit(code) }
}

/// Whether this process has one thread.
fn is_single_threaded() -> Result<bool> {
    // KERNEL: a thread that has been joined may still be listed for a moment: pthread_join returns on
    // CLONE_CHILD_CLEARTID, before the kernel has released the task. Measured: once in 600 joins.
    let patience = Instant::now() + Duration::from_millis(50);
    loop {
        if has_one_task()? {
            return Ok(true);
        }
        if Instant::now() > patience {
            return Ok(false);
        }
        thread::yield_now();
    }
}

fn has_one_task() -> Result<bool> {
    if let Some(answer) = can_unshare() {
        return Ok(answer);
    }
    match fs::read_dir("/proc/self/task") {
        Ok(tasks) => Ok(tasks.take(2).count() == 1),
        Err(error) => Err(Error::io("count the threads", error)),
    }
}

/// Asks the kernel itself. Some sandboxes do not permit it.
#[allow(unsafe_code, reason = "a system call that rustix calls unsafe as well")]
fn can_unshare() -> Option<bool> {
    // KERNEL: unshare(2): in a process with one thread CLONE_THREAD has no effect, in others it is EINVAL.
    // SAFETY: so it changes nothing.
    if unsafe { libc::unshare(libc::CLONE_THREAD) } == 0 {
        return Some(true);
    }
    (io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)).then_some(false)
}
