//! What `send`, `call` and `run` share: connecting, and messages from texts.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use wormhole::{Error, Raw, Sender};

use crate::address::Address;
use crate::failure::{Failure, Outcome, Status};
use crate::text;

/// How long to wait before looking for a listener once more: at first, and at most.
const FIRST_RETRY: Duration = Duration::from_millis(1);
const LAST_RETRY: Duration = Duration::from_millis(64);

/// Connects, or takes the descriptor, which is the next of `inherited` then.
pub(crate) fn connect(
    address: &Address,
    inherited: &mut impl Iterator<Item = OwnedFd>,
    wait: bool,
    timeout: Option<Duration>,
) -> Outcome<Sender<Raw>> {
    let failed = |error| Failure::at(address, error);
    match address {
        Address::Name(path) => match wait {
            true => connect_to_late(path, timeout).map_err(failed),
            false => connect_within(path, timeout).map_err(failed),
        },
        Address::Fd(_) => {
            let fd = inherited
                .next()
                .ok_or(Error::Disconnected)
                .map_err(failed)?;
            Sender::try_from(fd).map_err(failed)
        }
    }
}

fn connect_within(path: &Path, timeout: Option<Duration>) -> wormhole::Result<Sender<Raw>> {
    match timeout {
        Some(timeout) => Sender::connect_timeout(path, timeout),
        None => Sender::connect(path),
    }
}

/// Waits for somebody to listen.
fn connect_to_late(path: &Path, timeout: Option<Duration>) -> wormhole::Result<Sender<Raw>> {
    let begin = Instant::now();
    let mut pause = FIRST_RETRY;
    loop {
        let left = timeout.map(|timeout| timeout.saturating_sub(begin.elapsed()));
        match connect_within(path, left) {
            Err(Error::Address { source, .. })
                if matches!(
                    source.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused
                ) => {}
            connected => return connected,
        }
        if let (Some(Duration::ZERO), Some(after)) = (left, timeout) {
            let operation = "connect: nobody listens there";
            return Err(Error::TimedOut { operation, after });
        }
        thread::sleep(left.map_or(pause, |left| pause.min(left)));
        pause = (pause * 2).min(LAST_RETRY);
    }
}

/// A message of a text, which is checked, and not changed.
pub(crate) fn message(text: &[u8], fds: Vec<OwnedFd>) -> Outcome<Raw> {
    let bad = |reason: String| Failure::new(Status::BadLine, format!("not JSON: {reason}"));
    let text = std::str::from_utf8(text).map_err(|error| {
        let column = error.valid_up_to() + 1;
        bad(format!("not UTF-8 at column {column}"))
    })?;
    let message = Raw::from_parts(text.to_owned(), fds)?;
    text::check(message.text()).map_err(bad)?;
    Ok(message)
}

/// A message of an argument.
pub(crate) fn message_of(argument: &OsStr, fds: Vec<OwnedFd>) -> Outcome<Raw> {
    message(argument.as_bytes(), fds).map_err(|failure| failure.of("the message"))
}

/// How long to wait for room in the channel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    Endless,
    None,
    AtMost(Duration),
}

impl Patience {
    pub(crate) fn of(timeout: Option<Duration>) -> Self {
        timeout.map_or(Patience::Endless, Patience::AtMost)
    }
}

pub(crate) fn send(sender: &Sender<Raw>, message: Raw, patience: Patience) -> Outcome<()> {
    let sent = match patience {
        Patience::Endless => sender.send(message),
        Patience::None => sender.try_send(message),
        Patience::AtMost(timeout) => sender.send_timeout(message, timeout),
    };
    sent.map_err(|error| match error {
        Error::Disconnected => Failure::new(Status::Disconnected, "the receiver has gone"),
        Error::TooLarge { .. } => Failure::new(Status::BadLine, format!("{error:#}")),
        error => error.into(),
    })
}
