//! The library itself.

use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wormhole::{Blob, Error, Options, Receiver, Sender, channel, select};

use super::{Bulk, Carrier, Files, Got};
use crate::Outcome;
use crate::message::Message;

/// Messages of any type; descriptors as fields of a message.
pub(crate) struct Wormhole;

impl<T: Message> Carrier<T> for Wormhole {
    type Tx = Sender<T>;
    type Rx = Receiver<T>;

    fn open(_: &T) -> Outcome<(Sender<T>, Receiver<T>)> {
        Ok(channel()?)
    }

    fn send(tx: &mut Sender<T>, load: &T) -> Outcome<()> {
        Ok(tx.send(load.clone())?)
    }

    fn recv(rx: &mut Receiver<T>, load: &T) -> Outcome<Got> {
        match rx.recv() {
            Ok(message) => Got::checked(message == *load),
            Err(Error::Disconnected) => Ok(Got::End),
            Err(error) => Err(error.into()),
        }
    }
}

/// Without spinning.
pub(crate) struct Asleep;

impl<T: Message> Carrier<T> for Asleep {
    type Tx = Sender<T>;
    type Rx = Receiver<T>;

    fn open(_: &T) -> Outcome<(Sender<T>, Receiver<T>)> {
        Ok(Options::new().spin(Duration::ZERO).channel()?)
    }

    fn send(tx: &mut Sender<T>, load: &T) -> Outcome<()> {
        <Wormhole as Carrier<T>>::send(tx, load)
    }

    fn recv(rx: &mut Receiver<T>, load: &T) -> Outcome<Got> {
        <Wormhole as Carrier<T>>::recv(rx, load)
    }
}

/// By `select!`, beside a channel on which nothing comes.
pub(crate) struct Selecting;

impl<T: Message> Carrier<T> for Selecting {
    type Tx = (Sender<T>, Sender<()>);
    type Rx = (Receiver<T>, Receiver<()>);

    fn open(_: &T) -> Outcome<(Self::Tx, Self::Rx)> {
        let (tx, rx) = channel()?;
        let (silent, never) = channel()?;
        Ok(((tx, silent), (rx, never)))
    }

    fn send((tx, _): &mut Self::Tx, load: &T) -> Outcome<()> {
        <Wormhole as Carrier<T>>::send(tx, load)
    }

    fn recv((rx, never): &mut Self::Rx, load: &T) -> Outcome<Got> {
        select! {
            recv(rx) -> received => match received {
                Ok(message) => Got::checked(message == *load),
                Err(Error::Disconnected) => Ok(Got::End),
                Err(error) => Err(error.into()),
            },
            // The sender is gone; what it has sent may still be there.
            recv(never) -> _ => <Wormhole as Carrier<T>>::recv(rx, load),
        }
    }
}

/// A field that is a descriptor.
#[derive(Serialize, Deserialize)]
pub(crate) struct Field(#[serde(with = "wormhole::fd")] OwnedFd);

impl Carrier<Files> for Wormhole {
    type Tx = (Sender<Vec<Field>>, Vec<Field>);
    type Rx = Receiver<Vec<Field>>;

    fn open(load: &Files) -> Outcome<(Self::Tx, Self::Rx)> {
        let (tx, rx) = channel()?;
        let fields = (0..load.count).map(|_| load.file().try_clone_to_owned().map(Field));
        Ok(((tx, fields.collect::<Result<_, _>>()?), rx))
    }

    fn send((tx, fields): &mut Self::Tx, _: &Files) -> Outcome<()> {
        Ok(tx.by_ref().send(&*fields)?)
    }

    fn recv(rx: &mut Self::Rx, load: &Files) -> Outcome<Got> {
        let fds: Vec<OwnedFd> = rx.recv()?.into_iter().map(|Field(fd)| fd).collect();
        Got::checked(load.are(&fds))
    }
}

/// Descriptors beside a message.
pub(crate) struct Beside;

impl Carrier<Files> for Beside {
    type Tx = Sender<()>;
    type Rx = Receiver<()>;

    fn open(_: &Files) -> Outcome<(Self::Tx, Self::Rx)> {
        Ok(channel()?)
    }

    fn send(tx: &mut Self::Tx, load: &Files) -> Outcome<()> {
        Ok(tx.send_with_fds((), &vec![load.file(); load.count])?)
    }

    fn recv(rx: &mut Self::Rx, load: &Files) -> Outcome<Got> {
        let ((), fds) = rx.recv_with_fds()?;
        Got::checked(load.are(&fds))
    }
}

/// Bytes in a `Blob`.
pub(crate) struct Blobs;

impl Carrier<Bulk> for Blobs {
    type Tx = Sender<Blob>;
    type Rx = Receiver<Blob>;

    fn open(_: &Bulk) -> Outcome<(Self::Tx, Self::Rx)> {
        Ok(channel()?)
    }

    fn send(tx: &mut Self::Tx, Bulk(bytes): &Bulk) -> Outcome<()> {
        Ok(tx.send(Blob::from_bytes(bytes)?)?)
    }

    fn recv(rx: &mut Self::Rx, Bulk(bytes): &Bulk) -> Outcome<Got> {
        Got::checked(rx.recv()?[..] == bytes[..])
    }
}

/// Bytes as a list of numbers in JSON: what bulk data should not be sent as.
pub(crate) struct Numbers;

impl Carrier<Bulk> for Numbers {
    type Tx = Sender<Vec<u8>>;
    type Rx = Receiver<Vec<u8>>;

    fn open(_: &Bulk) -> Outcome<(Self::Tx, Self::Rx)> {
        Ok(channel()?)
    }

    fn send(tx: &mut Self::Tx, Bulk(bytes): &Bulk) -> Outcome<()> {
        Ok(tx.by_ref().send(bytes)?)
    }

    fn recv(rx: &mut Self::Rx, Bulk(bytes): &Bulk) -> Outcome<Got> {
        Got::checked(rx.recv()? == *bytes)
    }
}

/// Bytes as text, four characters for three.
pub(crate) struct Base64;

/// The message of [`Base64`].
#[serde_with::serde_as]
#[derive(Serialize, Deserialize)]
pub(crate) struct Encoded(#[serde_as(as = "serde_with::base64::Base64")] Vec<u8>);

impl Carrier<Bulk> for Base64 {
    type Tx = Sender<Encoded>;
    type Rx = Receiver<Encoded>;

    fn open(_: &Bulk) -> Outcome<(Self::Tx, Self::Rx)> {
        Ok(channel()?)
    }

    fn send(tx: &mut Self::Tx, Bulk(bytes): &Bulk) -> Outcome<()> {
        Ok(tx.send(Encoded(bytes.clone()))?)
    }

    fn recv(rx: &mut Self::Rx, Bulk(bytes): &Bulk) -> Outcome<Got> {
        Got::checked(rx.recv()?.0 == *bytes)
    }
}
