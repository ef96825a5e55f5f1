//! Receiving, in every form that the library has, and the account of it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use wormhole::{Error, Key, Receiver, ReceiverSet, Select, select};

use crate::assignment::Input;
use crate::ledger::{Channel, Count, Stream, entry, ledger};
use crate::message::Message;
use crate::this_process::{Op, ThisProcess, describe};

/// A message that has come and has been checked.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) message: Message,
    pub(crate) beside: Vec<OwnedFd>,
    entry: &'static AtomicU64,
}

impl Arrived {
    /// Notes that nothing remains to be done with it.
    pub(crate) fn finish(&self) {
        self.entry.fetch_or(entry::FINISHED, Ordering::SeqCst);
    }
}

/// What a receive gave.
#[derive(Debug)]
pub(crate) enum Got {
    Message(Box<Arrived>),
    /// A message that is lost, and has been accounted for.
    Lost,
    /// Everything is over.
    Over,
}

type Received = wormhole::Result<(Message, Vec<OwnedFd>)>;

/// The places and channels of the receivers of a set.
type Places = HashMap<Key, (usize, usize)>;

/// All that an actor receives from.
#[derive(Debug)]
pub(crate) struct ReceivingEnds {
    single: Vec<ReceivingEnd>,
    set: Option<(ReceiverSet<Message>, Places)>,
}

#[derive(Debug)]
struct ReceivingEnd {
    /// Its place among the inputs of the plan, and its channel.
    place: usize,
    channel: usize,
    rx: Receiver<Message>,
}

impl ReceivingEnds {
    pub(crate) fn new(inputs: Vec<Input>, set: bool) -> wormhole::Result<Self> {
        let mut ends = ReceivingEnds {
            single: Vec::new(),
            set: None,
        };
        // A set has no way to take descriptors beside a message.
        if set && inputs.iter().all(|input| !input.beside) {
            let (set, _) = ends.set.insert((ReceiverSet::new()?, HashMap::new()));
            let mut keys = HashMap::new();
            for (place, input) in inputs.into_iter().enumerate() {
                keys.insert(set.add(input.rx)?, (place, input.channel as usize));
            }
            ends.set.iter_mut().for_each(|set| set.1 = keys.clone());
            return Ok(ends);
        }
        ends.single.extend(
            inputs
                .into_iter()
                .enumerate()
                .map(|(place, input)| ReceivingEnd {
                    place,
                    channel: input.channel as usize,
                    rx: input.rx,
                }),
        );
        Ok(ends)
    }

    /// Receives the next message of any input, however long it takes.
    pub(crate) fn receive(&mut self, this: &mut ThisProcess) -> Got {
        loop {
            let (places, channel) = match &self.set {
                Some((set, keys)) if !set.is_empty() => {
                    let places = keys.values().fold(0, |all, (place, _)| all | 1 << place);
                    (places, keys.values().next().map(|key| key.1))
                }
                None if !self.single.is_empty() => {
                    let places = self.single.iter().fold(0, |all, end| all | 1 << end.place);
                    (places, self.single.first().map(|end| end.channel))
                }
                _ => return Got::Over,
            };
            this.doing(Op::Receive, channel);
            this.receiving(places);
            let (channel, received) = match &mut self.set {
                Some((set, keys)) => from_set(set, keys, this),
                None if self.single.len() == 1 => {
                    let end = &self.single[0];
                    (end.channel, from_one(&end.rx, this))
                }
                None => from_several(&self.single, this),
            };
            let got = match received {
                Err(Error::Empty) => {
                    thread::sleep(Duration::from_micros(this.random.below(500)));
                    None
                }
                Err(Error::TimedOut { .. }) => None,
                Err(Error::Disconnected) => {
                    self.single.retain(|end| end.channel != channel);
                    saw_the_end(this, channel);
                    None
                }
                received => Some(account(this, channel, received)),
            };
            this.receiving(0);
            if let Some(got) = got {
                return got;
            }
        }
    }
}

/// Receives in one of several ways from a set.
fn from_set(
    set: &mut ReceiverSet<Message>,
    keys: &mut Places,
    this: &mut ThisProcess,
) -> (usize, Received) {
    let timeout = Duration::from_micros(this.random.below(20_000));
    let received = match this.random.below(4) {
        0 => set.recv(),
        1 => set.try_recv(),
        2 => set.recv_timeout(timeout),
        _ => {
            select! {
                ready(set) => {}
                default(timeout) => {}
            }
            set.try_recv()
        }
    };
    match received {
        Ok((key, received)) => {
            let channel = keys.get(&key).map_or(usize::MAX, |key| key.1);
            if matches!(received, Err(Error::Disconnected)) {
                keys.remove(&key);
            }
            (channel, received.map(|message| (message, Vec::new())))
        }
        // Of the set itself, whose last receiver was reported as disconnected before: no channel's end.
        Err(Error::Disconnected) => (usize::MAX, Err(Error::Empty)),
        Err(error) => (usize::MAX, Err(error)),
    }
}

