//! `wormholectl run` and `wormholectl take`: values that programs are started with.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Command};
use std::time::{Duration, Instant};

use clap::ArgMatches;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::de::IgnoredAny;
use wormhole::{Error, Options, Raw, Receiver, Sender, channel, inherit, spawn};

use crate::address::{Address, FIRST_FD, FdArgument};
use crate::args::{Run, Take};
use crate::descriptors::{as_stdin, hand_over, inherited, open};
use crate::failure::{Failure, Outcome, Status};
use crate::inbox::count_of;
use crate::interrupt::Door;
use crate::outbox::{self, message, message_of};
use crate::output::write_line;
use crate::receive::receiver;
use crate::text;

/// What names the descriptor on which the value waits.
const VARIABLE: &str = "WORMHOLE_FD";

/// Something to hand over, in the order of the command line.
enum Part<'a> {
    Fd(&'a FdArgument),
    Sender(&'a Address),
    Receiver(&'a Address),
}

impl Part<'_> {
    /// The inherited descriptor that it stands for.
    fn number(&self) -> Option<i32> {
        match self {
            Part::Fd(FdArgument::Number(number))
            | Part::Sender(Address::Fd(number))
            | Part::Receiver(Address::Fd(number)) => Some(*number),
            _ => None,
        }
    }
}

/// `matches` knows the order in which the options came.
pub(crate) fn run(args: &Run, matches: &ArgMatches) -> Outcome {
    let mut parts = Vec::new();
    let places = |id| matches.indices_of(id).into_iter().flatten();
    parts.extend(places("fd").zip(args.fds.fd.iter().map(Part::Fd)));
    parts.extend(places("sender").zip(args.sender.iter().map(Part::Sender)));
    parts.extend(places("receiver").zip(args.receiver.iter().map(Part::Receiver)));
    parts.sort_by_key(|(place, _)| *place);
    let parts: Vec<_> = parts.into_iter().map(|(_, part)| part).collect();

    let (sender, receiver) = foreign_channel()?; // while there is one thread
    let numbers: Vec<_> = parts.iter().filter_map(Part::number).collect();
    let mut inherited = inherited(&numbers)?.into_iter();
    // A value that is no JSON should not wait for anybody.
    let text = match &args.value {
        Some(value) => {
            message_of(value, Vec::new())?;
            value.clone()
        }
        None => all_of(parts.len()),
    };
    let fds = collect(&parts, &mut inherited, args)?;
    let value = message(text.as_encoded_bytes(), fds)?;

    // KERNEL: one message fits an empty channel, however long it is.
    sender.send(value)?;
    drop(sender);
    let mut command = command(&args.command)?;
    command.env(VARIABLE, FIRST_FD.to_string());
    replace_by(command, vec![OwnedFd::try_from(receiver)?], &args.command)
}

/// A channel that another process has made, which is over.
///
/// The program that is to inherit from it has this process's id, and `inherit` refuses what its own process has made.
fn foreign_channel() -> Outcome<(Sender<Raw>, Receiver<Raw>)> {
    let made = spawn((), |()| {
        channel::<Raw>().map_err(|error| format!("{error:#}"))
    })?
    .join()?;
    made.map_err(|reason| Failure::new(Status::System, reason))
}

/// The list of all descriptors, or `null`.
fn all_of(count: usize) -> OsString {
    if count == 0 {
        return "null".into();
    }
    let indices: Vec<_> = (0..count).map(|index| index.to_string()).collect();
    format!("[{}]", indices.join(",")).into()
}

fn collect(
    parts: &[Part<'_>],
    inherited: &mut impl Iterator<Item = OwnedFd>,
    args: &Run,
) -> Outcome<Vec<OwnedFd>> {
    // All at once, so that clients can come in any order.
    let door_of = |part: &Part<'_>| match part {
        Part::Receiver(address @ Address::Name(_)) => {
            Door::bind(address, &Options::new()).map(Some)
        }
        _ => Ok(None),
    };
    let doors: Vec<_> = parts.iter().map(door_of).collect::<Outcome<_>>()?;
    let mut fds = Vec::new();
    for (part, door) in parts.iter().zip(doors) {
        match *part {
            Part::Fd(argument) => fds.extend(open(std::slice::from_ref(argument), inherited)?),
            Part::Sender(address) => {
                let sender = outbox::connect(address, inherited, args.wait, args.timeout)?;
                fds.push(sender.try_into()?);
            }
            Part::Receiver(address) => {
                let receiver = match door {
                    Some(door) => Some(first_client(address, &door, args.timeout)?),
                    None => inherited
                        .next()
                        .map(|fd| receiver(address, fd))
                        .transpose()?,
                };
                fds.extend(receiver.map(OwnedFd::try_from).transpose()?);
            }
        }
    }
    Ok(fds)
}

fn first_client(
    address: &Address,
    door: &Door,
    timeout: Option<Duration>,
) -> Outcome<Receiver<Raw>> {
    let begin = Instant::now();
    loop {
        match door.try_accept() {
            Ok((receiver, _)) => return Ok(receiver),
            Err(Error::Empty) => {}
            Err(error) => return Err(Failure::from(error).of(address)),
        }
        let left = timeout.map(|timeout| timeout.saturating_sub(begin.elapsed()));
        if let (Some(Duration::ZERO), Some(timeout)) = (left, timeout) {
            let sentence = format!("nobody connected to {address} within {timeout:?}");
            return Err(Failure::new(Status::TimedOut, sentence));
        }
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut polled = [PollFd::from_borrowed_fd(
            door.polled().as_fd(),
            PollFlags::IN,
        )];
        match poll(&mut polled, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::system("wait for a client", errno)),
        }
    }
}

