//! The process at the other end of a connection.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// The process that connected, according to the kernel: [`Listener::accept`](crate::Listener::accept)
/// gives it.
///
/// These are the credentials that the process had when it connected. It may have handed the connection
/// to another process since, and `pid` may by now be the number of a process that was started later.
///
/// # Examples
///
/// ```
/// use wormhole::{Listener, Sender};
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("server");
/// let listener = Listener::<u8>::bind(&path)?;
/// let _tx = Sender::<u8>::connect(&path)?;
///
/// let (_rx, peer) = listener.accept()?;
/// assert_eq!(peer.pid, Some(std::process::id()));
/// assert_ne!(peer.uid, 12_345);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Peer {
    /// Its process id. `None` if it runs in a pid namespace that this process cannot see, such as that
    /// of the host around a container.
    pub pid: Option<u32>,
    /// Its effective user id, as this process's user namespace maps it.
    pub uid: u32,
    /// Its effective group id, as this process's user namespace maps it.
    pub gid: u32,
}

/// Looks up the process that connected or, for a listening socket, the one that made it listen.
pub(crate) fn credentials(socket: impl AsFd) -> Result<Peer, Errno> {
    let mut ucred = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(|_| Errno::INVAL)?;
    // KERNEL: the pid is 0 if this process's pid namespace has no number for it. rustix's
    // `socket_peercred` knows no such pid: its answer is then an error made of the user id
    // (`a_peer_that_this_pid_namespace_cannot_see_has_no_pid`).
    // SAFETY: the descriptor is open, and the two pointers are to a `ucred` and to its size.
    #[allow(unsafe_code, reason = "no safe way to read a pid that may be 0")]
    let status = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut ucred).cast(),
            &raw mut len,
        )
    };
    if status != 0 {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(Peer {
        pid: u32::try_from(ucred.pid).ok().filter(|&pid| pid != 0),
        uid: ucred.uid,
        gid: ucred.gid,
    })
}
