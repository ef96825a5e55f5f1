//! Channels between unrelated processes: one listens at a name, any number connect to it.

mod connect;
mod socket_file;

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use serde::{Serialize, Serializer};

#[cfg(any(feature = "tokio", feature = "async-io"))]
pub(crate) use self::connect::try_connect;
use self::socket_file::SocketFile;
use crate::channel::Receiver;
#[cfg(doc)]
use crate::channel::Sender;
use crate::channel::endpoint::{Endpoint, impl_endpoint};
use crate::error::{Error, Result};
use crate::message::fields;
use crate::options::{Limits, Options};
use crate::sys::address::Address;
use crate::sys::peer::Peer;
use crate::sys::socket::Socket;
use crate::trace;
use crate::wait::{Wait, until_ready};

/// Listens at a name for processes that [`connect`](Sender::connect), each of which becomes a channel.
///
/// A name is a path, where a socket file stands for as long as the listener lives. Only processes of the
/// same user (and root) can connect: the file has mode 0600, less what the umask forbids, from the first
/// moment. It is removed when the listener is dropped, by the process that bound it and not by one that
/// has a copy, and only if it still is the same file. If that process is killed a stale file stays
/// behind; the next `bind` replaces it.
///
/// A name that begins with a NUL, such as `"\0my-server"`, is abstract: it has no file, and vanishes with
/// the listener. **It has no permissions either**: every process in the network namespace can connect, so look
/// at the [`Peer`] that [`accept`](Self::accept) gives.
///
/// Both kinds of name have at most 107 bytes. Errors show an abstract name with `\0` before it. A name that begins
/// with an `@` is a path like any other.
///
/// A service manager that listens for this program hands over a descriptor: see `TryFrom<OwnedFd>` below.
///
/// # Several processes
///
/// A listener can be cloned, given to a [`spawn`](crate::spawn)ed process and sent in a message, as the end of
/// a channel can. All copies share one queue: each client is accepted by one of them. Clients that have not been
/// accepted when the last copy is closed see [`Error::Disconnected`].
///
/// The process that bound it removes the file, as soon as it drops its last clone. **One that it gave away leaves
/// the file**, which is stale once no process listens any more. So a pre-fork server keeps one, and gives a clone to
/// each worker:
///
/// ```
/// use wormhole::{Error, Listener, Sender, spawn};
///
/// fn serve(listener: Listener<u32>) -> u32 {
///     let (rx, _peer) = listener.accept().unwrap();
///     rx.recv().unwrap()
/// }
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("server");
/// let listener = Listener::bind(&path)?;
/// let workers = [spawn(listener.clone(), serve)?, spawn(listener.clone(), serve)?];
/// Sender::connect(&path)?.send(5)?;
/// Sender::connect(&path)?.send(6)?;
/// let mut sum = 0;
/// for worker in workers {
///     sum += worker.join()?;
/// }
/// assert_eq!(sum, 11);
/// drop(listener);
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Examples
///
/// ```
/// use wormhole::{Error, Listener, Sender};
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("greetings");
/// let listener = Listener::<String>::bind(&path)?;
///
/// // Usually in another process.
/// let tx = Sender::<String>::connect(&path)?;
/// tx.send("hello".to_owned())?;
/// drop(tx);
///
/// let (rx, peer) = listener.accept()?;
/// assert_eq!(peer.pid, Some(std::process::id()));
/// assert_eq!(rx.recv()?, "hello");
/// assert!(matches!(rx.recv(), Err(Error::Disconnected)));
///
/// drop(listener);
/// assert!(!path.exists());
/// let error = Sender::<String>::connect(&path).unwrap_err();
/// assert!(matches!(error, Error::Address { source, .. }
///     if source.kind() == std::io::ErrorKind::NotFound));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Listener<T> {
    /// Of all clones in the process that bound it.
    file: Option<Arc<SocketFile>>,
    /// The socket; the limits are those of the receivers that are accepted.
    end: Endpoint,
    /// Whether another process has got this clone.
    given: Arc<AtomicBool>,
    message: PhantomData<fn() -> T>,
}

