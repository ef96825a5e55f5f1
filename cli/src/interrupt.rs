//! Signals that end the program: socket files are removed first, and nothing that is in hand is cut short.
//!
//! A thread waits for them, so that they work whatever the others are busy or blocked with.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, path::Path};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use wormhole::{Error, Listener, Options, Raw, Receiver};

use crate::address::Address;
use crate::failure::{Failure, Outcome, Status, complain};

/// How long what is in hand may take to get on.
const GRACE: Duration = Duration::from_millis(500);

/// The signals whose default is to end a program, and that people send for that.
const ENDING: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];

/// What the signals must find, whatever the other threads do: all that has a file.
static DOORS: Mutex<Vec<Option<Listener<Raw>>>> = Mutex::new(Vec::new());

/// How many messages have been taken out of a channel and are not yet where they belong.
static IN_HAND: AtomicUsize = AtomicUsize::new(0);

static STOPPING: AtomicBool = AtomicBool::new(false);

static ORIGINAL_MASK: OnceLock<SigSet> = OnceLock::new();

/// The signals that were blocked when this program was started, for those that it starts.
pub(crate) fn original_mask() -> SigSet {
    ORIGINAL_MASK.get().copied().unwrap_or_else(SigSet::empty)
}

/// Sees to signals from now on. To be called before other threads are started.
pub(crate) fn watch() -> Outcome<()> {
    let failed = |error: io::Error| Failure::system("wait for signals", error);
    let mut awaited = SigSet::empty();
    let ignored = ignored_signals();
    for signal in ENDING {
        // What the shell or nohup(1) wants ignored stays so.
        if ignored & (1 << (signal as u32 - 1)) == 0 {
            awaited.add(signal);
        }
    }
    let mask = awaited
        .thread_swap_mask(SigmaskHow::SIG_BLOCK)
        .map_err(|errno| failed(errno.into()))?;
    if ORIGINAL_MASK.set(mask).is_err() {
        return Ok(()); // it is being done
    }
    let wait = move || {
        if let Ok(signal) = awaited.wait() {
            end_by(signal);
        }
    };
    let thread = thread::Builder::new().name("signals".to_owned());
    thread.spawn(wait).map(drop).map_err(failed)
}

/// A bit for each signal that is ignored, the lowest for signal 1.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.map_or(0, |bits| u64::from_str_radix(bits.trim(), 16).unwrap_or(0))
}

fn end_by(signal: Signal) {
    if !finish() {
        complain(&format!(
            "{signal} came while a message could not get on: it is lost, or cut short"
        ));
    }
    // So that whoever started this program sees what ended it.
    let mut only = SigSet::empty();
    only.add(signal);
    let _ = only.thread_unblock();
    let _ = raise(signal);
    process::exit(128 + signal as i32);
}

/// Waits until nothing is in hand, with patience but not for ever, and removes the socket files. No message is taken
/// in hand from here on.
fn finish() -> bool {
    STOPPING.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + GRACE;
    let mut done = IN_HAND.load(Ordering::SeqCst) == 0;
    while !done && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
        done = IN_HAND.load(Ordering::SeqCst) == 0;
    }
    doors().clear();
    done
}

/// Whether the program is about to end, as soon as nothing is in hand.
pub(crate) fn is_stopping() -> bool {
    STOPPING.load(Ordering::Relaxed)
}

/// Ends the program from any thread, as a signal would, with this status. Nothing may be in the caller's hand.
pub(crate) fn end(status: u8) -> ! {
    if !finish() {
        complain("a message could not get on at the end: it is lost, or cut short");
    }
    process::exit(status.into())
}

/// Something that must not be cut short. While there is one, signals wait a little.
#[derive(Debug)]
pub(crate) struct Hand(());

impl Hand {
    /// Does not return once the program is ending.
    pub(crate) fn take() -> Self {
        // ORDERING: this adds and then looks, `finish` says stop and then looks: one of them sees the other.
        IN_HAND.fetch_add(1, Ordering::SeqCst);
        if STOPPING.load(Ordering::SeqCst) {
            IN_HAND.fetch_sub(1, Ordering::SeqCst);
            loop {
                thread::park();
            }
        }
        Hand(())
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        IN_HAND.fetch_sub(1, Ordering::SeqCst);
    }
}

fn doors() -> MutexGuard<'static, Vec<Option<Listener<Raw>>>> {
    DOORS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A listener whose socket file is removed when it is dropped, or when the program is ended.
#[derive(Debug)]
pub(crate) struct Door {
    index: usize,
    /// A duplicate to poll, since the listener itself is lent out only for moments.
    polled: OwnedFd,
}

impl Door {
    pub(crate) fn bind(address: &Address, options: &Options) -> Outcome<Self> {
        let Address::Name(path) = address else {
            let sentence = format!("cannot listen at {address}: it is open already");
            return Err(Failure::new(Status::Usage, sentence));
        };
        watch()?;
        // Held meanwhile, so that a signal waits for the file.
        let mut doors = doors();
        let listener = options
            .bind(path)
            .map_err(|error| Failure::at(address, error))?;
        Self::of(listener, &mut doors)
    }

    /// Of a socket that somebody else has made, and whose file is theirs.
    pub(crate) fn adopt(fd: OwnedFd) -> Outcome<Self> {
        watch()?;
        Self::of(Listener::try_from(fd)?, &mut doors())
    }

    fn of(listener: Listener<Raw>, doors: &mut Vec<Option<Listener<Raw>>>) -> Outcome<Self> {
        let polled = listener.as_fd().try_clone_to_owned();
        let polled =
            polled.map_err(|error| Failure::system("duplicate a listening socket", error))?;
        doors.push(Some(listener));
        let index = doors.len() - 1;
        Ok(Door { index, polled })
    }

    /// Readable while a client waits.
    pub(crate) fn polled(&self) -> &OwnedFd {
        &self.polled
    }

    /// A client, if one is waiting.
    pub(crate) fn try_accept(&self) -> Result<(Receiver<Raw>, wormhole::Peer), Error> {
        match doors().get(self.index) {
            Some(Some(listener)) => listener.try_accept(),
            _ => Err(Error::Disconnected),
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(door) = doors().get_mut(self.index) {
            *door = None;
        }
    }
}
