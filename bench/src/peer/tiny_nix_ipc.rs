//! `tiny-nix-ipc` with JSON: one packet of SOCK_SEQPACKET a message, received into a buffer of a given size.

#![allow(unsafe_code, reason = "it hands out descriptors as numbers")]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, anyhow};
use tiny_nix_ipc::Socket;
use tiny_nix_ipc::errors::{Error, ErrorKind};

use super::{Carrier, Files, Got};
use crate::Outcome;
use crate::message::Message;

/// The smallest buffer that a program would choose.
const SMALLEST: usize = 4096;

/// Messages of any type; descriptors beside a message.
pub(crate) struct TinyNixIpc;

/// A receiver, which has to choose the size of its buffer.
pub(crate) struct Buffered {
    socket: Socket,
    size: Option<usize>,
}

/// Its errors cannot be shared between threads.
fn failed(error: Error) -> anyhow::Error {
    anyhow!("{error}")
}

impl<T: Message> Carrier<T> for TinyNixIpc {
    type Tx = Socket;
    type Rx = Buffered;

    fn open(_: &T) -> Outcome<(Socket, Buffered)> {
        let (tx, socket) = Socket::new_socketpair().map_err(failed)?;
        Ok((tx, Buffered { socket, size: None }))
    }

    fn send(tx: &mut Socket, load: &T) -> Outcome<()> {
        let load = load.clone();
        tx.send_json(&load, None).map(drop).map_err(failed)
    }

    fn recv(rx: &mut Buffered, load: &T) -> Outcome<Got> {
        let size = match rx.size {
            Some(size) => size,
            None => serde_json::to_vec(load)?.len().max(SMALLEST),
        };
        rx.size = Some(size);
        match rx.socket.recv_json::<T, [RawFd; 0]>(size) {
            Ok((message, _)) => Got::checked(message == *load),
            // It reads no bytes at the end, like a packet that is too short.
            Err(error) if matches!(error.kind(), ErrorKind::WrongRecvLength) => Ok(Got::End),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Room for `N` descriptors: it wants a type with a default, which arrays have up to 32.
struct Room<const N: usize>([RawFd; N]);

impl<const N: usize> Default for Room<N> {
    fn default() -> Self {
        Room([-1; N])
    }
}

impl<const N: usize> AsMut<[RawFd]> for Room<N> {
    fn as_mut(&mut self) -> &mut [RawFd] {
        &mut self.0
    }
}

/// Descriptors beside a message, exactly `N`.
pub(crate) struct Exactly<const N: usize>;

impl<const N: usize> Carrier<Files> for Exactly<N> {
    type Tx = Socket;
    type Rx = Socket;

    fn open(_: &Files) -> Outcome<(Socket, Socket)> {
        Socket::new_socketpair().map_err(failed)
    }

    fn send(tx: &mut Socket, load: &Files) -> Outcome<()> {
        let numbers = load.numbers();
        tx.send_json(&(), Some(&numbers)).map(drop).map_err(failed)
    }

    fn recv(rx: &mut Socket, load: &Files) -> Outcome<Got> {
        let ((), numbers) = rx.recv_json::<(), Room<N>>(SMALLEST).map_err(failed)?;
        let Room(numbers) = numbers.context("no descriptors came")?;
        // SAFETY: the kernel has opened them for this process with this message, nobody else knows them.
        let fds = numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
        Got::checked(load.are(&fds))
    }
}
