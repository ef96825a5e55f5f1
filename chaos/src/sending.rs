//! Sending, in every form that the library has, and the account of it.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use wormhole::{Error, Select, Sender, select};

use crate::assignment::Output;
use crate::ledger::{Channel, Count, NUMBERS, STREAMS, Stream, entry, ledger};
use crate::message::Message;
use crate::sabotage::Sabotage;
use crate::this_process::{Op, ThisProcess, describe, is_out_of_fds};

/// An end to send through, and what has been sent through it.
#[derive(Debug)]
pub(crate) struct SendingEnd {
    pub(crate) channel: usize,
    pub(crate) beside: bool,
    packet: usize,
    tx: Sender<Message>,
    stream: usize,
    next: usize,
    /// A number that was left out, to be sent too late.
    late: Option<usize>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The kernel has it.
    Done,
    /// Nobody is left who could receive it.
    Over,
    /// It could not be sent, for want of descriptors.
    Refused,
    /// The account is full.
    NoMore,
}

impl SendingEnd {
    pub(crate) fn new(output: Output) -> Self {
        SendingEnd {
            channel: output.channel as usize,
            beside: output.beside,
            packet: output.packet,
            tx: output.tx,
            stream: 0,
            next: NUMBERS, // so the first message starts a stream
            late: None,
        }
    }

    /// Gives out the next number, of a new stream if this one is full.
    fn number(&mut self, this: &mut ThisProcess) -> Option<usize> {
        if let Some(late) = self.late.take() {
            return Some(late);
        }
        if self.next + 1 >= NUMBERS {
            let stream = ledger().next(Count::NextStream, STREAMS)?;
            let set = |field, word| ledger().stream(stream, field).store(word, Ordering::SeqCst);
            set(Stream::Channel, self.channel as u64);
            set(Stream::Sender, this.row as u64 + 1);
            (self.stream, self.next) = (stream, 0);
        }
        let mut number = self.next;
        self.next += 1;
        if this.sabotages(Sabotage::Reorder) {
            self.late = Some(number);
            number = self.next;
            self.next += 1;
        }
        let count = ledger().stream(self.stream, Stream::Count);
        count.store(self.next as u64, Ordering::SeqCst);
        Some(number)
    }

