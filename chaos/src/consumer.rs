//! The actors that take messages: relays and consumers.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde::Serialize;
use wormhole::{Blob, spawn};

use crate::assignment::Output;
use crate::enclosed;
use crate::ledger::{Count, ledger};
use crate::message::{Attached, Message, checksum};
use crate::receiving::{Arrived, Got, ReceivingEnds};
use crate::sabotage::Sabotage;
use crate::sending::{SendingEnd, Sent};
use crate::this_process::{Op, ThisProcess, describe, is_out_of_fds};

/// Passes on what comes. Says whether it went on to the end, rather than until nobody wanted it.
pub(crate) fn relay(
    this: &mut ThisProcess,
    mut inputs: ReceivingEnds,
    outputs: Vec<Output>,
) -> bool {
    let mut ends: Vec<SendingEnd> = outputs.into_iter().map(SendingEnd::new).collect();
    loop {
        let mut arrived = match inputs.receive(this) {
            Got::Message(arrived) => arrived,
            Got::Lost => continue,
            Got::Over => return true,
        };
        if this.sabotages(Sabotage::Forget) {
            continue;
        }
        let beside = std::mem::take(&mut arrived.beside);
        let beside: Vec<BorrowedFd<'_>> = beside.iter().map(AsFd::as_fd).collect();
        loop {
            if ends.is_empty() {
                ledger().add(Count::Undeliverable, 1);
                break;
            }
            let index = this.random.index(ends.len());
            match ends[index].send(this, &mut arrived.message, &beside) {
                Sent::Done => break,
                Sent::Over => drop(ends.swap_remove(index)),
                Sent::Refused | Sent::NoMore => {
                    ledger().add(Count::Undeliverable, 1);
                    break;
                }
            }
        }
        arrived.finish();
        if ends.is_empty() {
            return false;
        }
        this.rest();
    }
}

/// Uses up what comes, to the end.
pub(crate) fn consume(this: &mut ThisProcess, mut ends: ReceivingEnds) {
    loop {
        match ends.receive(this) {
            Got::Message(arrived) => use_up(this, *arrived),
            Got::Lost => {}
            Got::Over => return,
        }
        this.rest();
    }
}

pub(crate) fn use_up(this: &mut ThisProcess, mut arrived: Arrived) {
    if let Some(enclosed) = arrived.message.enclosed.take() {
        enclosed::take(this, enclosed);
    }
    if arrived.message.blob.is_some() && this.random.chance(50) {
        hand_to_a_child(this, &mut arrived.message);
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
fn hand_to_a_child(this: &mut ThisProcess, message: &mut Message) {
    let Some(blob) = message.blob.take() else {
        return;
    };
    this.doing(Op::Nested, None);
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
                found => this.violation(format_args!("a child found {found:?}, not {expected:?}")),
            }
        }
        Err(error) if is_out_of_fds(&error) => {}
        Err(error) => this.violation(format_args!("a child: {}", describe(&error))),
    }
}
