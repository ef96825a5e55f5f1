//! `wormholectl send`.

use rustix::stdio::stdin;
use wormhole::{Raw, Sender};

use crate::address::Address;
use crate::args::Send;
use crate::descriptors::{inherited, numbers, open};
use crate::failure::{Failure, Outcome, Status};
use crate::inbox::count_of;
use crate::lines::{Lines, Next};
use crate::outbox::{self, Patience, message, message_of};

/// The longest message unless it is said otherwise, as in the library.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

pub(crate) fn run(args: &Send) -> Outcome {
    if args.message.is_none() && !args.fds.fd.is_empty() {
        let sentence = "--fd needs a message on the command line: lines have no descriptors";
        return Err(Failure::new(Status::Usage, sentence));
    }
    if let Some(text) = &args.message {
        message_of(text, Vec::new())?; // before anything is opened or waited for
    }
    let own = match args.address {
        Address::Fd(number) => Some(number),
        Address::Name(_) => None,
    };
    let named: Vec<_> = own.into_iter().chain(numbers(&args.fds.fd)).collect();
    let mut inherited = inherited(&named)?.into_iter();
    let mut sender = outbox::connect(
        &args.address,
        &mut inherited,
        args.waiting.wait,
        args.waiting.timeout,
    )?;
    let fds = open(&args.fds.fd, &mut inherited)?;
    if let Some(bytes) = args.limit.max_message {
        sender.set_max_message_len(bytes);
    }
    let patience = match args.waiting.no_wait {
        true => Patience::None,
        false => Patience::of(args.waiting.timeout),
    };
    match &args.message {
        Some(text) => {
            outbox::send(&sender, message_of(text, fds)?, patience)?;
            Ok(0)
        }
        None => send_lines(args, &sender, patience),
    }
}

fn send_lines(args: &Send, sender: &Sender<Raw>, patience: Patience) -> Outcome {
    let limit = args.limit.max_message.unwrap_or(MAX_MESSAGE);
    let mut lines = Lines::new(limit);
    let (mut number, mut sent, mut status) = (0_u64, 0_usize, 0);
    loop {
        number += 1;
        let message = match lines.next(stdin(), sender)? {
            Next::End => return Ok(status),
            Next::Gone => {
                let sent = count_of(sent, "message");
                let sentence = format!("the receiver has gone, {sent} had been sent");
                return Err(Failure::new(Status::Disconnected, sentence));
            }
            Next::TooLong(len) => {
                let sentence =
                    format!("message of {len} bytes is longer than the limit of {limit} bytes");
                Err(Failure::new(Status::BadLine, sentence))
            }
            Next::Line(line) if line.trim_ascii().is_empty() => continue,
            Next::Line(line) => message(line, Vec::new()),
        };
        let result = message.and_then(|message| outbox::send(sender, message, patience));
        match result.map_err(|failure| failure.of(format_args!("line {number}"))) {
            Ok(()) => sent += 1,
            Err(failure) if args.keep_going && failure.status == Status::BadLine as u8 => {
                failure.report();
                status = failure.status;
            }
            Err(failure) => return Err(failure),
        }
    }
}
