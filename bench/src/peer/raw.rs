//! The system calls alone: SOCK_SEQPACKET, the same bytes each time, nothing encoded. The floor.

#![allow(unsafe_code, reason = "received descriptors are numbers")]

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    recv, recvmsg, send, sendmsg, socketpair,
};

use super::{Carrier, Files, Got};
use crate::Outcome;
use crate::message::Message;

/// Bytes of the length of a message's JSON text; descriptors beside them.
pub(crate) struct Raw;

/// An end, and the bytes that it sends or expects.
pub(crate) struct End {
    /// The socket.
    pub(crate) socket: OwnedFd,
    packet: Vec<u8>,
}

/// Room for what is received.
pub(crate) type Room = Vec<u8>;

/// Room for every packet that fits a socket's default buffer.
const ROOM: usize = 256 * 1024;

/// Makes both ends of a channel for this packet.
pub(crate) fn ends(packet: &[u8]) -> Outcome<(End, End)> {
    let (tx, rx) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    let end = |socket| End {
        socket,
        packet: packet.to_owned(),
    };
    Ok((end(tx), end(rx)))
}

impl End {
    /// Makes the packet, the first time: as long as a length and the message's JSON text.
    fn prepare(&mut self, load: &impl Message) -> Outcome<()> {
        if self.packet.is_empty() {
            self.packet.resize(8, 0);
            serde_json::to_writer(&mut self.packet, load)?;
        }
        Ok(())
    }

    /// Sends the packet.
    pub(crate) fn send(&self) -> Outcome<()> {
        let flags = MsgFlags::MSG_NOSIGNAL;
        send(self.socket.as_raw_fd(), &self.packet, flags)?;
        Ok(())
    }

    /// Receives the packet.
    pub(crate) fn recv(&self, room: &mut Room) -> Outcome<Got> {
        room.resize(ROOM, 0); // does nothing from the second time on
        let count = recv(self.socket.as_raw_fd(), room, MsgFlags::empty())?;
        match count {
            0 => Ok(Got::End),
            count => Got::checked(room[..count] == self.packet),
        }
    }
}

impl<T: Message> Carrier<T> for Raw {
    type Tx = End;
    type Rx = (End, Room);

    fn open(_: &T) -> Outcome<(Self::Tx, Self::Rx)> {
        let (tx, rx) = ends(&[])?;
        Ok((tx, (rx, Room::new())))
    }

    fn send(tx: &mut End, load: &T) -> Outcome<()> {
        tx.prepare(load)?;
        tx.send()
    }

    fn recv((rx, room): &mut Self::Rx, load: &T) -> Outcome<Got> {
        rx.prepare(load)?;
        rx.recv(room)
    }
}

impl Carrier<Files> for Raw {
    type Tx = End;
    type Rx = (End, Room);

    fn open(_: &Files) -> Outcome<(Self::Tx, Self::Rx)> {
        let (tx, rx) = ends(b"x")?;
        Ok((tx, (rx, Room::new())))
    }

    fn send(tx: &mut End, load: &Files) -> Outcome<()> {
        sendmsg::<UnixAddr>(
            tx.socket.as_raw_fd(),
            &[IoSlice::new(&tx.packet)],
            &[ControlMessage::ScmRights(&load.numbers())],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    }

    fn recv((rx, room): &mut Self::Rx, load: &Files) -> Outcome<Got> {
        room.resize(ROOM, 0);
        let mut space = nix::cmsg_space!([i32; 253]);
        let mut into = [IoSliceMut::new(room)];
        let message = recvmsg::<UnixAddr>(
            rx.socket.as_raw_fd(),
            &mut into,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        let mut fds = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                // SAFETY: the kernel has opened them for this process with this message, nobody else
                // knows them.
                let owned = |number| unsafe { OwnedFd::from_raw_fd(number) };
                fds.extend(numbers.into_iter().map(owned));
            }
        }
        Got::checked(load.are(&fds))
    }
}