/// Takes the value that was handed to this program.
pub(crate) fn take(args: &Take) -> Outcome {
    let value: Raw = inherit().map_err(|error| match error {
        Error::Decode { .. } | Error::Malformed { .. } | Error::TooLarge { .. } => {
            Failure::new(Status::BadMessage, format!("the value is lost: {error:#}"))
        }
        error => error.into(),
    })?;
    let mut line = Vec::new();
    text::push_line(&mut line, value.text());
    if args.command.is_empty() {
        if !value.fds().is_empty() {
            let count = count_of(value.fds().len(), "descriptor");
            let sentence = format!(
                "the value has {count}, which a line cannot carry: closed (give them to a command: \
                 wormholectl take -- COMMAND)"
            );
            return Err(Failure::new(Status::BadMessage, sentence));
        }
        write_line(&line)?;
        return Ok(0);
    }
    let (IgnoredAny, fds) = value.decode_with_fds()?;
    let mut command = command(&args.command)?;
    let stdin = as_stdin(&line).map_err(|error| Failure::system("make a file in memory", error))?;
    command.stdin(stdin).env_remove(VARIABLE);
    command.env("LISTEN_FDS", fds.len().to_string());
    command.env("LISTEN_PID", process::id().to_string());
    replace_by(command, fds, &args.command)
}

fn command(words: &[OsString]) -> Outcome<Command> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Failure::new(Status::Usage, "there is no command to run"));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// Puts a program in the place of this one. Returns if that fails.
fn replace_by(mut command: Command, fds: Vec<OwnedFd>, words: &[OsString]) -> Outcome {
    let program = words
        .first()
        .map(|word| word.display().to_string())
        .unwrap_or_default();
    let error = match hand_over(&mut command, fds) {
        Ok(_handover) => command.exec(),
        Err(error) => return Err(Failure::system("place descriptors", error)),
    };
    let status = match error.kind() {
        ErrorKind::NotFound => 127,
        _ => 126,
    };
    Err(Failure::with_status(
        status,
        format!("cannot run {program}: {error}"),
    ))
}
