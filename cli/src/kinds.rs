//! What kind of thing a descriptor is, in a word or two.

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

use crate::text;

/// Characters of a name that are shown.
const NAME: usize = 60;

pub(crate) fn kind_of(fd: BorrowedFd<'_>) -> String {
    let Ok(stat) = fstat(fd) else {
        return "unknown".to_owned();
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => socket(fd),
        FileType::Fifo => "pipe".to_owned(),
        FileType::Directory => named("directory", fd),
        FileType::CharacterDevice => named("device", fd),
        FileType::BlockDevice => named("block device", fd),
        _ => file(fd),
    }
}

/// What /proc calls it.
fn name(fd: BorrowedFd<'_>) -> Option<String> {
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
    Some(text::excerpt(link.as_os_str().as_encoded_bytes(), NAME))
}

fn named(kind: &str, fd: BorrowedFd<'_>) -> String {
    match name(fd) {
        Some(name) => format!("{kind} {name}"),
        None => kind.to_owned(),
    }
}

fn file(fd: BorrowedFd<'_>) -> String {
    let Some(name) = name(fd) else {
        return "file".to_owned();
    };
    if name.starts_with("/memfd:") {
        return "memfd".to_owned();
    }
    match name.strip_prefix("anon_inode:") {
        Some(kind) => kind.trim_matches(['[', ']']).to_owned(),
        None => format!("file {name}"),
    }
}

fn socket(fd: BorrowedFd<'_>) -> String {
    let domain = socket_domain(fd).ok();
    let kind = match socket_type(fd) {
        Ok(SocketType::STREAM) => "stream",
        Ok(SocketType::DGRAM) => "datagram",
        Ok(SocketType::SEQPACKET) => "seqpacket",
        _ => "other",
    };
    let is_listening = socket_acceptconn(fd) == Ok(true);
    match domain {
        Some(AddressFamily::UNIX) if kind == "seqpacket" && !is_listening => end_of_channel(fd),
        Some(AddressFamily::UNIX) if is_listening => format!("listening {kind} socket"),
        Some(AddressFamily::UNIX) => format!("{kind} socket"),
        Some(AddressFamily::INET | AddressFamily::INET6) => format!("{kind} socket of the network"),
        _ => "socket".to_owned(),
    }
}

fn end_of_channel(fd: BorrowedFd<'_>) -> String {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::RDHUP)];
    let events = match poll(&mut polled, Some(&Timespec::default())) {
        Ok(_) => polled
            .first()
            .map(PollFd::revents)
            .unwrap_or(PollFlags::HUP),
        Err(_) => PollFlags::HUP,
    };
    // KERNEL: of a one-way channel, the sending socket cannot read, and says so for as long as its peer lives.
    let end = if events.contains(PollFlags::HUP) {
        "channel end, closed at the other side"
    } else if events.contains(PollFlags::RDHUP) {
        "sender"
    } else {
        "receiver"
    };
    end.to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    #[test]
    fn descriptors_have_kinds() {
        let (tx, rx) = wormhole::channel::<u32>().unwrap();
        assert_eq!(
            (kind_of(tx.as_fd()), kind_of(rx.as_fd())),
            ("sender".into(), "receiver".into())
        );
        drop(rx);
        assert_eq!(kind_of(tx.as_fd()), "channel end, closed at the other side");
        let (stream, _) = UnixStream::pair().unwrap();
        assert_eq!(kind_of(stream.as_fd()), "stream socket");
        assert_eq!(
            kind_of(UnixDatagram::unbound().unwrap().as_fd()),
            "datagram socket"
        );
        let (pipe, _) = std::io::pipe().unwrap();
        assert_eq!(kind_of(pipe.as_fd()), "pipe");
        let blob = wormhole::Blob::from_bytes(b"x").unwrap();
        assert_eq!(kind_of(blob.as_fd()), "memfd");
        assert_eq!(
            kind_of(File::open("/dev/null").unwrap().as_fd()),
            "device /dev/null"
        );
        assert_eq!(kind_of(File::open("/").unwrap().as_fd()), "directory /");
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(
            kind_of(file.as_fd()),
            format!("file {}", file.path().display())
        );
        let listener = wormhole::Listener::<u32>::bind("\0wormhole kinds").unwrap();
        assert_eq!(kind_of(listener.as_fd()), "listening seqpacket socket");
    }
}
