//! What people write by hand: a `UnixStream`, and a line of JSON for each message.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use super::{Bulk, Carrier, Got};
use crate::Outcome;
use crate::message::Message;

/// Messages of any type.
pub(crate) struct JsonLines;

impl<T: Message> Carrier<T> for JsonLines {
    type Tx = (UnixStream, Vec<u8>);
    type Rx = (BufReader<UnixStream>, String);

    fn open(_: &T) -> Outcome<(Self::Tx, Self::Rx)> {
        let (tx, rx) = UnixStream::pair()?;
        Ok(((tx, Vec::new()), (BufReader::new(rx), String::new())))
    }

    fn send((stream, line): &mut Self::Tx, load: &T) -> Outcome<()> {
        line.clear();
        serde_json::to_writer(&mut *line, &load.clone())?;
        line.push(b'\n');
        Ok(stream.write_all(line)?)
    }

    fn recv((stream, line): &mut Self::Rx, load: &T) -> Outcome<Got> {
        line.clear();
        if stream.read_line(line)? == 0 {
            return Ok(Got::End);
        }
        Got::checked(serde_json::from_str::<T>(line)? == *load)
    }
}

/// Bytes through a stream, as many as both sides know of: the floor.
pub(crate) struct Stream;

impl Carrier<Bulk> for Stream {
    type Tx = UnixStream;
    type Rx = (UnixStream, Vec<u8>);

    fn open(Bulk(bytes): &Bulk) -> Outcome<(Self::Tx, Self::Rx)> {
        let (tx, rx) = UnixStream::pair()?;
        Ok((tx, (rx, vec![0; bytes.len()])))
    }

    fn send(tx: &mut Self::Tx, Bulk(bytes): &Bulk) -> Outcome<()> {
        Ok(tx.write_all(bytes)?)
    }

    fn recv((rx, buffer): &mut Self::Rx, Bulk(bytes): &Bulk) -> Outcome<Got> {
        rx.read_exact(buffer)?;
        Got::checked(buffer == bytes)
    }
}
