//! What the async ends of all event loops have in common: one attempt, and a wait until another is worth it.
//!
//! A message is one packet, and one attempt is one system call that never blocks. Nothing is awaited between an attempt
//! and its result, so a future that is dropped has either given its result or taken nothing.

mod types;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::limits::MAX_LEVELS;
use crate::message::outbound::Outbound;
use crate::options::Options;
use crate::sys::address::Address;
use crate::sys::registry::Registered;
use crate::sys::socket::{self, Socket};
use crate::wait::{Pause, Spin, Spinning, Wait};
use crate::{channel, listener};

pub(crate) use types::runtime_types;

/// The registration of one descriptor with an event loop.
// KERNEL: a descriptor is registered for one direction only. A sending socket polls as readable and RDHUP all the time,
// as its other direction is shut, and event loops take that for the end.
pub(crate) trait Reactor: Sized {
    /// Registers a descriptor as it is: it stays blocking.
    fn register(source: Source, interest: Interest) -> io::Result<Self>;

    /// Makes an attempt now. If it has no result, the next wait is for what comes after it.
    fn try_now<T>(&self, interest: Interest, attempt: impl FnMut() -> Option<T>) -> Option<T>;

    /// Makes attempts, one each time that the descriptor has become readable, until one has a result.
    fn read_with<T>(
        &self,
        attempt: impl FnMut() -> Option<T>,
    ) -> impl Future<Output = io::Result<T>>;

    /// Makes attempts, one each time that the descriptor has become writable, until one has a result or that much
    /// time has passed.
    fn write_with<T>(
        &self,
        time: Duration,
        attempt: impl FnMut() -> Option<T>,
    ) -> impl Future<Output = io::Result<Option<T>>>;

    /// Says now and then that the task is to let others run, if it goes on without ever waiting.
    fn poll_budget(context: &mut Context<'_>) -> Poll<()>;

    /// Lets other tasks run, and looks for events.
    fn yield_now() -> impl Future<Output = ()>;

    /// Waits for that long.
    fn sleep(time: Duration) -> impl Future<Output = ()> + Send;
}

/// What a descriptor is to become.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Interest {
    Readable,
    Writable,
}

/// A descriptor for an event loop, which stays open and keeps its number for as long as it is registered.
///
/// It is the socket itself and not the end that holds it: an end that is lent to a spawned process goes on with another
/// socket.
#[derive(Clone)]
pub(crate) struct Source(Arc<dyn AsFd + Send + Sync>);

impl Source {
    pub(crate) fn of_socket(socket: &Arc<Socket>) -> Self {
        Source(Arc::<Socket>::clone(socket))
    }

    /// A duplicate. Children that are forked do not get it.
    pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let duplicate = fd.try_clone_to_owned()?;
        Ok(Source(Arc::new(Registered::new(duplicate))))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.as_raw_fd()).finish()
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Registers a descriptor, or else a duplicate of it.
fn register<R: Reactor>(source: Source, interest: Interest) -> Result<R> {
    let registered = R::register(source.clone(), interest).or_else(|error| match error.kind() {
        // KERNEL: epoll knows a descriptor once (EEXIST): another clone of the end is registered by itself.
        io::ErrorKind::AlreadyExists => R::register(Source::duplicate(source.as_fd())?, interest),
        _ => Err(error),
    });
    registered.map_err(|error| Error::io("register a descriptor with the event loop", error))
}

/// The error of a wait that the event loop has ended.
fn cannot_wait(error: io::Error) -> Error {
    Error::io("wait in the event loop", error)
}

/// Connects to a listener, trying again and again while the queue of its clients is full.
pub(crate) async fn connect<R: Reactor, T>(path: &Path) -> Result<channel::Sender<T>> {
    poll_fn(R::poll_budget).await;
    let (options, address) = (Options::new(), Address::new(path)?);
    let mut retries = Pause::retries();
    loop {
        if let Some(sender) = listener::try_connect(&options, &address)? {
            return Ok(sender);
        }
        R::sleep(retries.next().unwrap_or_default()).await;
    }
}

