//! What both ends of a channel have in common.

/// What a `Sender` and a `Receiver` have in common: how they are made, shared, sent, and turned into
/// descriptors and back.
macro_rules! impl_end {
    ($End:ident) => {
        const _: () = {
            use std::fmt;
            use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
            use std::sync::Arc;

            use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

            use crate::error::{Error, Result};
            use crate::message::fields;
            use crate::options::DEFAULT_MAX_MESSAGE_LEN;
            use crate::sys::shared_socket::SharedSocket;
            use crate::sys::socket::Socket;

            impl<T> $End<T> {
                pub(crate) fn new(socket: Arc<Socket>, max_message_len: usize) -> Self {
                    $End {
                        socket: SharedSocket::new(socket),
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
                    fields::carry_end(serializer, &self.socket)
                }
            }

            impl<'de, T> Deserialize<'de> for $End<T> {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let end = $End::try_from(fields::claim(deserializer)?);
                    end.map_err(|error| de::Error::custom(error.whole_text()))
                }
            }
        };
    };
}

pub(crate) use impl_end;
