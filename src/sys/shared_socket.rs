//! A channel end's hold on its socket.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::socket::Socket;

/// What a `Sender` or a `Receiver` holds: a share of a socket, and later perhaps of a duplicate of it.
///
/// After a fork the child has copies of all clones of an end in its memory, those that nothing there will
/// ever drop included, as they lie in the frames of functions that run in the parent only. An end that is
/// given to a child must not share its socket with these, or it would stay open after the child drops
/// it. So it is moved to a socket of its own, through a shared reference: ends are found by
/// serializing what holds them.
#[derive(Debug)]
pub(crate) struct SharedSocket {
    socket: Arc<Socket>,
    /// Where it has moved: a chain as long as the generations of processes that it went through.
    moved: OnceLock<Box<SharedSocket>>,
}

impl SharedSocket {
    pub(crate) fn new(socket: Arc<Socket>) -> Self {
        let moved = OnceLock::new();
        SharedSocket { socket, moved }
    }

    /// Goes on with another socket.
    pub(crate) fn move_to(&self, socket: Arc<Socket>) {
        if let Err(fresh) = self.last().moved.set(Box::new(SharedSocket::new(socket))) {
            self.move_to(fresh.socket); // another thread was faster, so there is a new last one
        }
    }

    #[inline]
    fn last(&self) -> &SharedSocket {
        let mut end = self;
        while let Some(next) = end.moved.get() {
            end = next;
        }
        end
    }

    pub(crate) fn into_socket(mut self) -> Arc<Socket> {
        while let Some(next) = self.moved.take() {
            self = *next;
        }
        self.socket
    }
}

impl Deref for SharedSocket {
    type Target = Arc<Socket>;

    #[inline]
    fn deref(&self) -> &Arc<Socket> {
        &self.last().socket
    }
}
