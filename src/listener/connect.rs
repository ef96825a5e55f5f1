//! `Sender::connect`, the other side of a [`Listener`]; and both sides with [`Options`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Listener;
use crate::channel::Sender;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::options::Options;
use crate::sys::address::Address;
use crate::sys::socket::Socket;
use crate::wait::Wait;

impl<T> Sender<T> {
    /// Connects to the [`Listener`] at a path, or at an abstract name, which is one that begins with a NUL.
    ///
    /// Does not wait to be accepted: `Ok` means that messages can be sent, and that they will be received if
    /// the listener accepts. Blocks only while more clients than the kernel has room for, usually 4,096,
    /// wait to be accepted; see [`connect_timeout`](Self::connect_timeout).
    ///
    /// The sender is like that of any channel, and can be cloned, inherited and sent. The receiver
    /// learns which process connected, not which ones send through it later.
    ///
    /// # Errors
    ///
    /// - [`Error::Address`], which names the path and whose source says why: no process has listened there
    ///   (`NotFound`), none does any more (`ConnectionRefused`), the file belongs to another user
    ///   (`PermissionDenied`), the name is empty or has more than 107 bytes (`InvalidInput`), a
    ///   socket of another type listens there (`EPROTOTYPE`), or the process is out of descriptors.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use wormhole::{Error, Listener, Sender};
    ///
    /// let directory = tempfile::tempdir()?;
    /// let path = directory.path().join("server");
    /// let error = Sender::<u32>::connect(&path).unwrap_err();
    /// assert!(matches!(error, Error::Address { source, .. } if source.kind() == ErrorKind::NotFound));
    ///
    /// let listener = Listener::<u32>::bind(&path)?;
    /// let tx = Sender::<u32>::connect(&path)?;
    /// tx.send(5)?;
    /// assert_eq!(listener.accept()?.0.recv()?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn connect(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().connect(path)
    }

    /// Connects as [`connect`](Self::connect) does, waiting for at most `timeout` while too many others wait
    /// to be accepted.
    ///
    /// The timeout is a deadline, counted from the call. It is rounded up to the kernel's clock tick, some
    /// milliseconds; zero waits for one. It does not wait for a listener: when there is none, this fails at once.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when there was no room in time, otherwise as [`connect`](Self::connect).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use wormhole::{Error, Listener, Sender};
    ///
    /// let name = format!("\0wormhole {}", std::process::id());
    /// let timeout = Duration::from_millis(10);
    /// let error = Sender::<u32>::connect_timeout(&name, timeout).unwrap_err();
    /// assert!(error.to_string().starts_with("cannot connect to `\\0wormhole "));
    ///
    /// let listener = Listener::<u32>::bind(&name)?;
    /// let tx = Sender::<u32>::connect_timeout(&name, timeout)?;
    /// tx.send(5)?;
    /// assert_eq!(listener.accept()?.0.recv()?, 5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn connect_timeout(path: impl AsRef<Path>, timeout: Duration) -> Result<Self> {
        connect(&Options::new(), path.as_ref(), Wait::at_most(timeout))
    }
}

fn connect<T>(options: &Options, path: &Path, wait: Wait) -> Result<Sender<T>> {
    let address = Address::new(path)?;
    let socket = Socket::connect(&address, wait, options.buffer, options.spin)?;
    Ok(Sender::new(Arc::new(socket), options.limits))
}

/// Connects, or says `None` while too many others wait to be accepted. Never blocks.
#[cfg(any(feature = "tokio", feature = "async-io"))]
pub(crate) fn try_connect<T>(options: &Options, address: &Address) -> Result<Option<Sender<T>>> {
    let socket = Socket::try_connect(address, options.buffer, options.spin)?;
    Ok(socket.map(|socket| Sender::new(Arc::new(socket), options.limits)))
}

impl Options {
    /// Listens as [`Listener::bind`] does. Each receiver that is accepted has these settings.
    ///
    /// But for the size of the buffer: that is the sender's, see [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// As [`Listener::bind`].
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, Options, Sender};
    ///
    /// let name = format!("\0wormhole {}", std::process::id());
    /// let listener = Options::new().max_message_len(8).bind::<String>(&name)?;
    /// Sender::<String>::connect(&name)?.send("more than is welcome".to_owned())?;
    /// let (rx, _peer) = listener.accept()?;
    /// assert!(matches!(rx.recv(), Err(Error::TooLarge { size: 22, limit: 8 })));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn bind<T>(&self, path: impl AsRef<Path>) -> Result<Listener<T>> {
        Listener::bind_with(self, path.as_ref())
    }

    /// Connects as [`Sender::connect`] does, with these settings for the sender.
    ///
    /// # Errors
    ///
    /// As [`Sender::connect`]. [`Error::Io`] when [`buffer`](Self::buffer) is more than `net.core.wmem_max`
    /// allows.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, Listener, Options};
    ///
    /// let name = format!("\0wormhole {}", std::process::id());
    /// let _listener = Listener::<u8>::bind(&name)?;
    /// // A small buffer: the sender soon waits for the receiver.
    /// let tx = Options::new().buffer(4096).connect::<u8>(&name)?;
    /// assert!((0..50).any(|_| matches!(tx.try_send(0), Err(Error::Full))));
    ///
    /// let error = Options::new().buffer(usize::MAX).connect::<u8>(&name).unwrap_err();
    /// assert!(matches!(error, Error::Io { .. }));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn connect<T>(&self, path: impl AsRef<Path>) -> Result<Sender<T>> {
        connect(self, path.as_ref(), Wait::Forever)
    }
}
