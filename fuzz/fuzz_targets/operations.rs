//! Sequences of operations on channels within one process, against a model in memory.
//!
//! Results agree with the model: every message, the order, `Full` and `Empty`, and `Disconnected` exactly when
//! the last copy of the other end is gone, whether a process held it or a message that will never be received. The
//! input is a list of operations, each a byte and what it takes.

#![no_main]

use std::collections::VecDeque;
use std::iter;
use std::mem::take;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use rustix::net::sockopt::socket_send_buffer_size;
use serde::{Deserialize, Serialize};
use wormhole::{Error, Options, Receiver, ReceiverSet, Select, Sender};
use wormhole_fuzz::{Fd, File, Inode, Input, Kind, Packet, inode, open_descriptors, raw_send};

#[derive(Debug, Serialize, Deserialize)]
struct Message {
    number: u32,
    padding: String,
    tx: Option<Sender<Message>>,
    rx: Option<Receiver<Message>>,
    file: Option<Fd>,
}

/// A message as the model has it.
#[derive(Debug)]
struct Queued {
    /// `None`: garbage, which is no message.
    number: Option<u32>,
    padding: usize,
    /// Channels whose ends are in it.
    tx: Option<usize>,
    rx: Option<usize>,
    file: bool,
    beside: usize,
    /// How much of the buffer it takes: at least, and at most.
    cost: (usize, usize),
}

/// A channel as the model has it. Copies in messages on their way count.
struct Channel {
    queue: VecDeque<Queued>,
    senders: usize,
    receivers: usize,
    buffer: usize,
    inodes: (Inode, Inode),
}

/// An end, the channel it belongs to, and the longest text that it lets through.
struct Held<E> {
    end: E,
    channel: usize,
    limit: usize,
}

struct State {
    channels: Vec<Channel>,
    senders: Vec<Held<Sender<Message>>>,
    receivers: Vec<Held<Receiver<Message>>>,
    next: u32,
    file: File,
}

/// What a send may do.
#[derive(Debug, PartialEq)]
enum Outlook {
    Goes,
    Disconnected,
    TooLarge,
    Full,
    /// The model does not know the kernel's bookkeeping that well.
    GoesOrFull,
}

const DEFAULT_LIMIT: usize = 64 << 20;
const SHORT_LIMIT: usize = 1000;

fuzz_target!(|bytes: &[u8]| {
    let before = open_descriptors();
    let mut state = State {
        channels: Vec::new(),
        senders: Vec::new(),
        receivers: Vec::new(),
        next: 0,
        file: File::open(Kind::Stream, b""),
    };
    let mut input = Input(bytes);
    state.create(0);
    for _ in 0..100 {
        if input.is_empty() {
            break;
        }
        state.step(&mut input);
    }
    state.finish();
    drop(state);
    assert_eq!(open_descriptors(), before);
});

