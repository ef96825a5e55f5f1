//! `std::sync::mpsc` between two threads of one process, for scale: nothing is encoded or copied.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::anyhow;

use super::{Carrier, Got};
use crate::Outcome;
use crate::message::Message;

/// About as many messages as fit a socket's default buffer.
pub(crate) const CAPACITY: usize = 278;

/// Messages of any type.
pub(crate) struct Threads;

impl<T: Message> Carrier<T> for Threads {
    type Tx = SyncSender<T>;
    type Rx = Receiver<T>;
    const IN_THREADS: bool = true;

    fn open(_: &T) -> Outcome<(Self::Tx, Self::Rx)> {
        Ok(sync_channel(CAPACITY))
    }

    fn send(tx: &mut Self::Tx, load: &T) -> Outcome<()> {
        let load = load.clone();
        tx.send(load).map_err(|_| anyhow!("the receiver is gone"))
    }

    fn recv(rx: &mut Self::Rx, load: &T) -> Outcome<Got> {
        match rx.recv() {
            Ok(message) => Got::checked(message == *load),
            Err(_) => Ok(Got::End),
        }
    }
}
