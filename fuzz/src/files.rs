//! Descriptors of all kinds, and which are open.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::{
    MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create, open,
};
use rustix::io::pwrite;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::messages::{Inode, inode};

/// What may come in place of a descriptor that somebody expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A memfd with the rest of the text, as it should be.
    Rest,
    /// The same, sealed against everything: a blob as well.
    SealedRest,
    RestWithoutLastByte,
    RestAndAByte,
    WriteOnlyRest,
    EmptyMemfd,
    SparseMemfd,
    Blob,
    EmptyBlob,
    FutureWriteSealed,
    End,
    UnconnectedSeqpacket,
    Stream,
    Datagram,
    PipeReader,
    PipeWriter,
    RegularFile,
    Directory,
    Null,
    Zero,
    Epoll,
    Eventfd,
    Path,
}

impl Kind {
    pub const ALL: [Kind; 23] = [
        Kind::Rest,
        Kind::SealedRest,
        Kind::RestWithoutLastByte,
        Kind::RestAndAByte,
        Kind::WriteOnlyRest,
        Kind::EmptyMemfd,
        Kind::SparseMemfd,
        Kind::Blob,
        Kind::EmptyBlob,
        Kind::FutureWriteSealed,
        Kind::End,
        Kind::UnconnectedSeqpacket,
        Kind::Stream,
        Kind::Datagram,
        Kind::PipeReader,
        Kind::PipeWriter,
        Kind::RegularFile,
        Kind::Directory,
        Kind::Null,
        Kind::Zero,
        Kind::Epoll,
        Kind::Eventfd,
        Kind::Path,
    ];
}

/// A descriptor, and all that the model has to know of it.
#[derive(Debug)]
pub struct File {
    pub fd: OwnedFd,
    pub kind: Kind,
    pub inode: Inode,
    /// What the file holds, if it is a memfd.
    pub memory: Option<Vec<u8>>,
}

const ALL_SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::GROW)
    .union(SealFlags::SHRINK)
    .union(SealFlags::SEAL);

/// A size that no test would like to be given as memory.
const SPARSE: usize = 1 << 19;

impl File {
    /// Opens a file of a kind. `rest` is the text that a packet lacks.
    pub fn open(kind: Kind, rest: &[u8]) -> Self {
        let memory = match kind {
            Kind::Rest | Kind::SealedRest | Kind::WriteOnlyRest => Some(rest.to_vec()),
            Kind::RestWithoutLastByte => Some(rest[..rest.len().saturating_sub(1)].to_vec()),
            Kind::RestAndAByte => Some([rest, b" "].concat()),
            Kind::EmptyMemfd | Kind::EmptyBlob => Some(Vec::new()),
            Kind::SparseMemfd => Some(vec![0; SPARSE]),
            Kind::Blob | Kind::FutureWriteSealed => Some(b"immutable".to_vec()),
            _ => None,
        };
        let fd = match &memory {
            Some(contents) => memfd(kind, contents),
            None => other(kind),
        };
        let inode = inode(&fd);
        File {
            fd,
            kind,
            inode,
            memory,
        }
    }

    pub fn is_readable(&self) -> bool {
        self.kind != Kind::WriteOnlyRest
    }

    pub fn is_blob(&self) -> bool {
        matches!(self.kind, Kind::SealedRest | Kind::Blob | Kind::EmptyBlob)
    }

    pub fn is_end(&self) -> bool {
        self.kind == Kind::End
    }
}

fn memfd(kind: Kind, contents: &[u8]) -> OwnedFd {
    let memfd = memfd_create("fuzz", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    if kind == Kind::SparseMemfd {
        ftruncate(&memfd, contents.len() as u64).unwrap();
    } else {
        assert_eq!(pwrite(&memfd, contents, 0), Ok(contents.len()));
    }
    match kind {
        Kind::SealedRest | Kind::Blob | Kind::EmptyBlob => {
            fcntl_add_seals(&memfd, ALL_SEALS).unwrap()
        }
        Kind::FutureWriteSealed => {
            let seals = SealFlags::FUTURE_WRITE | SealFlags::GROW | SealFlags::SHRINK;
            fcntl_add_seals(&memfd, seals).unwrap();
        }
        Kind::WriteOnlyRest => {
            let path = format!("/proc/self/fd/{}", memfd.as_raw_fd());
            return open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        }
        _ => {}
    }
    memfd
}

fn other(kind: Kind) -> OwnedFd {
    let file = |path: &str, flags| open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let pair = |kind| {
        socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
            .unwrap()
            .0
    };
    match kind {
        Kind::UnconnectedSeqpacket => {
            let flags = SocketFlags::CLOEXEC;
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
        }
        Kind::End => pair(SocketType::SEQPACKET),
        Kind::Stream => pair(SocketType::STREAM),
        Kind::Datagram => pair(SocketType::DGRAM),
        Kind::PipeReader => pipe_with(PipeFlags::CLOEXEC).unwrap().0,
        Kind::PipeWriter => pipe_with(PipeFlags::CLOEXEC).unwrap().1,
        // Not in a tmpfs, whose files are files in memory.
        Kind::RegularFile => file("/proc/self/status", OFlags::RDONLY),
        Kind::Directory => file("/", OFlags::RDONLY),
        Kind::Null => file("/dev/null", OFlags::RDWR),
        Kind::Zero => file("/dev/zero", OFlags::RDWR),
        Kind::Epoll => epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(),
        Kind::Eventfd => eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
        Kind::Path => file("/", OFlags::PATH),
        _ => unreachable!("{kind:?} is a memfd"),
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The numbers of the open descriptors below 1024, found by one system call.
pub fn open_descriptors() -> Vec<i32> {
    let mut fds: Vec<libc::pollfd> = (0..1024)
        .map(|fd| libc::pollfd {
            fd,
            events: 0,
            revents: 0,
        })
        .collect();
    // SAFETY: the pointer is to that many structures.
    #[allow(
        unsafe_code,
        reason = "numbers of descriptors that may be closed are no `BorrowedFd`s"
    )]
    let polled = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, 0) };
    assert!(polled >= 0);
    fds.retain(|fd| fd.revents & libc::POLLNVAL == 0);
    fds.iter().map(|fd| fd.fd).collect()
}
