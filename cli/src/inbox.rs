//! What `listen` and `call` share: messages come in from one channel or from many clients, and go out as lines or to a
//! command.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::de::IgnoredAny;
use wormhole::{Error, Key, Peer, Raw, Receiver, ReceiverSet};

use crate::exec::{SIGPIPE, start, status_of};
use crate::failure::{Failure, Outcome, Status};
use crate::interrupt::{self, Door, Hand};
use crate::output::{self, Written, write_line};
use crate::text;

/// How many messages of one client may come before it is the others' turn.
const TURN: u32 = 64;

/// For how long to look again and again before sleeping, where that has been paying off.
const SPIN: Duration = Duration::from_micros(50);

/// What to do with messages, and when to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// End after that many messages.
    pub(crate) count: Option<u64>,
    /// How long to wait for each message.
    pub(crate) timeout: Option<Duration>,
    /// End as soon as no message is waiting.
    pub(crate) no_wait: bool,
    /// End when the first client has left.
    pub(crate) once: bool,
    /// Report what is wrong with a message, and go on with the next one.
    pub(crate) keep_going: bool,
    /// Say in each line who has connected.
    pub(crate) peer: bool,
    /// The command that gets each message.
    pub(crate) exec: Option<String>,
    /// The longest text.
    pub(crate) max_message: Option<usize>,
}

/// A client, or the only sender.
#[derive(Clone, Copy, Debug, Default)]
struct Client {
    /// Counted from 1. None for a channel that was there already.
    number: Option<u64>,
    peer: Option<Peer>,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GoOn,
    End,
}

/// What was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Message,
    Client,
    /// Nobody reads the lines any more.
    NoReader,
}

/// What became of a message.
#[derive(Debug)]
enum Dealt {
    /// It is where it belongs.
    Done,
    /// Nobody reads the lines any more.
    NoReader,
    /// It cannot be used, or its command failed.
    Bad(Failure),
}

#[derive(Debug)]
pub(crate) struct Inbox {
    plan: Plan,
    door: Option<Door>,
    /// Whether the door is looked at: not while there are no descriptors for more clients.
    is_crowded: bool,
    set: ReceiverSet<Raw>,
    /// By the index of their keys.
    clients: Vec<Client>,
    accepted: u64,
    /// All messages that came, and those that were dealt with.
    received: u64,
    done: u64,
    line: Vec<u8>,
    /// The status of what went wrong and did not end it.
    worst: u8,
    /// When something came the last time.
    since: Instant,
    spins: bool,
    /// While a message is on its way.
    hand: Option<Hand>,
}

impl Inbox {
    pub(crate) fn new(plan: Plan) -> Outcome<Self> {
        Ok(Inbox {
            plan,
            door: None,
            is_crowded: false,
            set: ReceiverSet::new()?,
            clients: Vec::new(),
            accepted: 0,
            received: 0,
            done: 0,
            hand: None,
            line: Vec::new(),
            worst: 0,
            since: Instant::now(),
            spins: true,
        })
    }

    pub(crate) fn open(&mut self, door: Door) {
        self.door = Some(door);
    }

    pub(crate) fn add(&mut self, receiver: Receiver<Raw>) -> Outcome<()> {
        self.enter(receiver, None, None)
    }

    fn enter(
        &mut self,
        mut receiver: Receiver<Raw>,
        number: Option<u64>,
        peer: Option<Peer>,
    ) -> Outcome<()> {
        if let Some(bytes) = self.plan.max_message {
            receiver.set_max_message_len(bytes);
        }
        let key = self.set.add(receiver)?;
        let client = Client { number, peer };
        match self.clients.get_mut(key.index()) {
            Some(place) => *place = client,
            None => self.clients.push(client), // the lowest free index
        }
        Ok(())
    }

    /// Receives until the plan says that it is done.
    pub(crate) fn run(mut self) -> Outcome {
        self.since = Instant::now();
        if self.plan.count == Some(0) {
            return Ok(0);
        }
        let mut turns = 0_u32;
        loop {
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(TURN) {
                self.accept()?; // whoever is in already may never pause
            }
            self.hand = Some(Hand::take());
            let then = match self.set.try_recv() {
                Ok((key, received)) => self.take(key, received)?,
                Err(Error::Empty | Error::Disconnected) => {
                    self.hand = None;
                    self.wait()?
                }
                Err(error) => return Err(error.into()),
            };
            self.hand = None;
            if then == Then::End {
                return Ok(self.worst);
            }
        }
    }

