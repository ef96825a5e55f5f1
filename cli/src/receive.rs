//! `wormholectl listen` and `wormholectl call`.

use std::os::fd::OwnedFd;

use rustix::net::sockopt::socket_acceptconn;
use wormhole::{Options, Raw, Receiver, channel};

use crate::address::Address;
use crate::args::{Call, Listen, Use};
use crate::descriptors::{inherited, numbers, open};
use crate::failure::{Failure, Outcome, Status};
use crate::inbox::{Inbox, Plan};
use crate::interrupt::{self, Door};
use crate::outbox::{self, Patience, message_of};

pub(crate) fn listen(args: Listen) -> Outcome {
    let Use {
        exec,
        keep_going,
        limit,
    } = args.use_of;
    let plan = Plan {
        count: args.count,
        timeout: args.timeout,
        no_wait: args.no_wait,
        once: args.once,
        keep_going,
        peer: args.peer,
        exec,
        max_message: limit.max_message,
    };
    let mut inbox;
    match args.address {
        Address::Name(_) if args.no_wait => {
            let sentence = "--no-wait is for a channel that is open already, as fd:N";
            return Err(Failure::new(Status::Usage, sentence));
        }
        Address::Name(_) => {
            inbox = Inbox::new(plan)?;
            inbox.open(Door::bind(&args.address, &Options::new())?);
        }
        Address::Fd(number) => {
            let fd = inherited(&[number])?.into_iter().next();
            interrupt::watch()?;
            inbox = Inbox::new(plan)?;
            match fd {
                Some(fd) if socket_acceptconn(&fd) == Ok(true) => inbox.open(Door::adopt(fd)?),
                Some(fd) => inbox.add(receiver(&args.address, fd)?)?,
                None => {}
            }
        }
    }
    inbox.run()
}

/// The receiving end that an inherited descriptor is.
pub(crate) fn receiver(address: &Address, fd: OwnedFd) -> Outcome<Receiver<Raw>> {
    Receiver::try_from(fd).map_err(|error| Failure::at(address, error))
}

pub(crate) fn call(args: Call) -> Outcome {
    let Use {
        exec,
        keep_going,
        limit,
    } = args.use_of;
    message_of(&args.message, Vec::new())?; // before anything is opened or waited for
    let own = match args.address {
        Address::Fd(number) => Some(number),
        Address::Name(_) => None,
    };
    let named: Vec<_> = own.into_iter().chain(numbers(&args.fds.fd)).collect();
    let mut inherited = inherited(&named)?.into_iter();
    interrupt::watch()?;
    let mut sender = outbox::connect(&args.address, &mut inherited, args.wait, args.timeout)?;
    let (reply, replies) = channel::<Raw>()?;
    let mut fds = vec![OwnedFd::try_from(reply)?];
    fds.extend(open(&args.fds.fd, &mut inherited)?);
    if let Some(bytes) = limit.max_message {
        sender.set_max_message_len(bytes);
    }
    let question = message_of(&args.message, fds)?;
    outbox::send(&sender, question, Patience::of(args.timeout))?;
    let mut inbox = Inbox::new(Plan {
        count: (!args.all).then_some(args.count),
        timeout: args.timeout,
        keep_going,
        exec,
        max_message: limit.max_message,
        ..Plan::default()
    })?;
    inbox.add(replies)?;
    inbox.run()
}
