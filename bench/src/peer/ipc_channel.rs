//! `ipc-channel`: postcard over SOCK_SEQPACKET, long messages in several packets.

use ipc_channel::IpcError;
use ipc_channel::ipc::{
    IpcBytesReceiver, IpcBytesSender, IpcReceiver, IpcSender, IpcSharedMemory, bytes_channel,
    channel,
};

use super::{Bulk, Carrier, Files, Got};
use crate::Outcome;
use crate::message::Message;

/// Messages of any type; the ends of channels as fields of a message, as it carries no other descriptors.
pub(crate) struct IpcChannel;

impl<T: Message> Carrier<T> for IpcChannel {
    type Tx = IpcSender<T>;
    type Rx = IpcReceiver<T>;

    fn open(_: &T) -> Outcome<(Self::Tx, Self::Rx)> {
        Ok(channel()?)
    }

    fn send(tx: &mut Self::Tx, load: &T) -> Outcome<()> {
        Ok(tx.send(load.clone())?)
    }

    fn recv(rx: &mut Self::Rx, load: &T) -> Outcome<Got> {
        match rx.recv() {
            Ok(message) => Got::checked(message == *load),
            Err(IpcError::Disconnected) => Ok(Got::End),
            Err(error) => Err(error.into()),
        }
    }
}

impl Carrier<Files> for IpcChannel {
    type Tx = (IpcSender<Vec<IpcSender<()>>>, Vec<IpcSender<()>>);
    type Rx = IpcReceiver<Vec<IpcSender<()>>>;

    fn open(load: &Files) -> Outcome<(Self::Tx, Self::Rx)> {
        let (tx, rx) = channel()?;
        let ends = (0..load.count).map(|_| channel::<()>().map(|(tx, _)| tx));
        Ok(((tx, ends.collect::<Result<_, _>>()?), rx))
    }

    fn send((tx, ends): &mut Self::Tx, _: &Files) -> Outcome<()> {
        Ok(tx.send(ends.clone())?) // clones share a descriptor
    }

    fn recv(rx: &mut Self::Rx, load: &Files) -> Outcome<Got> {
        Got::checked(rx.recv()?.len() == load.count)
    }
}

/// Bytes in shared memory that is a field of a message.
pub(crate) struct SharedMemory;

impl Carrier<Bulk> for SharedMemory {
    type Tx = IpcSender<IpcSharedMemory>;
    type Rx = IpcReceiver<IpcSharedMemory>;

    fn open(_: &Bulk) -> Outcome<(Self::Tx, Self::Rx)> {
        Ok(channel()?)
    }

    fn send(tx: &mut Self::Tx, Bulk(bytes): &Bulk) -> Outcome<()> {
        Ok(tx.send(IpcSharedMemory::from_bytes(bytes))?)
    }

    fn recv(rx: &mut Self::Rx, Bulk(bytes): &Bulk) -> Outcome<Got> {
        Got::checked(rx.recv()?[..] == bytes[..])
    }
}

/// Bytes in packets, without an encoding.
pub(crate) struct BytesChannel;

impl Carrier<Bulk> for BytesChannel {
    type Tx = IpcBytesSender;
    type Rx = IpcBytesReceiver;

    fn open(_: &Bulk) -> Outcome<(Self::Tx, Self::Rx)> {
        Ok(bytes_channel()?)
    }

    fn send(tx: &mut Self::Tx, Bulk(bytes): &Bulk) -> Outcome<()> {
        Ok(tx.send(bytes)?)
    }

    fn recv(rx: &mut Self::Rx, Bulk(bytes): &Bulk) -> Outcome<Got> {
        Got::checked(rx.recv()? == *bytes)
    }
}