    /// Deals with what a client has sent, and with what it sends next, up to its turn's end.
    fn take(&mut self, key: Key, mut received: Result<Raw, Error>) -> Outcome<Then> {
        let client = self.clients.get(key.index()).copied().unwrap_or_default();
        let turn = if self.plan.exec.is_some() { 1 } else { TURN };
        for left in (0..turn).rev() {
            if let Err(Error::Disconnected) = received {
                return self.left();
            }
            self.received += 1;
            let dealt = self.deal_with(client, received);
            match dealt.map_err(|failure| failure.of(self.place(client)))? {
                Dealt::Done => self.done += 1,
                Dealt::NoReader => return Ok(Then::End),
                Dealt::Bad(failure) => self.forgive(failure.of(self.place(client)))?,
            }
            if self.plan.count == Some(self.done) {
                return Ok(Then::End);
            }
            if left == 0 || interrupt::is_stopping() {
                break;
            }
            received = match self.next_of(key) {
                Some(received) => received,
                None => break,
            };
        }
        self.since = Instant::now();
        Ok(Then::GoOn)
    }

    /// What a client has sent besides. If it is the only one, it gets a moment to send it.
    fn next_of(&mut self, key: Key) -> Option<Result<Raw, Error>> {
        let receiver = self.set.get(key)?;
        let mut begin = None;
        loop {
            match receiver.try_recv() {
                Err(Error::Empty) if self.spins && self.set.len() == 1 => {
                    let begin = *begin.get_or_insert_with(Instant::now);
                    if begin.elapsed() > SPIN {
                        self.spins = false;
                        return None;
                    }
                    thread::yield_now();
                }
                // What is over is for the set to notice.
                Err(Error::Empty | Error::Disconnected) => return None,
                received => return Some(received),
            }
        }
    }

    /// A client has left.
    fn left(&mut self) -> Outcome<Then> {
        self.is_crowded = false;
        let is_last = self.set.is_empty() && self.door.is_none();
        if !is_last {
            return Ok(Then::GoOn);
        }
        match self.plan.count {
            Some(count) => {
                let sentence = format!(
                    "the sender has gone after {} of {count} messages",
                    self.done
                );
                Err(Failure::new(Status::Disconnected, sentence))
            }
            None => Ok(Then::End),
        }
    }

    /// Goes on after a failure that concerns one message, if that is wanted.
    fn forgive(&mut self, failure: Failure) -> Outcome<()> {
        if !self.plan.keep_going {
            return Err(failure);
        }
        failure.report();
        self.worst = failure.status;
        Ok(())
    }

    /// What errors say about a message.
    fn place(&self, client: Client) -> String {
        let number = self.received;
        match client {
            Client {
                number: Some(client),
                peer: Some(Peer { pid: Some(pid), .. }),
            } => format!("message {number}, of client {client} (pid {pid})"),
            Client {
                number: Some(client),
                ..
            } => format!("message {number}, of client {client}"),
            _ => format!("message {number}"),
        }
    }