/// What a stream gives, which ends where its channel does.
pub(crate) fn unless_disconnected<T>(received: Result<T>) -> Option<Result<T>> {
    match received {
        Err(Error::Disconnected) => None,
        received => Some(received),
    }
}

/// Spinning: an answer that comes soon is met by a task that looks again and again, and lets the others run in between.
///
/// It is worth as much as for an end that blocks, and is learned in the same way. Of all tasks that share a registration
/// one does so at a time.
#[derive(Debug, Default)]
struct Awake {
    is_taken: AtomicBool,
}

impl Awake {
    /// Makes attempts for as long as spinning goes on.
    async fn attempts<R: Reactor, T>(
        &self,
        spinning: &mut Spinning<'_>,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let _turn = self.turn()?;
        while spinning.goes_on(Wait::Forever) {
            // A look at the event loop costs as much as some looks at the socket.
            for _ in 0..LOOKS {
                thread::yield_now();
                if let Some(result) = attempt() {
                    return Some(result);
                }
            }
            R::yield_now().await;
        }
        None
    }

    // ORDERING: guards no memory.
    fn turn(&self) -> Option<Turn<'_>> {
        let is_taken = self.is_taken.swap(true, Ordering::Relaxed);
        (!is_taken).then_some(Turn(&self.is_taken))
    }
}

/// How many looks of a task that spins come one after the other.
const LOOKS: u32 = 4;

/// Gives the turn back, also when its future is dropped.
struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A descriptor that becomes readable, and what is done then.
#[derive(Debug)]
pub(crate) struct Readable<R> {
    reactor: R,
    awake: Awake,
    /// One that may stay readable although an attempt was in vain.
    lasting: Option<Source>,
}

/// How long to wait until the next attempt at a descriptor that stays readable.
const MOMENT: Duration = Duration::from_millis(1);

impl<R: Reactor> Readable<R> {
    pub(crate) fn of_socket(socket: &Arc<Socket>) -> Result<Self> {
        Self::of(Source::of_socket(socket), None)
    }

    /// Registers a duplicate.
    pub(crate) fn of_fd(fd: BorrowedFd<'_>) -> Result<Self> {
        let duplicate = Source::duplicate(fd);
        let duplicate = duplicate.map_err(|error| Error::io("duplicate a descriptor", error))?;
        Self::of(duplicate.clone(), Some(duplicate))
    }

    fn of(source: Source, lasting: Option<Source>) -> Result<Self> {
        Ok(Readable {
            reactor: register(source, Interest::Readable)?,
            awake: Awake::default(),
            lasting,
        })
    }

    // KERNEL: an event loop that waits for edges hears nothing of what has been there since the last one. An epoll has some
    // left if it had more than one look takes in, and the pidfd of a child that its own child traces stays readable while
    // there is nothing to reap.
    fn stays_readable(&self) -> bool {
        let source = self.lasting.as_ref();
        source.is_some_and(|source| socket::is_readable(source.as_fd()))
    }

    /// Makes attempts until one is not `Empty`, spinning at first if `spin` says so.
    pub(crate) async fn receive<T>(
        &self,
        spin: Option<&Spin>,
        mut attempt: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let mut attempt = || match attempt() {
            Err(Error::Empty) => None,
            received => Some(received),
        };
        poll_fn(R::poll_budget).await;
        if let Some(received) = self.reactor.try_now(Interest::Readable, &mut attempt) {
            return received;
        }
        let mut spinning = Spinning::new(spin);
        let awake = self.awake.attempts::<R, _>(&mut spinning, &mut attempt);
        let received = match awake.await {
            Some(received) => received,
            None => self.when_readable(attempt).await?,
        };
        if let Some(spin) = spin {
            spinning.learn(spin);
        }
        received
    }

    /// Makes attempts when the descriptor becomes readable, or stays so, until one has a result.
    async fn when_readable<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> Result<T> {
        loop {
            while self.stays_readable() {
                if let Some(result) = attempt() {
                    return Ok(result);
                }
                if self.stays_readable() {
                    R::sleep(MOMENT).await;
                }
            }
            let mut attempt = || match attempt() {
                Some(result) => Some(Some(result)),
                None => self.stays_readable().then_some(None),
            };
            let read = self.reactor.read_with(&mut attempt).await;
            if let Some(result) = read.map_err(cannot_wait)? {
                return Ok(result);
            }
        }
    }
}

