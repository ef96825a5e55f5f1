//! Who takes messages: relays and consumers.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde::Serialize;
use wormhole::{Blob, spawn};

use crate::gift;
use crate::inlet::{Arrived, Got, Inlets};
use crate::ledger::{Count, ledger};
use crate::me::{Me, Op, describe, is_out_of_fds};
use crate::message::{Attached, Message, checksum};
use crate::outlet::{Outlet, Sent};
use crate::part::Output;
use crate::sabotage::Sabotage;

/// Passes on what comes. Says whether it went on to the end, rather than until nobody wanted it.
pub(crate) fn relay(me: &mut Me, mut inlets: Inlets, outputs: Vec<Output>) -> bool {
    let mut outlets: Vec<Outlet> = outputs.into_iter().map(Outlet::new).collect();
    loop {
        let mut arrived = match inlets.receive(me) {
            Got::Message(arrived) => arrived,
            Got::Lost => continue,
            Got::Over => return true,
        };
        if me.sabotages(Sabotage::Forget) {
            continue;
        }
        let beside = std::mem::take(&mut arrived.beside);
        let beside: Vec<BorrowedFd<'_>> = beside.iter().map(AsFd::as_fd).collect();
        loop {
            if outlets.is_empty() {
                ledger().add(Count::Undeliverable, 1);
                break;
            }
            let index = me.random.index(outlets.len());
            match outlets[index].send(me, &mut arrived.message, &beside) {
                Sent::Done => break,
                Sent::Over => drop(outlets.swap_remove(index)),
                Sent::Refused | Sent::NoMore => {
                    ledger().add(Count::Undeliverable, 1);
                    break;
                }
            }
        }
        arrived.finish();
        if outlets.is_empty() {
            return false;
        }
        me.rest();
    }
}

/// Uses up what comes, to the end.
pub(crate) fn consume(me: &mut Me, mut inlets: Inlets) {
    loop {
        match inlets.receive(me) {
            Got::Message(arrived) => use_up(me, *arrived),
            Got::Lost => {}
            Got::Over => return,
        }
        me.rest();
    }
}

pub(crate) fn use_up(me: &mut Me, mut arrived: Arrived) {
    if let Some(gift) = arrived.message.gift.take() {
        gift::take(me, gift);
    }
    if arrived.message.blob.is_some() && me.random.chance(50) {
        hand_to_a_child(me, &mut arrived.message);
    }
    arrived.finish();
}

/// What a child is given to look at.
#[derive(Serialize)]
struct Errand {
    files: Vec<Attached>,
    blob: Blob,
}

/// Has a child process look at a blob. It must find the same, and must not keep anything of this process
/// open, whatever happens to either.
fn hand_to_a_child(me: &mut Me, message: &mut Message) {
    let Some(blob) = message.blob.take() else {
        return;
    };
    me.doing(Op::Nested, None);
    let files = std::mem::take(&mut message.files);
    let child = spawn(Errand { files, blob }, |errand: Errand| {
        let _ = set_pdeathsig(Signal::SIGKILL);
        (errand.files.len(), checksum(&errand.blob))
    });
    let expected = (message.tags.len(), message.blob_sum);
    match child {
        Ok(child) => {
            ledger().add(Count::Nested, 1);
            match child.join() {
                Ok(found) if found == expected => {}
                found => me.violation(format_args!("a child found {found:?}, not {expected:?}")),
            }
        }
        Err(error) if is_out_of_fds(&error) => {}
        Err(error) => me.violation(format_args!("a child: {}", describe(&error))),
    }
}
