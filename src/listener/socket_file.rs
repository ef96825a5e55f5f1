//! The file of a listening socket: taken when its name is free or stale, removed by the process that took it.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Error, Result};
use crate::sys::address::Address;
use crate::sys::socket::Socket;

/// The file that a socket is bound to.
#[derive(Debug)]
pub(crate) struct SocketFile {
    /// Absolute, because the working directory may change.
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl SocketFile {
    /// Binds `socket` to a path. A socket file there that no process uses any more is replaced.
    pub(crate) fn bind(socket: &Socket, address: &Address, path: &Path) -> Result<Self> {
        let failed = |source: io::Error| address.error("listen at", source);
        let path = std::path::absolute(path).map_err(failed)?;
        match socket.bind(address) {
            Err(Errno::ADDRINUSE) => {
                // Two processes could find the same file stale, and the slower one remove what the faster
                // one has just bound. A name that is free needs no lock: bind(2) takes it or fails.
                let _lock = Lock::take(&path, &failed)?;
                remove_if_stale(address, &path).map_err(failed)?;
                socket.bind(address)
            }
            bound => bound,
        }
        .map_err(|errno| failed(errno.into()))?;
        match fs::symlink_metadata(&path) {
            Ok(bound) => Ok(SocketFile {
                id: identity(&bound),
                path,
            }),
            Err(error) => {
                let _ = fs::remove_file(&path); // bound just now, so it is this socket's
                Err(failed(error))
            }
        }
    }

    /// Removes the file, unless it is another one by now. To be called while its socket is open: until then
    /// no process takes the file for stale, and no other file gets its inode number.
    pub(crate) fn remove(&self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.id) {
            let _ = fs::remove_file(&self.path); // what cannot be removed is stale
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Makes way for a new socket, or says what is in the way.
fn remove_if_stale(address: &Address, path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => {
            let reason = "a file that is not a socket is there";
            return Err(io::Error::new(ErrorKind::AlreadyExists, reason));
        }
    }
    if address.is_in_use()? {
        return Err(Errno::ADDRINUSE.into());
    }
    fs::remove_file(path)
}

/// The right to replace a socket file, of one process at a time.
///
/// It is a lock (flock(2)) on a file beside it, which exists only meanwhile. If the holder is killed the
/// lock is gone, and the file left over does no harm.
struct Lock {
    path: PathBuf,
    file: OwnedFd,
}

impl Lock {
    /// Never waits: the process that holds the lock is about to listen, and says that the name is in use.
    ///
    /// What is wrong with the lock itself `failed` makes an error of; one that cannot be opened, because it is another
    /// user's for instance, is named.
    fn take(socket_file: &Path, failed: &dyn Fn(io::Error) -> Error) -> Result<Self> {
        let mut path = socket_file.as_os_str().to_owned();
        path.push(".wormhole-lock");
        let path = PathBuf::from(path);
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        loop {
            // Others may not even open it, so they cannot hold the lock.
            let file = retry_on_intr(|| open(&path, flags, Mode::RUSR | Mode::WUSR));
            let file = file.map_err(|errno| Error::Address {
                operation: "open the lock file",
                address: path.display().to_string(),
                source: errno.into(),
            })?;
            let failed = |errno: Errno| failed(errno.into());
            match retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
                Err(Errno::WOULDBLOCK) => return Err(failed(Errno::ADDRINUSE)),
                locked => locked.map_err(failed)?,
            }
            // The holder before may have removed it between the two calls.
            if fstat(&file).map_err(failed)?.st_nlink > 0 {
                return Ok(Lock { path, file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // still locked, so still the holder's own
        // To close it is not enough: a process that was forked meanwhile has a copy.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}
