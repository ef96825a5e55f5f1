//! Waiting for the first of several sends, receives and events.

mod arms;
mod macros;
mod receiver_set;
mod selected;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use serde::Serialize;

use crate::channel::{Receiver, Sender};
use crate::error::{Error, Result};
use crate::limits::MAX_LEVELS;
use crate::message::inbound::Inbound;
use crate::message::outbound::Outbound;
use crate::options::Limits;
use crate::sys::socket::Socket;
use crate::wait::{Pause, Spin, Spinning, Stop, Wait};
use selected::Outcome;

pub use arms::{
    FdArm, OptionFdArm, RecvArm, SendArm, add_closed, add_ready, add_recv, add_writable, decide,
    off, only_if, take_received,
};
pub use receiver_set::{Key, ReceiverSet};
pub use selected::Selected;

/// A set of cases, of which one is to happen: the first that can.
///
/// For sets that are known only at run time; where the program text says what the cases are,
/// [`select!`](crate::select!) is shorter. For many receivers of one type use
/// [`ReceiverSet`](crate::ReceiverSet), whose cost does not grow with their number.
///
/// A case is known by its index, counted from 0 in the order of adding. If several can happen, one of them is
/// chosen at random, so that none starves. A receive or a send whose channel is disconnected can happen, and
/// gives the error. Receivers that other processes share may be emptied by them before this process gets to
/// receive: then it looks at all cases again.
///
/// It is not `Clone`, as it holds the messages of its sends, which can have descriptors.
///
/// # Examples
///
/// ```
/// use wormhole::{Select, channel};
///
/// let channels: Vec<_> = (0..3).map(|_| channel::<u32>()).collect::<Result<_, _>>()?;
/// let mut select = Select::new();
/// for (_, rx) in &channels {
///     select.recv(rx);
/// }
/// assert!(select.try_select()?.is_none()); // nothing can happen yet
///
/// channels[1].0.send(7)?;
/// let selected = select.select()?;
/// assert_eq!(selected.index(), 1);
/// assert_eq!(selected.recv(&channels[1].1)?, 7);
///
/// // Without a case there is nothing to wait for: an error, not a wait that never ends.
/// assert!(Select::new().select().is_err());
/// # Ok::<(), wormhole::Error>(())
/// ```
#[derive(Default)]
pub struct Select<'a> {
    cases: Vec<Entry<'a>>,
}

struct Entry<'a> {
    case: Case<'a>,
    /// Whether its descriptor had an event when it was last polled.
    has_event: bool,
}

enum Case<'a> {
    Recv {
        socket: &'a Socket,
        limits: Limits,
    },
    Send {
        socket: &'a Socket,
        message: Box<Outbound>,
    },
    /// A send whose message cannot be encoded, for this reason.
    Failed(Option<Error>),
    /// A descriptor, and the events that it is to have.
    Event(BorrowedFd<'a>, PollFlags),
    /// Was removed, or sent its message.
    Over,
}

impl<'a> Select<'a> {
    /// Makes a set without cases.
    #[must_use]
    pub fn new() -> Self {
        Select { cases: Vec::new() }
    }

    /// Adds the case of receiving a message, and returns its index.
    pub fn recv<T>(&mut self, receiver: &'a Receiver<T>) -> usize {
        let end = receiver.endpoint();
        self.add(Case::Recv {
            socket: end.socket(),
            limits: end.limits,
        })
    }

    /// Adds the case of sending `message`, and returns its index.
    ///
    /// The message is encoded and dropped now, and sent if the case is chosen. After that the case is over. If it
    /// cannot be encoded, the case can happen at once and gives the error. To keep the message, see
    /// [`Sender::by_ref`].
    pub fn send<T: Serialize>(&mut self, sender: &'a Sender<T>, message: T) -> usize {
        let end = sender.endpoint();
        self.add(
            match Outbound::encode(&message, end.limits.message_len, MAX_LEVELS) {
                Ok(message) => Case::Send {
                    socket: end.socket(),
                    message: Box::new(message),
                },
                Err(error) => Case::Failed(Some(error)),
            },
        )
    }

    /// Adds the case of `fd` being readable, or at its end, or in error, and returns its index.
    ///
    /// For what is no channel: a child's pidfd, a `signalfd`, a listening socket, standard input. A [`Sender`] is
    /// always readable: use [`closed`](Self::closed).
    pub fn ready(&mut self, fd: &'a (impl AsFd + ?Sized)) -> usize {
        self.add(Case::Event(fd.as_fd(), PollFlags::IN))
    }

    /// Adds the case of `fd` being writable, or in error, and returns its index.
    ///
    /// For what is no channel: a pipe, a stream. Of a [`Sender`] the kernel says so only once three quarters of its
    /// buffer are free, while a send succeeds earlier: add a [`send`](Self::send).
    pub fn writable(&mut self, fd: &'a (impl AsFd + ?Sized)) -> usize {
        self.add(Case::Event(fd.as_fd(), PollFlags::OUT))
    }

