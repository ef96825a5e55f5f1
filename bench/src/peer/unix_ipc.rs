//! `unix-ipc`: bincode over a stream socket, a header and a body for each message.

use std::os::fd::{AsRawFd, OwnedFd};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use unix_ipc::{Handle, HandleRef, Receiver, Sender, channel};

use super::{Bulk, Carrier, Files, Got};
use crate::Outcome;
use crate::message::Message;

/// Messages of any type; descriptors as fields of a message.
pub(crate) struct UnixIpc;

impl<T: Message> Carrier<T> for UnixIpc {
    type Tx = Sender<T>;
    type Rx = Receiver<T>;

    fn open(_: &T) -> Outcome<(Self::Tx, Self::Rx)> {
        Ok(channel()?)
    }

    fn send(tx: &mut Self::Tx, load: &T) -> Outcome<()> {
        Ok(tx.send(load.clone())?)
    }

    fn recv(rx: &mut Self::Rx, load: &T) -> Outcome<Got> {
        Got::checked(rx.recv()? == *load)
    }
}

/// A field that is a descriptor. The library's own `Handle` would leak it on the sending side.
pub(crate) struct Field(OwnedFd);

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        HandleRef(self.0.as_raw_fd()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Field(Handle::deserialize(deserializer)?.into_inner()))
    }
}

impl Carrier<Files> for UnixIpc {
    type Tx = Sender<Vec<Field>>;
    type Rx = Receiver<Vec<Field>>;

    fn open(_: &Files) -> Outcome<(Self::Tx, Self::Rx)> {
        Ok(channel()?)
    }

    fn send(tx: &mut Self::Tx, load: &Files) -> Outcome<()> {
        // It takes the message by value, so the descriptors have to be duplicated for it.
        let fields = (0..load.count).map(|_| load.file().try_clone_to_owned().map(Field));
        Ok(tx.send(fields.collect::<Result<_, _>>()?)?)
    }

    fn recv(rx: &mut Self::Rx, load: &Files) -> Outcome<Got> {
        let fds: Vec<OwnedFd> = rx.recv()?.into_iter().map(|Field(fd)| fd).collect();
        Got::checked(load.are(&fds))
    }
}

impl Carrier<Bulk> for UnixIpc {
    type Tx = Sender<Vec<u8>>;
    type Rx = Receiver<Vec<u8>>;

    fn open(_: &Bulk) -> Outcome<(Self::Tx, Self::Rx)> {
        Ok(channel()?)
    }

    fn send(tx: &mut Self::Tx, Bulk(bytes): &Bulk) -> Outcome<()> {
        Ok(tx.send(bytes.clone())?)
    }

    fn recv(rx: &mut Self::Rx, Bulk(bytes): &Bulk) -> Outcome<Got> {
        Got::checked(rx.recv()? == *bytes)
    }
}
