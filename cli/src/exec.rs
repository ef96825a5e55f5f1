//! The command of `--exec`: how it is started with a message, and what its end means.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use wormhole::Peer;

use crate::descriptors::{as_stdin, hand_over};

/// Gives a message to a command of the shell.
pub(crate) fn start(
    script: &str,
    line: &[u8],
    fds: Vec<OwnedFd>,
    peer: Option<Peer>,
) -> io::Result<Child> {
    let mut command = Command::new("/bin/sh");
    // Only the shell itself knows its process id in time.
    let script = format!("LISTEN_PID=$$; export LISTEN_PID\n{script}");
    let stdin = as_stdin(line)?;
    command.arg("-c").arg(script).stdin(stdin);
    command.env("LISTEN_FDS", fds.len().to_string());
    let pid = peer.and_then(|peer| peer.pid);
    let ids = [
        ("WORMHOLE_PEER_PID", pid.map(|pid| pid.to_string())),
        ("WORMHOLE_PEER_UID", peer.map(|peer| peer.uid.to_string())),
        ("WORMHOLE_PEER_GID", peer.map(|peer| peer.gid.to_string())),
    ];
    for (name, id) in ids {
        match id {
            Some(id) => command.env(name, id),
            // What this program was started with is about somebody else.
            None => command.env_remove(name),
        };
    }
    let _handover = hand_over(&mut command, fds)?;
    command.spawn()
}

/// The status of a command that wrote to a pipe which nobody reads.
pub(crate) const SIGPIPE: u8 = 128 + 13;

/// As shells count: 128 and the number of a signal.
pub(crate) fn status_of(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