impl<T> Listener<T> {
    /// Starts to listen at a path, or at an abstract name, which is one that begins with a NUL.
    ///
    /// Never blocks. `Ok` means that clients can connect, even before the first `accept`: as many as
    /// `net.core.somaxconn` says, usually 4,096, can wait.
    ///
    /// A socket file that no process has open any more is replaced. That is safe while other processes do
    /// the same: one of them gets the name, for the others it is in use. It needs a lock file beside the socket
    /// file for that moment, with the ending `.wormhole-lock`.
    ///
    /// # Errors
    ///
    /// Nothing has changed:
    ///
    /// - [`Error::Address`], which names the path and whose source says why: a process listens there
    ///   (`AddrInUse`), a file is there that is not a socket (`AlreadyExists`), there is no such directory
    ///   (`NotFound`), it may not be written to (`PermissionDenied`), the name is empty or has more than 107
    ///   bytes (`InvalidInput`), or the process is out of descriptors.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use wormhole::{Error, Listener};
    ///
    /// let directory = tempfile::tempdir()?;
    /// let path = directory.path().join("server");
    /// let first = Listener::<u32>::bind(&path)?;
    ///
    /// let error = Listener::<u32>::bind(&path).unwrap_err();
    /// assert!(matches!(error, Error::Address { source, .. } if source.kind() == ErrorKind::AddrInUse));
    ///
    /// drop(first);
    /// Listener::<u32>::bind(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bind(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().bind(path)
    }

    pub(crate) fn bind_with(options: &Options, path: &Path) -> Result<Self> {
        let address = Address::new(path)?;
        let failed = |errno| address.error("listen at", errno);
        let socket = Socket::unbound(options.spin).map_err(failed)?;
        let file = if address.is_abstract() {
            socket.bind(&address).map_err(failed)?;
            None
        } else {
            Some(SocketFile::bind(&socket, &address, path)?)
        };
        if let Err(errno) = socket.listen() {
            file.inspect(SocketFile::remove);
            return Err(failed(errno));
        }
        let end = Endpoint::new(Arc::new(socket), options.limits);
        Ok(Self::of(file.map(Arc::new), end))
    }

    fn of(file: Option<Arc<SocketFile>>, end: Endpoint) -> Self {
        Listener {
            file,
            end,
            given: Arc::default(),
            message: PhantomData,
        }
    }

    /// Takes over a listening socket that came from elsewhere.
    fn adopt(fd: OwnedFd) -> Result<Self> {
        let socket = Arc::new(Socket::adopt_listening(fd)?);
        Ok(Self::of(None, Endpoint::new(socket, Limits::DEFAULT)))
    }

    #[cfg(any(feature = "tokio", feature = "async-io"))]
    pub(crate) fn socket(&self) -> &Arc<Socket> {
        self.end.socket()
    }

    /// Gives up the socket, and leaves its file.
    fn into_endpoint(self) -> Endpoint {
        self.given.store(true, Ordering::Relaxed);
        self.end.share()
    }

    /// Accepts the next client: gives the receiving end of its channel, and the process that connected.
    ///
    /// Blocks until one connects. That a client connected does not mean that it sends anything, or that it is
    /// still there: a receiver whose client has left gives what was sent and then
    /// [`Error::Disconnected`]. Each client has a channel of its own, so one that is silent, or
    /// sends garbage, stops no other. The receiver has the settings of [`Options::bind`], or the defaults.
    ///
    /// # Errors
    ///
    /// - [`Error::Disconnected`]: no client can connect, because this is a copy in a [`spawn`](crate::spawn)ed
    ///   process that was not among its arguments.
    /// - [`Error::Io`]: the kernel refused. If that was because the process is out of descriptors, the client
    ///   keeps waiting and the next call tries again. It cannot be expected to fare better before some
    ///   descriptor has been closed.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, Listener, Sender};
    ///
    /// let name = format!("\0wormhole {}", std::process::id());
    /// let listener = Listener::<u32>::bind(&name)?;
    /// let tx = Sender::<u32>::connect(&name)?;
    /// tx.send(1)?;
    ///
    /// let (rx, _peer) = listener.accept()?;
    /// assert_eq!(rx.recv()?, 1);
    /// drop(rx);
    /// assert!(matches!(tx.send(2), Err(Error::Disconnected)));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn accept(&self) -> Result<(Receiver<T>, Peer)> {
        self.accept_within(Wait::Forever)
    }

    /// Accepts a client if one is waiting. Never blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`] when none is waiting, otherwise as [`accept`](Self::accept).
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, Listener, Sender};
    ///
    /// let name = format!("\0wormhole {}", std::process::id());
    /// let listener = Listener::<u32>::bind(&name)?;
    /// assert!(matches!(listener.try_accept(), Err(Error::Empty)));
    /// let _tx = Sender::<u32>::connect(&name)?;
    /// let (rx, _peer) = listener.try_accept()?;
    /// assert!(matches!(rx.try_recv(), Err(Error::Empty)));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn try_accept(&self) -> Result<(Receiver<T>, Peer)> {
        self.accept_within(Wait::Never)
    }

    /// Accepts the next client, waiting for at most `timeout`.
    ///
    /// The timeout is a deadline, counted from the call. Zero tries once.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when none connected in time, otherwise as [`accept`](Self::accept).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use wormhole::{Error, Listener, Sender};
    ///
    /// let name = format!("\0wormhole {}", std::process::id());
    /// let listener = Listener::<u32>::bind(&name)?;
    /// let late = listener.accept_timeout(Duration::from_millis(10));
    /// assert!(matches!(late, Err(Error::TimedOut { .. })));
    /// let _tx = Sender::<u32>::connect(&name)?;
    /// listener.accept_timeout(Duration::from_millis(10))?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn accept_timeout(&self, timeout: Duration) -> Result<(Receiver<T>, Peer)> {
        self.accept_within(Wait::at_most(timeout))
    }

    /// Accepts the next client, waiting until `deadline`. One that has passed tries once.
    ///
    /// # Errors
    ///
    /// As [`accept_timeout`](Self::accept_timeout).
    pub fn accept_deadline(&self, deadline: Instant) -> Result<(Receiver<T>, Peer)> {
        self.accept_within(Wait::until(deadline))
    }

    /// Iterates over the clients, blocking for each as [`accept`](Self::accept) does.
    ///
    /// Never ends. Errors are items; a loop that goes on after one should first do something about it, or it
    /// will see it again at once.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, Listener, Sender};
    ///
    /// let name = format!("\0wormhole {}", std::process::id());
    /// let listener = Listener::<u32>::bind(&name)?;
    /// for number in 0..2 {
    ///     Sender::connect(&name)?.send(number)?;
    /// }
    /// for (number, client) in (0..2).zip(&listener) {
    ///     let (rx, _peer) = client?;
    ///     assert_eq!(rx.recv()?, number);
    ///     assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    pub fn incoming(&self) -> Incoming<'_, T> {
        Incoming { listener: self }
    }

    fn accept_within(&self, wait: Wait) -> Result<(Receiver<T>, Peer)> {
        let socket = self.end.socket();
        let accepted = until_ready(&***socket, PollFlags::IN, None, wait, |_| {
            match socket.accept() {
                // It does not listen (any more): the dead copy in a spawned process.
                Err(Errno::INVAL) => Ok(None),
                accepted => accepted.map(Some),
            }
        });
        match accepted {
            Ok(Some((socket, peer))) => {
                let receiver = Receiver::new(Arc::new(socket), self.end.limits);
                trace::accepted(&receiver, peer.pid);
                Ok((receiver, peer))
            }
            Ok(None) => Err(Error::Disconnected),
            Err(stop) => Err(stop.into_error("accept a client", Error::Empty)),
        }
    }
}