    fn deal_with(&mut self, client: Client, message: Result<Raw, Error>) -> Outcome<Dealt> {
        let bad = |sentence: String| Ok(Dealt::Bad(Failure::new(Status::BadMessage, sentence)));
        let message = match message {
            Ok(message) => message,
            Err(error @ (Error::TooLarge { .. } | Error::FdsLost)) => {
                return bad(format!("{error:#}"));
            }
            Err(error) => {
                let failure = Failure::from(error);
                return match failure.status == Status::BadMessage as u8 {
                    true => Ok(Dealt::Bad(failure)),
                    false => Err(failure),
                };
            }
        };
        if let Err(reason) = text::check(message.text()) {
            return bad(format!("not JSON: {reason}"));
        }
        self.line.clear();
        match client.peer.filter(|_| self.plan.peer) {
            Some(Peer { pid, uid, gid, .. }) => {
                let pid = pid.map_or("null".to_owned(), |pid| pid.to_string());
                let head = format!(r#"{{"pid":{pid},"uid":{uid},"gid":{gid},"message":"#);
                self.line.extend_from_slice(head.as_bytes());
                text::push_line(&mut self.line, message.text());
                self.line.pop();
                self.line.extend_from_slice(b"}\n");
            }
            None => text::push_line(&mut self.line, message.text()),
        }
        if let Some(script) = &self.plan.exec {
            let (IgnoredAny, fds) = message.decode_with_fds()?;
            let child = match start(script, &self.line, fds, client.peer) {
                Ok(child) => child,
                Err(error) => return not_started(error),
            };
            self.hand = None; // it is in the command's
            return wait_for(child);
        }
        if !message.fds().is_empty() {
            let count = count_of(message.fds().len(), "descriptor");
            return bad(format!(
                "it has {count}, which a line cannot carry: closed (--exec hands them to a command)"
            ));
        }
        Ok(match write_line(&self.line)? {
            Written::All => Dealt::Done,
            Written::NoReader => Dealt::NoReader,
        })
    }

    /// Waits until there may be something to do.
    fn wait(&mut self) -> Outcome<Then> {
        if self.plan.no_wait {
            if self.accept()? {
                return Ok(Then::GoOn);
            }
            return match self.done {
                0 => Err(Failure::new(Status::FullOrEmpty, "no message is waiting")),
                _ => Ok(Then::End),
            };
        }
        let begin = Instant::now();
        let event = loop {
            let spinning = self.spins && begin.elapsed() < SPIN;
            match self.look(spinning)? {
                Some(event) => break event,
                None if spinning => thread::yield_now(),
                None => {}
            }
        };
        self.spins = begin.elapsed() < 4 * SPIN;
        match event {
            Event::NoReader => return Ok(Then::End),
            Event::Client => drop(self.accept()?),
            Event::Message => {}
        }
        Ok(Then::GoOn)
    }

    /// Looks whether there is something to do, and sleeps until there is, unless it spins. `None`: not yet.
    fn look(&self, spinning: bool) -> Outcome<Option<Event>> {
        let mut left = None;
        if let Some(timeout) = self.plan.timeout {
            let rest = timeout.saturating_sub(self.since.elapsed());
            if rest.is_zero() {
                let sentence = format!("no message came within {timeout:?}");
                return Err(Failure::new(Status::TimedOut, sentence));
            }
            left = Some(rest);
        }
        if spinning {
            left = Some(Duration::ZERO);
        }
        // Only a time of billions of years does not convert.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let door = self.door.as_ref().filter(|_| !self.is_crowded);
        let (events, input) = (PollFlags::empty(), PollFlags::IN);
        let mut polled = vec![
            // KERNEL: that nobody reads any more is an error or a hang-up, which come unasked.
            (
                Event::NoReader,
                PollFd::from_borrowed_fd(output::polled(), events),
            ),
            (
                Event::Message,
                PollFd::from_borrowed_fd(self.set.as_fd(), input),
            ),
        ];
        let door = door.map(|door| PollFd::from_borrowed_fd(door.polled().as_fd(), input));
        polled.extend(door.map(|door| (Event::Client, door)));
        let (kinds, mut polled): (Vec<_>, Vec<_>) = polled.into_iter().unzip();
        match poll(&mut polled, left.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(None),
            Err(errno) => return Err(Failure::system("wait for messages", errno)),
        }
        let mut happened = kinds.into_iter().zip(&polled);
        Ok(happened.find_map(|(kind, fd)| (!fd.revents().is_empty()).then_some(kind)))
    }

    /// Lets in a client that is waiting. `true`: there was one.
    fn accept(&mut self) -> Outcome<bool> {
        let Some(door) = self.door.as_ref().filter(|_| !self.is_crowded) else {
            return Ok(false);
        };
        match door.try_accept() {
            Ok((receiver, peer)) => {
                self.accepted += 1;
                self.enter(receiver, Some(self.accepted), Some(peer))?;
                if self.plan.once {
                    self.door = None;
                }
                Ok(true)
            }
            Err(Error::Empty) => Ok(false),
            // The client keeps waiting. With fewer clients there is room for it.
            Err(error) if !self.set.is_empty() => {
                Failure::from(error).of("a client has to wait").report();
                self.is_crowded = true;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// "1 descriptor", "2 descriptors".
pub(crate) fn count_of(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// A shell that is not there, or may not be run, is there for no message. What else is missing can be due to this one: a
/// start needs about twice as many descriptors as the message has.
fn not_started(error: io::Error) -> Outcome<Dealt> {
    let kind = error.kind();
    let failure = Failure::system("start /bin/sh", error);
    match kind {
        ErrorKind::NotFound | ErrorKind::PermissionDenied => Err(failure),
        _ => Ok(Dealt::Bad(failure)),
    }
}

fn wait_for(mut child: Child) -> Outcome<Dealt> {
    let status = child.wait();
    let status = status.map_err(|error| Failure::system("wait for the command", error))?;
    Ok(match status_of(status) {
        0 => Dealt::Done,
        SIGPIPE if output::has_no_reader() => Dealt::NoReader,
        code => {
            let sentence = format!("the command failed: {status}");
            Dealt::Bad(Failure::with_status(code, sentence))
        }
    })
}