/// A socket that becomes writable, or whose peer leaves.
#[derive(Debug)]
pub(crate) struct Writable<R> {
    room: R,
    awake: Awake,
    /// Made when it is first asked for.
    hangup: OnceLock<Hangup<R>>,
}

impl<R: Reactor> Writable<R> {
    pub(crate) fn of_socket(socket: &Arc<Socket>) -> Result<Self> {
        let room = register(Source::of_socket(socket), Interest::Writable)?;
        Ok(Writable {
            room,
            awake: Awake::default(),
            hangup: OnceLock::new(),
        })
    }

    pub(crate) async fn send<T: Serialize>(
        &self,
        sender: &channel::Sender<T>,
        message: T,
        fds: &[BorrowedFd<'_>],
    ) -> Result<()> {
        poll_fn(R::poll_budget).await;
        let end = sender.endpoint();
        let mut outbound = Outbound::encode(&message, end.limits.message_len, MAX_LEVELS)?;
        let mut attempt = || match outbound.send(end.socket(), fds, Wait::Never) {
            Err(Error::Full) => None,
            sent => Some(sent),
        };
        let sent = match self.room.try_now(Interest::Writable, &mut attempt) {
            Some(sent) => sent,
            None => {
                let spin = end.socket().spin();
                let mut spinning = Spinning::new([spin]);
                let awake = self.awake.attempts::<R, _>(&mut spinning, &mut attempt);
                let sent = match awake.await {
                    Some(sent) => sent,
                    None => self.until_room(attempt).await?,
                };
                spinning.learn(spin);
                sent
            }
        };
        sent?;
        outbound.given().note();
        Ok(())
    }

    /// Makes attempts until there is room for one.
    async fn until_room<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> Result<T> {
        // The kernel wakes a sender late: it looks for itself as well, as a blocking one does.
        let mut retries = Pause::retries();
        loop {
            let time = retries.next().unwrap_or_default();
            let waited = self.room.write_with(time, &mut attempt).await;
            let result = waited.map_err(cannot_wait)?;
            if let Some(result) = result.or_else(&mut attempt) {
                return Ok(result);
            }
        }
    }

    /// Waits until every copy of the peer is gone.
    pub(crate) async fn closed(&self, socket: &Socket) -> Result<()> {
        let hangup = match self.hangup.get() {
            Some(hangup) => hangup,
            None => {
                let new = Hangup::of(socket)?;
                self.hangup.get_or_init(|| new)
            }
        };
        let attempt = || hangup.look().transpose();
        hangup
            .reactor
            .read_with(attempt)
            .await
            .map_err(cannot_wait)?
    }
}

/// Tells when the peer of a socket has gone.
// The socket's own registration cannot tell: it wakes up for room as well.
#[derive(Debug)]
struct Hangup<R> {
    /// Watches the socket for nothing, and so tells only what is always told.
    epoll: Arc<Registered>,
    reactor: R,
}

impl<R: Reactor> Hangup<R> {
    fn of(socket: &Socket) -> Result<Self> {
        let failed = |errno| Error::io("watch for the end of a channel", errno);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        let epoll = Arc::new(Registered::new(epoll));
        let data = epoll::EventData::new_u64(0);
        epoll::add(&*epoll, socket, data, epoll::EventFlags::empty()).map_err(failed)?;
        let source = Source(Arc::<Registered>::clone(&epoll));
        let reactor = register(source, Interest::Readable)?;
        Ok(Hangup { epoll, reactor })
    }

    /// Whether the peer has gone.
    fn look(&self) -> Result<Option<()>> {
        let mut events = [MaybeUninit::uninit(); 1];
        match epoll::wait(&*self.epoll, &mut events, Some(&Timespec::default())) {
            Ok((events, _)) => Ok((!events.is_empty()).then_some(())),
            Err(Errno::INTR) => Ok(None),
            Err(errno) => Err(Error::io("watch for the end of a channel", errno)),
        }
    }
}