    /// Sends a message under a number of its own, however long it takes.
    pub(crate) fn send(
        &mut self,
        this: &mut ThisProcess,
        message: &mut Message,
        beside: &[BorrowedFd<'_>],
    ) -> Sent {
        let Some(number) = self.number(this) else {
            return Sent::NoMore;
        };
        let name = |index| u32::try_from(index).expect("below the size of the ledger");
        (message.stream, message.number) = (name(self.stream), name(number));
        if message.origin == (0, 0) {
            message.origin = (message.stream + 1, message.number);
        }
        message.sum = message.checksum();
        let (least, most) = message.packet();
        let fds = message.fields() + beside.len();
        let mut state = entry::TRYING;
        if fds > 0 || most >= self.packet {
            state |= entry::FDS;
        }
        if !beside.is_empty() {
            state |= entry::BESIDE;
        }
        let entry = ledger().entry(self.stream, number).expect("a fresh number");
        entry.fetch_or(state, Ordering::SeqCst);

        let sent = match self.sabotaged(this, message) {
            Some(sent) => sent,
            None => self.try_until_decided(this, message, beside),
        };
        let (state, sent) = match sent {
            Ok(()) => {
                let account = ledger();
                account.add(Count::Bytes, least as u64);
                account.add(Count::Descriptors, fds as u64);
                account.add(Count::Spilled, u64::from(least > self.packet));
                account.add(Count::Blobs, u64::from(message.blob.is_some()));
                account.add(Count::Ends, u64::from(message.enclosed.is_some()));
                if this.sabotages(Sabotage::Twice) {
                    let _ = self.tx.by_ref().send_with_fds(message, beside);
                }
                (entry::SENT, Sent::Done)
            }
            Err(Error::Disconnected) => {
                ledger().add(Count::Disconnects, 1);
                let kept = ledger().channel(self.channel, Channel::ReceiverKept);
                if kept.load(Ordering::SeqCst) != 0 {
                    let channel = self.channel;
                    this.violation(format_args!(
                        "a send through channel {channel} said that all receivers are gone, but the supervisor has one"
                    ));
                }
                (entry::FAILED, Sent::Over)
            }
            Err(error) => {
                ledger().add(Count::Refused, 1);
                let expected = is_out_of_fds(&error) || matches!(error, Error::TooManyFdsInFlight);
                if !expected {
                    let (channel, error) = (self.channel, describe(&error));
                    this.violation(format_args!("a send through channel {channel}: {error}"));
                }
                (entry::FAILED, Sent::Refused)
            }
        };
        let before = entry.fetch_or(state, Ordering::SeqCst);
        if state == entry::FAILED && before & entry::RECEIVED != 0 {
            let (stream, channel) = (self.stream, self.channel);
            this.violation(format_args!(
                "message {stream}/{number} was received from channel {channel} although its send failed"
            ));
        }
        sent
    }

    /// Tries to send, in one of several ways, until it is sent or cannot be.
    fn try_until_decided(
        &self,
        this: &mut ThisProcess,
        message: &Message,
        beside: &[BorrowedFd<'_>],
    ) -> wormhole::Result<()> {
        this.doing(Op::Send, Some(self.channel));
        let tx = self.tx.by_ref();
        let mut patience = 200;
        loop {
            let timeout = Duration::from_micros(this.random.below(20_000));
            let sent = match this.random.below(12) {
                0..=3 if !beside.is_empty() => tx.send_with_fds(message, beside),
                4..=6 if !beside.is_empty() => tx.try_send_with_fds(message, beside),
                _ if !beside.is_empty() => tx.send_with_fds_timeout(message, beside, timeout),
                0..=3 => tx.send(message),
                4..=6 => tx.try_send(message),
                7..=8 => tx.send_timeout(message, timeout),
                9 => select! {
                    send(tx, message) -> sent => sent,
                    default(timeout) => late(timeout),
                },
                10 => select! {
                    send(tx, message) -> sent => sent,
                    default => Err(Error::Full),
                },
                _ => {
                    let mut select = Select::new();
                    select.send(&tx, message);
                    match select.select_timeout(timeout) {
                        Ok(selected) => selected.sent(),
                        Err(error) => Err(error),
                    }
                }
            };
            match sent {
                Err(Error::Full) => {
                    ledger().add(Count::Full, 1);
                    thread::sleep(timeout / 40);
                }
                Err(Error::TimedOut { .. }) => ledger().add(Count::TimedOut, 1),
                Err(Error::TooManyFdsInFlight) if patience > 0 => {
                    ledger().add(Count::InFlight, 1);
                    patience -= 1;
                    thread::sleep(Duration::from_millis(1));
                }
                decided => return decided,
            }
        }
    }

    /// Does something wrong, if that is what this run is for, and perhaps instead of sending.
    fn sabotaged(
        &self,
        this: &mut ThisProcess,
        message: &mut Message,
    ) -> Option<wormhole::Result<()>> {
        if this.sabotages(Sabotage::Drop) {
            return Some(Ok(()));
        }
        if this.sabotages(Sabotage::Ghost) {
            let _ = self.tx.by_ref().send(message);
            return Some(Err(Error::TooManyFdsInFlight));
        }
        if this.sabotages(Sabotage::FalseEnd) {
            return Some(Err(Error::Disconnected));
        }
        if this.sabotages(Sabotage::Tear) {
            message.wide ^= 1 << 64;
        }
        let differ = message.tags.len() > 1 && message.tags[0] != message.tags[1];
        if differ && this.sabotages(Sabotage::SwapFds) {
            message.files.swap(0, 1);
        }
        None
    }

    /// Whether the stream that is going on will soon have all the messages that the account has room for.
    pub(crate) fn is_almost_full(&self) -> bool {
        self.stream != 0 && self.next + 10 > NUMBERS
    }
}

/// What a send that is late says.
fn late(after: Duration) -> wormhole::Result<()> {
    let operation = "send a message";
    Err(Error::TimedOut { operation, after })
}
