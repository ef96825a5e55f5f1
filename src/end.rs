//! A channel end's hold on its socket.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use crate::socket::Socket;

/// What a `Sender` or a `Receiver` holds: a share of a socket, and later perhaps of a duplicate of it.
///
/// After a fork the child has copies of all clones of an end in its memory, those that nothing there will
/// ever drop included, as they lie in the frames of functions that run in the parent only. An end that is
/// given to a child must not share its socket with these, or it would stay open after the child drops
/// it. So it is moved to a socket of its own, through a shared reference: ends are found by
/// serializing what holds them.
#[derive(Debug)]
pub(crate) struct End {
    socket: Arc<Socket>,
    /// Where it has moved: a chain as long as the generations of processes that it went through.
    moved: OnceLock<Box<End>>,
}

impl End {
    pub(crate) fn new(socket: Arc<Socket>) -> Self {
        let moved = OnceLock::new();
        End { socket, moved }
    }

    /// Goes on with another socket.
    pub(crate) fn move_to(&self, socket: Arc<Socket>) {
        if let Err(fresh) = self.last().moved.set(Box::new(End::new(socket))) {
            self.move_to(fresh.socket); // somebody else was faster, so there is a new last one
        }
    }

    fn last(&self) -> &End {
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

impl Deref for End {
    type Target = Arc<Socket>;

    fn deref(&self) -> &Arc<Socket> {
        &self.last().socket
    }
}

/// What a `Sender` and a `Receiver` have in common: how they are made, shared, sent, and turned into
/// descriptors and back.
macro_rules! impl_end {
    ($End:ident) => {
        const _: () = {
            use std::fmt;
            use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
            use std::sync::Arc;

            use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

            use crate::end::End;
            use crate::error::{Error, Result};
            use crate::fd;
            use crate::options::DEFAULT_MAX_MESSAGE_LEN;
            use crate::socket::Socket;

            impl<T> $End<T> {
                pub(crate) fn new(socket: Arc<Socket>, max_message_len: usize) -> Self {
                    $End {
                        socket: End::new(socket),
                        max_message_len,
                        message: std::marker::PhantomData,
                    }
                }

                pub(crate) fn parts(&self) -> (&Socket, usize) {
                    (&self.socket, self.max_message_len)
                }
            }

            impl<T> Clone for $End<T> {
                fn clone(&self) -> Self {
                    $End::new(Arc::clone(&self.socket), self.max_message_len)
                }
            }

            impl<T> AsFd for $End<T> {
                fn as_fd(&self) -> BorrowedFd<'_> {
                    self.socket.as_fd()
                }
            }

            impl<T> fmt::Debug for $End<T> {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.debug_struct(stringify!($End))
                        .field("fd", &self.as_fd().as_raw_fd())
                        .field("max_message_len", &self.max_message_len)
                        .finish()
                }
            }

            /// Takes over a descriptor that came from elsewhere, say from a parent process.
            ///
            /// Fails with [`Error::NotAChannel`], and closes it, unless it is a connected unix `SOCK_SEQPACKET`
            /// socket. Its flags, close-on-exec among them, stay as they are.
            impl<T> TryFrom<OwnedFd> for $End<T> {
                type Error = Error;

                fn try_from(fd: OwnedFd) -> Result<Self> {
                    let socket = Arc::new(Socket::adopt(fd)?);
                    Ok($End::new(socket, DEFAULT_MAX_MESSAGE_LEN))
                }
            }

            /// Gives up the descriptor. While other clones share it, it is duplicated, which fails with
            /// [`Error::Io`] when the process is out of descriptors.
            impl<T> TryFrom<$End<T>> for OwnedFd {
                type Error = Error;

                fn try_from(end: $End<T>) -> Result<OwnedFd> {
                    Socket::release(end.socket.into_socket())
                }
            }

            impl<T> Serialize for $End<T> {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    fd::carry_end(serializer, &self.socket)
                }
            }

            impl<'de, T> Deserialize<'de> for $End<T> {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let end = $End::try_from(fd::claim(deserializer)?);
                    end.map_err(|error| de::Error::custom(error.whole_text()))
                }
            }
        };
    };
}

pub(crate) use impl_end;