/// Receives in one of several ways from one receiver.
fn from_one(rx: &Receiver<Message>, this: &mut ThisProcess) -> Received {
    let timeout = Duration::from_micros(this.random.below(20_000));
    let bare = |message: wormhole::Result<Message>| message.map(|message| (message, Vec::new()));
    match this.random.below(300) {
        // These refuse messages with descriptors that nobody claims, so they are rare.
        0 => bare(rx.recv()),
        1 => bare(rx.try_recv()),
        2 => bare(rx.recv_timeout(timeout)),
        3 => bare(rx.iter().next().unwrap_or(Err(Error::Disconnected))),
        4 => bare(rx.try_iter().next().unwrap_or(Err(Error::Empty))),
        5 => select! {
            recv(rx) -> message => bare(message),
            default(timeout) => Err(Error::Empty),
        },
        6..=150 => rx.recv_with_fds(),
        151..=175 => rx.try_recv_with_fds(),
        176..=200 => rx.recv_with_fds_timeout(timeout),
        way => {
            let mut select = Select::new();
            select.recv(rx);
            let selected = match way {
                201..=225 => select.select()?,
                226..=260 => select.select_timeout(timeout)?,
                _ => select.try_select()?.ok_or(Error::Empty)?,
            };
            selected.recv_with_fds(rx)
        }
    }
}

/// Receives in one of several ways from the first of several receivers that has a message.
fn from_several(ends: &[ReceivingEnd], this: &mut ThisProcess) -> (usize, Received) {
    let timeout = Duration::from_micros(this.random.below(20_000));
    if let [one, two] = ends {
        if this.random.chance(10) {
            let bare =
                |message: wormhole::Result<Message>| message.map(|message| (message, Vec::new()));
            return select! {
                recv(one.rx) -> message => (one.channel, bare(message)),
                recv(two.rx) -> message => (two.channel, bare(message)),
                default(timeout) => (one.channel, Err(Error::Empty)),
            };
        }
    }
    let mut select = Select::new();
    for end in ends {
        select.recv(&end.rx);
    }
    let selected = match this.random.below(3) {
        0 => select.select().map(Some),
        1 => select.select_timeout(timeout).map(Some),
        _ => select.try_select(),
    };
    match selected {
        Ok(None) => (usize::MAX, Err(Error::Empty)),
        Err(error) => (usize::MAX, Err(error)),
        Ok(Some(selected)) => {
            let end = &ends[selected.index()];
            (end.channel, selected.recv_with_fds(&end.rx))
        }
    }
}

fn saw_the_end(this: &ThisProcess, channel: usize) {
    ledger().add(Count::Disconnects, 1);
    let kept = ledger().channel(channel, Channel::SenderKept);
    if kept.load(Ordering::SeqCst) != 0 {
        this.violation(format_args!(
            "a receive from channel {channel} said that all senders are gone, but the supervisor has one"
        ));
    }
    let seen = ledger().channel(channel, Channel::EndSeen);
    seen.store(1, Ordering::SeqCst);
}

/// Checks a message, and writes down that it is here or why it never will be.
pub(crate) fn account(this: &ThisProcess, channel: usize, received: Received) -> Got {
    let count = |count, field| {
        ledger().add(count, 1);
        let word = ledger().channel(channel, field);
        word.fetch_add(1, Ordering::SeqCst);
    };
    match received {
        Ok((message, beside)) => arrived(this, channel, message, beside),
        Err(Error::FdsLost) => {
            count(Count::FdsLost, Channel::FdsLost);
            Got::Lost
        }
        Err(Error::UnexpectedFds { .. }) => {
            count(Count::Unclaimed, Channel::Unclaimed);
            Got::Lost
        }
        Err(error) => {
            let error = describe(&error);
            this.violation(format_args!("a receive from channel {channel}: {error}"));
            Got::Lost
        }
    }
}

fn arrived(this: &ThisProcess, channel: usize, message: Message, beside: Vec<OwnedFd>) -> Got {
    let (stream, number) = (message.stream as usize, message.number as usize);
    let wrong = |what: &str| {
        this.violation(format_args!(
            "message {stream}/{number} from channel {channel}: {what}"
        ));
    };
    if let Some(fault) = message.fault(&beside) {
        wrong(&fault);
    }
    let Some(entry) = ledger().entry(stream, number) else {
        wrong("there cannot be one of that name");
        return Got::Lost;
    };
    let mark = entry::RECEIVED | (this.row as u64) << entry::RECEIVER;
    let before = entry.fetch_or(mark, Ordering::SeqCst);
    if before & entry::RECEIVED != 0 {
        let row = before >> entry::RECEIVER;
        wrong(&format!("received twice, first by row {row}"));
    }
    if before & entry::TRYING == 0 {
        wrong("nobody has sent it");
    }
    if before & entry::FAILED != 0 {
        wrong("received although its send failed");
    }
    let sent_to = ledger().stream(stream, Stream::Channel);
    if sent_to.load(Ordering::SeqCst) != channel as u64 {
        wrong("it was sent through another channel");
    }
    let last = ledger().last(this.actor, stream);
    let next = number as u64 + 1;
    if last.swap(next, Ordering::SeqCst) >= next {
        wrong("out of order");
    }
    Got::Message(Box::new(Arrived {
        message,
        beside,
        entry,
    }))
}
