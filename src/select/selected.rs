//! What came of a [`Select`](crate::Select).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use serde::de::DeserializeOwned;

use crate::channel::Receiver;
#[cfg(doc)]
use crate::channel::Sender;
use crate::error::{Error, Result};
use crate::message::inbound::Inbound;

/// The case of a [`Select`](crate::Select) that has happened.
///
/// A message that was received is in here: dropped with it, it is lost.
#[must_use]
#[derive(Debug)]
pub struct Selected {
    pub(crate) index: usize,
    pub(crate) outcome: Outcome,
}

/// What came of the case.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// By the receiver with this descriptor.
    Received(RawFd, Result<Inbound>),
    Sent(Result<()>),
    Ready,
}

impl Selected {
    /// The index of the case: what the method that added it has returned.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Takes the message that `receiver` has received. Never blocks.
    ///
    /// # Errors
    ///
    /// - As [`Receiver::recv`].
    /// - [`Error::Io`] of kind `InvalidInput` if this is not a receive, or another receiver's.
    pub fn recv<T: DeserializeOwned>(self, receiver: &Receiver<T>) -> Result<T> {
        self.received(receiver)?.decode()
    }

    /// Takes the message that `receiver` has received and the descriptors beside it. Never blocks.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), without [`Error::UnexpectedFds`].
    pub fn recv_with_fds<T: DeserializeOwned>(
        self,
        receiver: &Receiver<T>,
    ) -> Result<(T, Vec<OwnedFd>)> {
        self.received(receiver)?.decode_with_fds()
    }

    /// What came of the send. `Ok` means that the kernel has the message, as for [`Sender::send`].
    ///
    /// # Errors
    ///
    /// - As [`Sender::send`].
    /// - [`Error::Io`] of kind `InvalidInput` if this is not a send.
    pub fn sent(self) -> Result<()> {
        match self.outcome {
            Outcome::Sent(sent) => sent,
            Outcome::Received(..) | Outcome::Ready => Err(mistaken(self.index, "send")),
        }
    }

    fn received<T>(self, receiver: &Receiver<T>) -> Result<Inbound> {
        match self.outcome {
            Outcome::Received(fd, received) if fd == receiver.as_raw_fd() => received,
            _ => Err(mistaken(self.index, RECEIVE)),
        }
    }

    pub(super) fn is_no_receive(&self) -> Error {
        mistaken(self.index, RECEIVE)
    }
}

const RECEIVE: &str = "receive from this receiver";

fn mistaken(index: usize, what: &str) -> Error {
    let reason = format!("case {index}, which has happened, is no {what}");
    let source = io::Error::new(io::ErrorKind::InvalidInput, reason);
    Error::io("take the result of a case", source)
}
