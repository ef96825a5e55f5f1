//! Sockets that have a name: to listen at it, to connect to it.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{Mode, fchmod};
#[cfg(any(feature = "tokio", feature = "async-io"))]
use rustix::io::ioctl_fionbio;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, shutdown, socket_with, sockopt,
};

use super::peer::{Peer, credentials};
use super::socket::{Socket, events, set_buffer};
use crate::error::{Error, Result};
use crate::options::BufferSize;
use crate::wait::Wait;

/// The longest name. `sun_path` has 108 bytes, one of which is the NUL that ends a path, or that begins an
/// abstract name.
const MAX_NAME: usize = 107;

/// The name of a listening socket, checked.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    raw: SocketAddrUnix,
    /// For people. An abstract name has `\0` before it, as it is written in a program. Not an `@`: that can begin a
    /// path.
    text: String,
}

impl Address {
    /// Checks a path, or an abstract name, which is one that begins with a NUL.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let bytes = path.as_os_str().as_bytes();
        let (text, name) = match bytes.strip_prefix(b"\0") {
            Some(name) => (format!("\\0{}", String::from_utf8_lossy(name)), name),
            None => (path.display().to_string(), bytes),
        };
        let refused = |reason: String| {
            Err(Error::Address {
                operation: "use",
                address: text.clone(),
                source: io::Error::new(ErrorKind::InvalidInput, reason),
            })
        };
        // KERNEL: unix(7): an empty name would ask the kernel to choose one.
        if name.is_empty() {
            return refused("the name of a socket cannot be empty".to_owned());
        }
        if name.len() > MAX_NAME {
            return refused(format!(
                "the name of a socket has at most {MAX_NAME} bytes, this one has {}",
                name.len()
            ));
        }
        let raw = if name.len() < bytes.len() {
            SocketAddrUnix::new_abstract_name(name)
        } else {
            SocketAddrUnix::new(name)
        };
        match raw {
            Ok(raw) => Ok(Address { raw, text }),
            Err(_) => refused("a path cannot contain NUL".to_owned()),
        }
    }

    pub(crate) fn is_abstract(&self) -> bool {
        self.raw.abstract_name().is_some()
    }

    pub(crate) fn error(&self, operation: &'static str, source: impl Into<io::Error>) -> Error {
        Error::Address {
            operation,
            address: self.text.clone(),
            source: source.into(),
        }
    }

    /// Whether some process has a socket of this name, be it listening or about to.
    pub(crate) fn is_in_use(&self) -> Result<bool, Errno> {
        // KERNEL: connecting to a socket of another type fails as soon as the kernel has found it, so the
        // listener does not notice (`a_live_listener_is_not_replaced_and_not_disturbed`).
        let probe = unconnected(SocketType::DGRAM, SocketFlags::NONBLOCK)?;
        match retry_on_intr(|| connect(&probe, &self.raw)) {
            Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
            Ok(()) | Err(Errno::PROTOTYPE | Errno::AGAIN) => Ok(true),
            Err(errno) => Err(errno),
        }
    }
}

fn unconnected(kind: SocketType, flags: SocketFlags) -> Result<OwnedFd, Errno> {
    socket_with(
        AddressFamily::UNIX,
        kind,
        SocketFlags::CLOEXEC | flags,
        None,
    )
}

impl Socket {
    /// Makes a socket that is to listen. It never blocks. Those that it accepts wait as `spin` says.
    pub(crate) fn unbound(spin: Duration) -> Result<Self, Errno> {
        // `accept` has no flag for a single call, as `recvmsg` has. So this socket, which only this
        // library's `accept` uses, does not block from its creation on.
        let socket = unconnected(SocketType::SEQPACKET, SocketFlags::NONBLOCK)?;
        // KERNEL: bind(2) makes the file with the mode of the socket's own inode, less the umask, so it
        // never is open to others (`the_socket_file_is_the_owners_alone`).
        fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        Ok(Socket::with_spin(socket, spin))
    }

    /// Takes over a listening socket that came from elsewhere, after checking what it is.
    pub(crate) fn adopt_listening(fd: OwnedFd) -> Result<Self> {
        Self::check_kind(fd.as_fd())?;
        let failed = |errno| Error::io("look up the state of a socket", errno);
        let refused = |reason: &str| {
            Err(Error::NotAChannel {
                reason: reason.to_owned(),
            })
        };
        if !sockopt::socket_acceptconn(&fd).map_err(failed)? {
            return refused("a unix socket that does not listen");
        }
        Ok(Socket::new(fd))
    }