    /// Adds the case of every copy of the sender's receiver being gone, and returns its index.
    ///
    /// So a server can stop working for a client that has left.
    pub fn closed<T>(&mut self, sender: &'a Sender<T>) -> usize {
        // KERNEL: HUP is reported whether asked for or not, and nothing else is asked for: a sender polls as
        // readable, and as RDHUP, from the beginning.
        self.add(Case::Event(sender.as_fd(), PollFlags::empty()))
    }

    /// Takes a case out of the set. The indices of the others stay what they are. Does nothing if there is
    /// no such case.
    pub fn remove(&mut self, index: usize) {
        if let Some(entry) = self.cases.get_mut(index) {
            entry.case = Case::Over;
        }
    }

    fn add(&mut self, case: Case<'a>) -> usize {
        self.cases.push(Entry {
            case,
            has_event: false,
        });
        self.cases.len() - 1
    }

    /// Waits until a case can happen, and makes it happen.
    ///
    /// Blocks for as long as it takes. `Ok` means that exactly one case has happened: a message was received
    /// or sent, or a descriptor is ready. What came of it is in the [`Selected`].
    ///
    /// # Errors
    ///
    /// Nothing has happened:
    ///
    /// - [`Error::Io`] of kind `InvalidInput`: the set has no case, or more than `RLIMIT_NOFILE` allows to
    ///   wait for; of other kinds: the kernel refused, for want of memory for instance.
    pub fn select(&mut self) -> Result<Selected> {
        self.run_within(Wait::Forever)
    }

    /// Makes a case happen if one can. Never blocks. `None` means that none can now.
    ///
    /// # Errors
    ///
    /// As [`select`](Self::select).
    pub fn try_select(&mut self) -> Result<Option<Selected>> {
        self.run(Wait::Never)
    }

    /// Waits until a case can happen, but for at most `timeout`, and makes it happen.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when none could in time, otherwise as [`select`](Self::select).
    pub fn select_timeout(&mut self, timeout: Duration) -> Result<Selected> {
        self.run_within(Wait::at_most(timeout))
    }

    /// Waits until a case can happen, but only until `deadline`, and makes it happen.
    ///
    /// # Errors
    ///
    /// As [`select_timeout`](Self::select_timeout).
    pub fn select_deadline(&mut self, deadline: Instant) -> Result<Selected> {
        self.run_within(Wait::until(deadline))
    }

    fn run_within(&mut self, wait: Wait) -> Result<Selected> {
        self.run(wait)?.ok_or_else(|| Error::TimedOut {
            operation: WAIT,
            after: wait.length(),
        })
    }

    fn has_cases(&self) -> bool {
        let mut cases = self.cases.iter();
        cases.any(|entry| !matches!(entry.case, Case::Over))
    }

