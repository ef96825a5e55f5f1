//! What both ends of a channel, and a listener, have in common: a share of a socket, and the limits of one handle.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::options::Limits;
use crate::sys::shared_socket::SharedSocket;
use crate::sys::socket::Socket;

/// What a `Sender`, a `Receiver` and a `Listener` are made of.
#[derive(Debug)]
pub(crate) struct Endpoint {
    socket: SharedSocket,
    pub(crate) limits: Limits,
}

impl Endpoint {
    pub(crate) fn new(socket: Arc<Socket>, limits: Limits) -> Self {
        Endpoint {
            socket: SharedSocket::new(socket),
            limits,
        }
    }

    /// Makes another one of the same socket.
    pub(crate) fn share(&self) -> Self {
        Endpoint::new(Arc::clone(&self.socket), self.limits)
    }

    #[inline]
    pub(crate) fn socket(&self) -> &SharedSocket {
        &self.socket
    }

    /// Gives up the descriptor. While others share the socket, it is duplicated.
    pub(crate) fn into_fd(self) -> Result<OwnedFd> {
        Socket::release(self.socket.into_socket())
    }

    /// Whether both are of the same socket, be it by duplicates or in copies that came in messages.
    pub(crate) fn is_same(&self, other: &Self) -> Result<bool> {
        let failed = |errno| Error::io("look up the identity of a socket", errno);
        let id = |end: &Self| end.socket.id().map_err(failed);
        Ok(id(self)? == id(other)?)
    }
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Implements what is the same for all types that are made of an [`Endpoint`] in their field `end`, and have a
/// function `adopt` that makes one of a descriptor.
macro_rules! impl_endpoint {
    ($End:ident) => {
        const _: () = {
            use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

            use serde::{Deserialize, Deserializer, de};

            use crate::error::{Error, Result};
            use crate::message::fields;

            /// For polling. The descriptor stays open for as long as this end, and changes its number only if a
            /// [`spawn`](crate::spawn) or a send takes over a clone.
            impl<T> AsFd for $End<T> {
                fn as_fd(&self) -> BorrowedFd<'_> {
                    self.end.as_fd()
                }
            }

            /// For event loops that know descriptors by number. To read from it, to write to it or to set flags of
            /// it breaks the channel, for all processes that share it.
            impl<T> AsRawFd for $End<T> {
                fn as_raw_fd(&self) -> RawFd {
                    self.end.as_fd().as_raw_fd()
                }
            }

            /// Gives up the descriptor. While other clones share it, it is duplicated, which fails with
            /// [`Error::Io`] when the process is out of descriptors.
            impl<T> TryFrom<$End<T>> for OwnedFd {
                type Error = Error;

                fn try_from(end: $End<T>) -> Result<OwnedFd> {
                    end.into_endpoint().into_fd()
                }
            }

            impl<'de, T> Deserialize<'de> for $End<T> {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let end = $End::adopt(fields::claim(deserializer)?);
                    end.map_err(|error| de::Error::custom(format!("{error:#}")))
                }
            }
        };
    };
}

/// Implements what is the same for both ends of a channel.
macro_rules! impl_end {
    ($End:ident, $direction:expr) => {
        crate::channel::endpoint::impl_endpoint!($End);

        const _: () = {
            use std::fmt;
            use std::marker::PhantomData;
            use std::os::fd::{AsRawFd, OwnedFd};
            use std::sync::Arc;

            use serde::{Serialize, Serializer};

            use crate::channel::endpoint::Endpoint;
            use crate::error::{Error, Result};
            use crate::message::fields;
            use crate::options::Limits;
            use crate::sys::socket::Socket;

            impl<T> $End<T> {
                pub(crate) fn new(socket: Arc<Socket>, limits: Limits) -> Self {
                    Self::of(Endpoint::new(socket, limits))
                }

                fn of(end: Endpoint) -> Self {
                    let message = PhantomData;
                    $End { end, message }
                }

                pub(crate) fn endpoint(&self) -> &Endpoint {
                    &self.end
                }

                fn into_endpoint(self) -> Endpoint {
                    self.end
                }

                fn adopt(fd: OwnedFd) -> Result<Self> {
                    let socket = Arc::new(Socket::adopt(fd, $direction)?);
                    Ok(Self::new(socket, Limits::DEFAULT))
                }

                /// Makes this an end for messages of another type, of the same channel and with the same settings.
                ///
                /// Nothing checks that the other side has that type in mind: a message that has not is an
                /// [`Error::Decode`] for its receiver.
                ///
                /// # Examples
                ///
                /// ```
                /// use wormhole::{Error, channel};
                ///
                /// let (tx, rx) = channel::<u32>()?;
                /// let rx = rx.cast::<String>();
                /// tx.send(5)?;
                /// tx.cast::<&str>().send("five")?;
                /// assert!(matches!(rx.recv(), Err(Error::Decode { .. })));
                /// assert_eq!(rx.recv()?, "five");
                /// # Ok::<(), Error>(())
                /// ```
                #[must_use]
                pub fn cast<U>(self) -> $End<U> {
                    $End::of(self.end)
                }

                /// Whether both are the same end of the same channel, however they came into this process: as
                /// clones, in messages, or as descriptors.
                ///
                /// Asks the kernel for the identity of both sockets
                /// ([`fstat(2)`](https://man7.org/linux/man-pages/man2/fstat.2.html)). Never blocks.
                ///
                /// # Errors
                ///
                /// [`Error::Io`] when a sandbox denies that.
                ///
                /// # Examples
                ///
                /// ```
                /// use wormhole::{Error, Sender, channel};
                ///
                /// let (tx, _rx) = channel::<u32>()?;
                /// let (other, _rx) = channel::<u32>()?;
                /// let (send, receive) = channel::<Sender<u32>>()?;
                /// send.send(tx.clone())?;
                /// assert!(tx.same_channel(&receive.recv()?)?);
                /// assert!(!tx.same_channel(&other)?);
                /// # Ok::<(), Error>(())
                /// ```
                pub fn same_channel(&self, other: &Self) -> Result<bool> {
                    self.end.is_same(&other.end)
                }
            }

            impl<T> Clone for $End<T> {
                fn clone(&self) -> Self {
                    Self::of(self.end.share())
                }
            }

            impl<T> fmt::Debug for $End<T> {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.debug_struct(stringify!($End))
                        .field("fd", &self.as_raw_fd())
                        .field("max_message_len", &self.end.limits.message_len)
                        .finish()
                }
            }

            /// Takes over a descriptor that came from elsewhere, say from a parent process.
            ///
            /// Fails with [`Error::NotAChannel`], and closes it, unless it is a connected unix `SOCK_SEQPACKET`
            /// socket that can be this end of a channel: one of the other direction is refused for as long as
            /// that can be told, which is while its peer lives. Its flags, close-on-exec among them, stay as they
            /// are. A descriptor numbered 0 to 2 is moved above them.
            impl<T> TryFrom<OwnedFd> for $End<T> {
                type Error = Error;

                fn try_from(fd: OwnedFd) -> Result<Self> {
                    Self::adopt(fd)
                }
            }

            impl<T> Serialize for $End<T> {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    fields::carry_end(serializer, self.end.socket(), None)
                }
            }
        };
    };
}

pub(crate) use {impl_end, impl_endpoint};