    pub(crate) fn bind(&self, address: &Address) -> Result<(), Errno> {
        bind(self, &address.raw)
    }

    pub(crate) fn listen(&self) -> Result<(), Errno> {
        // KERNEL: listen(2) cuts the number to net.core.somaxconn.
        listen(self, i32::MAX)
    }

    /// Takes the next connection that is waiting, or says `AGAIN`.
    pub(crate) fn accept(&self) -> Result<(Socket, Peer), Errno> {
        // A process that shares the socket may have made it one that blocks. Then this waits only if another process takes
        // the connection in between.
        let can_ask = events(self.as_fd(), PollFlags::IN);
        if can_ask.is_ok_and(|now| now.is_empty()) {
            return Err(Errno::AGAIN);
        }
        let connection = loop {
            match accept_with(self, SocketFlags::CLOEXEC) {
                Err(Errno::CONNABORTED) => {} // that client has left: on to the next one
                accepted => break accepted?,
            }
        };
        // As for a pair: what arrives here is one-way.
        shutdown(&connection, Shutdown::Write)?;
        let peer = credentials(&connection)?;
        Ok((Socket::with_spin(connection, self.spin.limit()), peer))
    }

    /// Tells whether it was this process, not one that it is a fork of, that made the socket listen.
    pub(crate) fn listens_for_this_process(&self) -> bool {
        // KERNEL: listen(2) notes its caller for SO_PEERCRED, unix(7). Unlike a pid kept in memory
        // that tells a parent from a child which has the same number in a namespace of its own.
        credentials(self).is_ok_and(|listening| listening.pid == Some(std::process::id()))
    }

    /// Connects, or says `None` while the queue of connections is full.
    #[cfg(any(feature = "tokio", feature = "async-io"))]
    pub(crate) fn try_connect(
        address: &Address,
        buffer: BufferSize,
        spin: Duration,
    ) -> Result<Option<Self>> {
        let failed = |errno: Errno| address.error("connect to", errno);
        // No other process shares this socket before it is connected, so until then it may be one that does not block.
        let socket = unconnected(SocketType::SEQPACKET, SocketFlags::NONBLOCK).map_err(failed)?;
        set_buffer(&socket, buffer)?;
        // KERNEL: connect(2): a unix socket connects at once or, without room in the queue, not at all (EAGAIN).
        match retry_on_intr(|| connect(&socket, &address.raw)) {
            Ok(()) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        }
        ioctl_fionbio(&socket, false).map_err(failed)?;
        Ok(Some(Socket::with_spin(socket, spin)))
    }

    /// Connects, waiting while the queue of connections is full.
    pub(crate) fn connect(
        address: &Address,
        wait: Wait,
        buffer: BufferSize,
        spin: Duration,
    ) -> Result<Self> {
        let failed = |errno: Errno| address.error("connect to", errno);
        let socket = unconnected(SocketType::SEQPACKET, SocketFlags::empty()).map_err(failed)?;
        set_buffer(&socket, buffer)?;
        // No other process shares this socket yet, so it may have a timeout for a moment.
        let set_timeout = |timeout| {
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, timeout).map_err(failed)
        };
        loop {
            let left = match wait {
                Wait::Until { deadline, .. } => {
                    Some(deadline.saturating_duration_since(Instant::now()))
                }
                Wait::Never => Some(Duration::ZERO),
                Wait::Forever => None,
            };
            // KERNEL: polling tells nothing about another socket's queue, but SO_SNDTIMEO limits the wait
            // of connect(2) for room in it (`connecting_to_a_full_queue_times_out`). Zero would mean
            // forever.
            let timeout = left.map(|left| left.max(Duration::from_micros(1)));
            if timeout.is_some() {
                set_timeout(timeout)?;
            }
            match connect(&socket, &address.raw) {
                Ok(()) => {
                    if timeout.is_some() {
                        set_timeout(None)?;
                    }
                    return Ok(Socket::with_spin(socket, spin));
                }
                // KERNEL: a unix socket that was interrupted here has not begun to connect.
                Err(Errno::INTR | Errno::AGAIN) if left != Some(Duration::ZERO) => {}
                Err(Errno::INTR | Errno::AGAIN) => {
                    return Err(Error::TimedOut {
                        operation: "connect to a listener",
                        after: wait.length(),
                    });
                }
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
}