    /// `None`: nothing could happen in the time given.
    fn run(&mut self, wait: Wait) -> Result<Option<Selected>> {
        let failed = |source: io::Error| Error::io(WAIT, source);
        let cases = || self.cases.iter().map(|entry| &entry.case);
        if !self.has_cases() && matches!(wait, Wait::Forever) {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "there is no case");
            return Err(failed(source));
        }
        let needs_no_event = cases().any(Case::needs_no_event);
        let may_spin = cases().filter_map(Case::spin).any(|spin| spin.is_on());
        // What is polled stays the same for as long as nothing has happened.
        let mut polled: Vec<PollFd<'a>> = cases().filter_map(Case::poll).collect();
        let mut spinning: Option<Spinning<'_>> = None;
        let mut pause = Pause::new(needs_no_event);
        let mut round = if needs_no_event || may_spin || wait.is_over() {
            Wait::Never
        } else {
            wait
        };
        let mut has_looked = false;
        loop {
            match pause.sleep(&mut polled, round) {
                Ok(()) => {}
                Err(Stop::Failed(errno)) => return Err(failed(errno.into())),
                Err(Stop::WouldBlock | Stop::TimedOut(_)) if has_looked => return Ok(None),
                Err(Stop::WouldBlock | Stop::TimedOut(_)) => {
                    round = Wait::Never; // a deadline that passed meanwhile: one look is owed
                    continue;
                }
            }
            has_looked = true;
            let lost = match self.attempt(&polled) {
                Attempt::Happened(selected, spin) => {
                    if let (Some(spinning), Some(spin)) = (spinning, spin) {
                        spinning.learn(spin);
                    }
                    return Ok(Some(selected));
                }
                Attempt::Lost => true,
                Attempt::Nothing => false,
            };
            if lost {
                // The faster receiver may have sent to another of these channels before.
                round = Wait::Never;
                continue;
            }
            if matches!(wait, Wait::Never) {
                return Ok(None);
            }
            let ends = self.cases.iter().filter_map(|entry| entry.case.spin());
            let goes_on = spinning
                .get_or_insert_with(|| Spinning::new(ends))
                .goes_on(wait);
            round = if goes_on { Wait::Never } else { wait };
            if goes_on {
                thread::yield_now();
            }
        }
    }

    /// Makes one of the cases happen whose descriptors have events: a random one, or else the next.
    fn attempt(&mut self, polled: &[PollFd<'a>]) -> Attempt<'a> {
        let mut has_event = polled.iter().map(|fd| !fd.revents().is_empty());
        let mut candidates = 0;
        for Entry {
            case,
            has_event: event,
        } in &mut self.cases
        {
            *event = case.poll().is_some() && has_event.next() == Some(true);
            candidates += usize::from(*event || case.needs_no_event());
        }
        let first = random_below(candidates);
        let mut lost = false;
        let mut place = 0;
        // Twice around: from the first one on, and then those before it.
        for round in 0..2 {
            for (index, Entry { case, has_event }) in self.cases.iter_mut().enumerate() {
                if !*has_event && !case.needs_no_event() {
                    continue;
                }
                let is_due = (round == 0) == (place >= first);
                place += 1;
                if !is_due {
                    continue;
                }
                let spin = case.spin();
                match case.attempt() {
                    Some(outcome) => {
                        let selected = Selected { index, outcome };
                        return Attempt::Happened(selected, spin);
                    }
                    None => lost |= matches!(case, Case::Recv { .. }),
                }
            }
            place = 0;
        }
        match lost {
            true => Attempt::Lost,
            false => Attempt::Nothing,
        }
    }
}

/// What all of this is called in errors.
const WAIT: &str = "wait for one of several cases";

/// What came of the attempt to make a case happen.
enum Attempt<'a> {
    /// It has, on the account of an end that may have been spinning.
    Happened(Selected, Option<&'a Spin>),
    /// There was a message, and another receiver took it first.
    Lost,
    Nothing,
}

impl<'a> Case<'a> {
    /// Whether it is tried even if its socket has no event, see [`Pause`].
    fn needs_no_event(&self) -> bool {
        matches!(self, Case::Send { .. } | Case::Failed(_))
    }

    fn spin(&self) -> Option<&'a Spin> {
        match self {
            Case::Recv { socket, .. } | Case::Send { socket, .. } => Some(socket.spin()),
            Case::Failed(_) | Case::Event(..) | Case::Over => None,
        }
    }

    fn poll(&self) -> Option<PollFd<'a>> {
        match self {
            Case::Recv { socket, .. } => Some(PollFd::new(*socket, PollFlags::IN)),
            Case::Send { socket, .. } => Some(PollFd::new(*socket, PollFlags::OUT)),
            Case::Event(fd, events) => Some(PollFd::from_borrowed_fd(*fd, *events)),
            Case::Failed(_) | Case::Over => None,
        }
    }

    /// Makes it happen, if it can.
    fn attempt(&mut self) -> Option<Outcome> {
        match self {
            Case::Recv { socket, limits } => match Inbound::receive(socket, *limits, Wait::Never) {
                Err(Error::Empty) => None, // another process was faster
                received => Some(Outcome::Received(socket.as_fd().as_raw_fd(), received)),
            },
            Case::Send { socket, message } => match message.send(socket, &[], Wait::Never) {
                Err(Error::Full) => None,
                sent => {
                    if sent.is_ok() {
                        message.given().note();
                    }
                    *self = Case::Over;
                    Some(Outcome::Sent(sent))
                }
            },
            Case::Failed(error) => {
                let error = error.take();
                *self = Case::Over;
                error.map(|error| Outcome::Sent(Err(error)))
            }
            Case::Event(..) => Some(Outcome::Ready),
            Case::Over => None,
        }
    }
}

/// A number below `bound`, or zero.
fn random_below(bound: usize) -> usize {
    thread_local! {
        static STATE: Cell<u32> = const { Cell::new(0x9e37_79b9) };
    }
    let step = |state: &Cell<u32>| {
        // xorshift: random enough to be fair.
        let mut x = state.get();
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        state.set(x);
        x
    };
    let random = STATE.try_with(step).unwrap_or_default();
    (random as usize).checked_rem(bound).unwrap_or_default()
}

impl fmt::Debug for Select<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cases = self.cases.iter().map(|entry| match &entry.case {
            Case::Recv { socket, .. } => ("recv", Some(socket.as_fd().as_raw_fd())),
            Case::Send { socket, .. } => ("send", Some(socket.as_fd().as_raw_fd())),
            Case::Failed(_) => ("send", None),
            Case::Event(fd, _) => ("event", Some(fd.as_raw_fd())),
            Case::Over => ("over", None),
        });
        f.debug_list().entries(cases).finish()
    }
}