impl State {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(14) {
            0 => self.create(input.byte()),
            1 => {
                if let Some(at) = pick(&self.senders, input) {
                    let Held {
                        ref end,
                        channel,
                        limit,
                    } = self.senders[at];
                    let end = end.clone();
                    self.senders.push(Held {
                        end,
                        channel,
                        limit,
                    });
                    self.channels[channel].senders += 1;
                }
            }
            2 => {
                if let Some(at) = pick(&self.senders, input) {
                    let channel = self.senders.swap_remove(at).channel;
                    self.sender_gone(channel);
                }
            }
            3 => {
                if let Some(at) = pick(&self.receivers, input) {
                    let Held {
                        ref end,
                        channel,
                        limit,
                    } = self.receivers[at];
                    let end = end.clone();
                    self.receivers.push(Held {
                        end,
                        channel,
                        limit,
                    });
                    self.channels[channel].receivers += 1;
                }
            }
            4 => {
                if let Some(at) = pick(&self.receivers, input) {
                    let channel = self.receivers.swap_remove(at).channel;
                    self.receiver_gone(channel);
                }
            }
            5 => self.send(input, 0),
            6 => {
                let padding = usize::from(input.byte()).pow(2) * 4;
                self.send(input, padding);
            }
            7 | 8 => self.recv(input),
            9 => self.fill(input),
            10 => self.select(input),
            11 => self.convert(input),
            12 => {
                if let Some(at) = pick(&self.senders, input) {
                    self.send_garbage(at);
                }
            }
            _ => self.recv_from_set(input),
        }
    }

    fn create(&mut self, kind: u8) {
        if self.channels.len() == 6 {
            return;
        }
        let (options, limit) = match kind % 4 {
            0 => (Options::new(), DEFAULT_LIMIT),
            1 => (Options::new().buffer(1), DEFAULT_LIMIT),
            2 => (
                Options::new().buffer(20_000).spin(Duration::ZERO),
                DEFAULT_LIMIT,
            ),
            _ => (Options::new().max_message_len(SHORT_LIMIT), SHORT_LIMIT),
        };
        let (tx, rx) = options.channel().unwrap();
        let channel = self.channels.len();
        self.channels.push(Channel {
            queue: VecDeque::new(),
            senders: 1,
            receivers: 1,
            buffer: socket_send_buffer_size(&tx).unwrap(),
            inodes: (inode(&tx), inode(&rx)),
        });
        self.senders.push(Held {
            end: tx,
            channel,
            limit,
        });
        self.receivers.push(Held {
            end: rx,
            channel,
            limit,
        });
    }

    fn sender_gone(&mut self, channel: usize) {
        self.channels[channel].senders -= 1;
    }

    fn receiver_gone(&mut self, channel: usize) {
        self.channels[channel].receivers -= 1;
        if self.channels[channel].receivers == 0 {
            for queued in take(&mut self.channels[channel].queue) {
                self.message_gone(&queued);
            }
        }
    }

    fn message_gone(&mut self, queued: &Queued) {
        queued
            .tx
            .into_iter()
            .for_each(|channel| self.sender_gone(channel));
        queued
            .rx
            .into_iter()
            .for_each(|channel| self.receiver_gone(channel));
    }

    /// Makes a message to be sent by a channel. Ends that it holds are copies, and are of channels that were
    /// made later: a message that holds the way to itself would be the kernel's to find, some time later.
    fn message(
        &mut self,
        channel: usize,
        padding: usize,
        input: &mut Input<'_>,
    ) -> (Message, Queued) {
        let flags = input.byte();
        let tx = pick(&self.senders, input)
            .map(|at| &self.senders[at])
            .filter(|held| flags & 1 > 0 && held.channel > channel);
        let rx = pick(&self.receivers, input)
            .map(|at| &self.receivers[at])
            .filter(|held| flags & 2 > 0 && held.channel > channel);
        let file = flags & 4 > 0;
        let message = Message {
            number: self.next,
            padding: "x".repeat(padding),
            tx: tx.map(|held| held.end.clone()),
            rx: rx.map(|held| held.end.clone()),
            file: file.then(|| Fd(self.file.fd.try_clone().unwrap())),
        };
        let queued = Queued {
            number: Some(self.next),
            padding,
            tx: tx.map(|held| held.channel),
            rx: rx.map(|held| held.channel),
            file,
            beside: 0,
            cost: cost(padding, self.channels[channel].buffer),
        };
        self.next += 1;
        (message, queued)
    }

    fn outlook(&self, at: usize, queued: &Queued) -> Outlook {
        let Held { channel, limit, .. } = self.senders[at];
        let channel = &self.channels[channel];
        let (least, most) = channel.used();
        if queued.padding + 100 > limit {
            Outlook::TooLarge
        } else if channel.receivers == 0 {
            Outlook::Disconnected
        } else if most < channel.buffer {
            Outlook::Goes
        } else if least >= channel.buffer {
            Outlook::Full
        } else {
            Outlook::GoesOrFull
        }
    }

    fn send(&mut self, input: &mut Input<'_>, padding: usize) {
        let Some(at) = pick(&self.senders, input) else {
            return;
        };
        let channel = self.senders[at].channel;
        // Around the limit the model would have to count digits.
        let padding = if padding > SHORT_LIMIT / 2 {
            padding + SHORT_LIMIT
        } else {
            padding
        };
        let (message, mut queued) = self.message(channel, padding, input);
        let outlook = self.outlook(at, &queued);
        let sender = &self.senders[at].end;
        let may_block = outlook != Outlook::Full && outlook != Outlook::GoesOrFull;
        let form = input.byte();
        let sent = match form % 4 {
            0 if may_block => sender.send(message),
            1 if may_block => {
                queued.beside = usize::from(form) / 64;
                let fds = vec![self.file.as_fd(); queued.beside];
                sender.send_with_fds(message, &fds)
            }
            2 => match sender.send_timeout(message, Duration::ZERO) {
                Err(Error::TimedOut { .. }) => Err(Error::Full),
                sent => sent,
            },
            _ => sender.try_send(message),
        };
        self.sent(channel, queued, outlook, sent);
    }

    fn sent(
        &mut self,
        channel: usize,
        queued: Queued,
        outlook: Outlook,
        sent: Result<(), Error>,
    ) -> bool {
        match (outlook, sent) {
            (Outlook::Goes | Outlook::GoesOrFull, Ok(())) => {
                if let Some(channel) = queued.tx {
                    self.channels[channel].senders += 1;
                }
                if let Some(channel) = queued.rx {
                    self.channels[channel].receivers += 1;
                }
                self.channels[channel].queue.push_back(queued);
                return true;
            }
            (Outlook::Disconnected, Err(Error::Disconnected))
            | (Outlook::TooLarge, Err(Error::TooLarge { .. }))
            | (Outlook::Full | Outlook::GoesOrFull, Err(Error::Full)) => {}
            (outlook, sent) => panic!("{sent:?} instead of {outlook:?}"),
        }
        false
    }

    fn send_garbage(&mut self, at: usize) {
        let Held {
            ref end, channel, ..
        } = self.senders[at];
        let queued = Queued {
            number: None,
            padding: 0,
            tx: None,
            rx: None,
            file: false,
            beside: 1,
            cost: cost(0, 0),
        };
        if self.outlook(at, &queued) == Outlook::Goes {
            let packet = Packet {
                bytes: b"garbage".to_vec(),
                fds: vec![File::open(Kind::Null, b"")],
            };
            raw_send(end, &packet);
            self.channels[channel].queue.push_back(queued);
        }
    }

    fn fill(&mut self, input: &mut Input<'_>) {
        let Some(at) = pick(&self.senders, input) else {
            return;
        };
        let channel = self.senders[at].channel;
        loop {
            let (message, queued) = self.message(channel, 0, &mut Input(&[]));
            let outlook = self.outlook(at, &queued);
            let sent = self.senders[at].end.try_send(message);
            if !self.sent(channel, queued, outlook, sent) {
                return;
            }
        }
    }

    fn recv(&mut self, input: &mut Input<'_>) {
        let Some(at) = pick(&self.receivers, input) else {
            return;
        };
        let Held {
            end: ref receiver,
            channel,
            limit,
        } = self.receivers[at];
        let may_block = self.channels[channel].can_receive();
        let received = match input.below(5) {
            0 if may_block => receiver.recv(),
            1 if may_block => {
                let received = receiver.recv_with_fds();
                self.received((channel, limit), received, true);
                return;
            }
            2 => match receiver.recv_timeout(Duration::ZERO) {
                Err(Error::TimedOut { .. }) => Err(Error::Empty),
                received => received,
            },
            3 => receiver
                .try_iter()
                .next()
                .unwrap_or_else(|| receiver.try_recv()),
            _ => receiver.try_recv(),
        };
        let received = received.map(|message| (message, vec![]));
        self.received((channel, limit), received, false);
    }

    /// Compares what a receive has given with what it must give, of a receiver of this channel and limit.
    fn received(
        &mut self,
        (channel, receivers_limit): (usize, usize),
        received: Result<(Message, Vec<OwnedFd>), Error>,
        with_fds: bool,
    ) {
        let has_senders = self.channels[channel].senders > 0;
        let Some(queued) = self.channels[channel].queue.pop_front() else {
            match received {
                Err(Error::Empty) if has_senders => {}
                Err(Error::Disconnected) if !has_senders => {}
                received => panic!("{received:?} of an empty channel, senders: {has_senders}"),
            }
            return;
        };
        match received {
            Err(Error::Malformed { .. }) if queued.number.is_none() => {}
            Err(Error::TooLarge { .. }) if queued.padding + 100 > receivers_limit => {
                self.message_gone(&queued);
            }
            Err(Error::UnexpectedFds { count })
                if !with_fds && count == queued.beside && count > 0 =>
            {
                self.message_gone(&queued);
            }
            Ok((message, fds)) if Some(message.number) == queued.number => {
                assert!(queued.padding < receivers_limit);
                assert_eq!(message.padding.len(), queued.padding);
                let end = queued.tx.map(|channel| self.channels[channel].inodes.0);
                assert_eq!(message.tx.as_ref().map(inode), end);
                let end = queued.rx.map(|channel| self.channels[channel].inodes.1);
                assert_eq!(message.rx.as_ref().map(inode), end);
                let file = message.file.as_ref().map(|fd| inode(&fd.0));
                assert_eq!(file, queued.file.then_some(self.file.inode));
                assert!(
                    fds.iter()
                        .map(inode)
                        .eq(iter::repeat_n(self.file.inode, queued.beside))
                );
                let limit = DEFAULT_LIMIT;
                let tx = message.tx.into_iter().zip(queued.tx);
                self.senders.extend(tx.map(|(end, channel)| Held {
                    end,
                    channel,
                    limit,
                }));
                let rx = message.rx.into_iter().zip(queued.rx);
                self.receivers.extend(rx.map(|(end, channel)| Held {
                    end,
                    channel,
                    limit,
                }));
            }
            received => panic!("{received:?} instead of {queued:?}"),
        }
    }

    /// Chooses among up to three receives and two sends.
    fn select(&mut self, input: &mut Input<'_>) {
        let receives: Vec<usize> = (0..input.below(4))
            .filter_map(|_| pick(&self.receivers, input))
            .collect();
        let sends: Vec<usize> = (0..input.below(3))
            .filter_map(|_| pick(&self.senders, input))
            .collect();
        let mut messages: Vec<_> = sends
            .iter()
            .map(|&at| Some(self.message(self.senders[at].channel, 0, input)))
            .collect();
        let give_up = input.below(2) == 0;

        let by_ref: Vec<_> = sends
            .iter()
            .map(|&at| self.senders[at].end.by_ref())
            .collect();
        let mut select = Select::new();
        for &at in &receives {
            select.recv(&self.receivers[at].end);
        }
        for (tx, message) in by_ref.iter().zip(&messages) {
            select.send(tx, &message.as_ref().unwrap().0);
        }
        let receive_is_due = |at: &usize| self.channels[self.receivers[*at].channel].can_receive();
        let outlooks: Vec<Outlook> = sends
            .iter()
            .zip(&messages)
            .map(|(&at, message)| self.outlook(at, &message.as_ref().unwrap().1))
            .collect();
        let selected = select.try_select().unwrap();
        let Some(selected) = selected else {
            assert!(!receives.iter().any(receive_is_due));
            for outlook in outlooks {
                assert!(
                    matches!(outlook, Outlook::Full | Outlook::GoesOrFull),
                    "{outlook:?}"
                );
            }
            return;
        };
        let index = selected.index();
        if let Some(&at) = receives.get(index) {
            assert!(receive_is_due(&at));
            let Held {
                ref end,
                channel,
                limit,
            } = self.receivers[at];
            let received = if give_up {
                let with_fds = selected.recv_with_fds(end);
                drop(select);
                self.received((channel, limit), with_fds, true);
                return;
            } else {
                selected.recv(end).map(|message| (message, vec![]))
            };
            drop(select);
            self.received((channel, limit), received, false);
        } else {
            let place = index - receives.len();
            let sent = selected.sent();
            drop(select);
            let channel = self.senders[sends[place]].channel;
            let (_, queued) = messages[place].take().unwrap();
            let outlook = outlooks.into_iter().nth(place).unwrap();
            assert!(!matches!(sent, Err(Error::Full)));
            self.sent(channel, queued, outlook, sent);
        }
    }

    /// Makes a descriptor of an end, and an end of the descriptor.
    fn convert(&mut self, input: &mut Input<'_>) {
        if input.below(2) == 0 {
            let Some(at) = pick(&self.senders, input) else {
                return;
            };
            let Held { end, channel, .. } = self.senders.swap_remove(at);
            let end = OwnedFd::try_from(end).unwrap().try_into().unwrap();
            self.senders.push(Held {
                end,
                channel,
                limit: DEFAULT_LIMIT,
            });
        } else {
            let Some(at) = pick(&self.receivers, input) else {
                return;
            };
            let Held { end, channel, .. } = self.receivers.swap_remove(at);
            let end = OwnedFd::try_from(end).unwrap().try_into().unwrap();
            self.receivers.push(Held {
                end,
                channel,
                limit: DEFAULT_LIMIT,
            });
        }
    }

    fn recv_from_set(&mut self, input: &mut Input<'_>) {
        let mut set = ReceiverSet::new().unwrap();
        let mut members: Vec<(wormhole::Key, usize, usize)> = Vec::new();
        for _ in 0..input.below(4) {
            let Some(at) = pick(&self.receivers, input) else {
                return;
            };
            let Held {
                ref end,
                channel,
                limit,
            } = self.receivers[at];
            if members.iter().all(|&(_, member, _)| member != channel) {
                members.push((set.add(end.clone()).unwrap(), channel, limit));
            }
        }
        match set.try_recv() {
            Ok((key, received)) => {
                let (_, channel, limit) = *members.iter().find(|member| member.0 == key).unwrap();
                drop(set);
                let received = received.map(|message| (message, vec![]));
                self.received((channel, limit), received, false);
            }
            Err(Error::Disconnected) => assert!(members.is_empty()),
            Err(Error::Empty) => {
                assert!(
                    !members
                        .iter()
                        .any(|&(_, member, _)| self.channels[member].can_receive())
                );
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Receives all that is left, and the end of each channel.
    fn finish(&mut self) {
        for at in (0..self.senders.len()).rev() {
            let channel = self.senders.swap_remove(at).channel;
            self.sender_gone(channel);
        }
        while let Some(held) = self.receivers.last() {
            let (channel, limit) = (held.channel, held.limit);
            let is_over = self.channels[channel].queue.is_empty();
            let may_block = self.channels[channel].can_receive();
            let received = if may_block {
                held.end.recv_with_fds()
            } else {
                held.end.try_recv().map(|message| (message, vec![]))
            };
            if is_over {
                // Some other channel's message may still hold a sender.
                self.receivers.pop();
                self.received((channel, limit), received, true);
                self.receiver_gone(channel);
            } else {
                let place = self.receivers.len() - 1;
                self.received((channel, limit), received, true);
                // Those that came are closed as well; the receivers among them are read to their end.
                self.receivers.swap(place, 0);
                for held in take(&mut self.senders) {
                    self.sender_gone(held.channel);
                }
            }
        }
        for channel in &self.channels {
            assert_eq!(
                (channel.senders, channel.receivers, channel.queue.len()),
                (0, 0, 0)
            );
        }
    }
}

impl Channel {
    fn used(&self) -> (usize, usize) {
        self.queue.iter().fold((0, 0), |(least, most), queued| {
            (least + queued.cost.0, most + queued.cost.1)
        })
    }

    fn can_receive(&self) -> bool {
        !self.queue.is_empty() || self.senders == 0
    }
}

/// What the kernel charges for a packet, within bounds: its bytes and its own bookkeeping.
fn cost(padding: usize, buffer: usize) -> (usize, usize) {
    let packet = padding.min(buffer).min(256 * 1024);
    if padding < 60 {
        (512, 1024)
    } else {
        (packet.saturating_sub(40), 2 * packet + 4096)
    }
}

fn pick<E>(list: &[E], input: &mut Input<'_>) -> Option<usize> {
    (!list.is_empty()).then(|| input.below(list.len()))
}
