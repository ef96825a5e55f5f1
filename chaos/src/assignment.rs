//! What an actor is given to do: channel ends and how to use them. It travels as arguments of `spawn`, as
//! arguments of `spawn_command`, or in a message.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wormhole::{Receiver, Sender};

use crate::message::Message;
use crate::plan::Role;
use crate::sabotage::Sabotage;

/// An actor's assignment.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Assignment {
    /// Where in the ledger this incarnation stands.
    pub(crate) row: u32,
    pub(crate) actor: u32,
    pub(crate) seed: u64,
    pub(crate) role: Role,
    pub(crate) inputs: Vec<Input>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) address: Option<Address>,
    pub(crate) pause: Duration,
    pub(crate) spare_fds: Option<u64>,
    pub(crate) set: bool,
    pub(crate) tick: Option<Duration>,
    pub(crate) sabotage: Option<Sabotage>,
}

/// A channel to receive from.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Input {
    pub(crate) channel: u32,
    pub(crate) beside: bool,
    pub(crate) rx: Receiver<Message>,
}

/// A channel to send to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Output {
    pub(crate) channel: u32,
    pub(crate) beside: bool,
    /// The longest packet it takes.
    pub(crate) packet: usize,
    pub(crate) tx: Sender<Message>,
}

/// Where to listen or to connect, and how to know that nobody will connect any more.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) channel: u32,
    pub(crate) path: String,
    pub(crate) presence: Presence,
}

/// Ends of a channel that says nothing: when all clients are gone, the host is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Presence {
    Client(Sender<()>),
    Host(Receiver<()>),
}

impl Assignment {
    /// The descriptors that are in it.
    pub(crate) fn fds(&self) -> Vec<RawFd> {
        let inputs = self.inputs.iter().map(|input| input.rx.as_fd());
        let outputs = self.outputs.iter().map(|output| output.tx.as_fd());
        let address = self.address.iter().map(|address| match &address.presence {
            Presence::Client(tx) => tx.as_fd(),
            Presence::Host(rx) => rx.as_fd(),
        });
        let all = inputs.chain(outputs).chain(address);
        all.map(|fd| fd.as_raw_fd()).collect()
    }
}
