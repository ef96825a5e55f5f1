//! The contenders.
//!
//! To add one: a file here that implements [`Carrier`] for the loads that it can carry, and a line in the
//! entries of the work items in `work`.

pub(crate) mod awaited;
pub(crate) mod ipc_channel;
pub(crate) mod json_lines;
pub(crate) mod procspawn;
pub(crate) mod python;
pub(crate) mod raw;
pub(crate) mod threads;
pub(crate) mod tiny_nix_ipc;
pub(crate) mod unix_ipc;
pub(crate) mod wormhole;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;

use anyhow::ensure;
use nix::sys::stat::fstat;

use crate::Outcome;

/// The names of the contenders.
pub(crate) const WORMHOLE: &str = "wormhole";
pub(crate) const RAW: &str = "raw socket";
pub(crate) const IPC_CHANNEL: &str = "ipc-channel";
pub(crate) const UNIX_IPC: &str = "unix-ipc";
pub(crate) const TINY_NIX_IPC: &str = "tiny-nix-ipc";
pub(crate) const JSON_LINES: &str = "JSON lines";
pub(crate) const PYTHON: &str = "Python Pipe";
pub(crate) const WORMHOLE_PYTHON: &str = "wormhole, Python to Rust";
pub(crate) const THREADS: &str = "mpsc (threads)";
/// And of those that only start processes.
pub(crate) const RAW_FORK: &str = "raw fork";
pub(crate) const THREAD: &str = "std thread";
pub(crate) const FRESH_CHILD: &str = "wormhole, fresh child";
pub(crate) const PROCSPAWN: &str = "procspawn";
pub(crate) const PYTHON_PROCESS: &str = "Python Process";
/// And of those that have workers.
pub(crate) const BY_HAND: &str = "channels by hand";
pub(crate) const FRESH: &str = "fresh workers";
pub(crate) const PYTHON_POOL: &str = "ProcessPoolExecutor";

/// What a receive gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// The message that was expected.
    Message,
    /// No sender is left.
    End,
}

impl Got {
    /// The result of comparing what came with what was expected.
    pub(crate) fn checked(same: bool) -> Outcome<Self> {
        ensure!(same, "something else arrived than was sent");
        Ok(Got::Message)
    }
}

/// A contender as a carrier of loads of type `L` from one side to another.
pub(crate) trait Carrier<L> {
    /// The sending end.
    type Tx: Send;
    /// The receiving end.
    type Rx: Send;
    /// Whether its ends work between the threads of one process only.
    const IN_THREADS: bool = false;

    /// Makes a channel for loads that are equal to `load`.
    fn open(load: &L) -> Outcome<(Self::Tx, Self::Rx)>;

    /// Sends a load of its own, equal to `load`: it is made for this send.
    fn send(tx: &mut Self::Tx, load: &L) -> Outcome<()>;

    /// Receives a load, and fails unless it is equal to `load`.
    fn recv(rx: &mut Self::Rx, load: &L) -> Outcome<Got>;
}

/// Descriptors to be sent: the same file several times.
#[derive(Debug)]
pub(crate) struct Files {
    file: File,
    inode: u64,
    /// How many times.
    pub(crate) count: usize,
}

impl Files {
    /// Opens something to send `count` times.
    pub(crate) fn new(count: usize) -> io::Result<Self> {
        let file = File::open("/proc/self/exe")?;
        let inode = file.metadata()?.ino();
        Ok(Files { file, inode, count })
    }

    /// The file.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The file's number, as many times as it is to be sent.
    pub(crate) fn numbers(&self) -> Vec<RawFd> {
        vec![self.file.as_raw_fd(); self.count]
    }

    /// Whether these are the descriptors that were sent. Looks at the last one only, which is the first to be
    /// missing.
    pub(crate) fn are<F: AsFd>(&self, received: &[F]) -> bool {
        let last = received.last().and_then(|fd| fstat(fd).ok());
        received.len() == self.count && last.is_some_and(|stat| stat.st_ino == self.inode)
    }
}

/// Bytes without structure.
#[derive(Debug)]
pub(crate) struct Bulk(pub(crate) Vec<u8>);