impl<T> Drop for Listener<T> {
    fn drop(&mut self) {
        let Some(file) = self.file.take().and_then(Arc::into_inner) else {
            return; // there are other clones, or no file
        };
        if !self.given.load(Ordering::Relaxed) && self.end.socket().listens_for_this_process() {
            file.remove();
        }
    }
}

impl<T> Clone for Listener<T> {
    fn clone(&self) -> Self {
        Self::of(self.file.clone(), self.end.share())
    }
}

impl_endpoint!(Listener);

/// Takes over a socket that listens already, for instance one that a service manager hands over (systemd's
/// socket activation, with `ListenSequentialPacket=`).
///
/// Fails with [`Error::NotAChannel`], and closes it, unless it is a listening unix `SOCK_SEQPACKET` socket. The
/// socket file belongs to the process that made it: this listener leaves it. The descriptor's flags stay as they are.
///
/// # Examples
///
/// ```
/// use std::os::fd::OwnedFd;
/// use wormhole::{Error, Listener, Sender};
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("server");
/// let fd = OwnedFd::try_from(Listener::<u32>::bind(&path)?)?; // usually of the service manager
///
/// let listener = Listener::<u32>::try_from(fd)?;
/// Sender::connect(&path)?.send(5)?;
/// assert_eq!(listener.accept()?.0.recv()?, 5);
/// drop(listener);
/// assert!(path.exists());
///
/// let file = OwnedFd::from(std::fs::File::open("/dev/null")?);
/// assert!(matches!(Listener::<u32>::try_from(file), Err(Error::NotAChannel { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<T> TryFrom<OwnedFd> for Listener<T> {
    type Error = Error;

    fn try_from(fd: OwnedFd) -> Result<Self> {
        Self::adopt(fd)
    }
}

impl<T> Serialize for Listener<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fields::carry_end(serializer, self.end.socket(), Some(&self.given))
    }
}

impl<T> fmt::Debug for Listener<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("fd", &self.as_raw_fd())
            .field("file", &self.file)
            .finish()
    }
}

/// Blocking iterator over the clients of a listener: [`Listener::incoming`].
#[derive(Clone, Debug)]
pub struct Incoming<'a, T> {
    listener: &'a Listener<T>,
}

impl<T> Iterator for Incoming<'_, T> {
    type Item = Result<(Receiver<T>, Peer)>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept())
    }
}

impl<T> FusedIterator for Incoming<'_, T> {} // it never ends

impl<'a, T> IntoIterator for &'a Listener<T> {
    type Item = Result<(Receiver<T>, Peer)>;
    type IntoIter = Incoming<'a, T>;

    fn into_iter(self) -> Incoming<'a, T> {
        self.incoming()
    }
}
