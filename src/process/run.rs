//! The life of a child from its function on: the call, its result, and what a panic leaves.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;

use super::outcome::Delivery;
use crate::channel::Sender;
use crate::error::{Error, Result};
use crate::limits::MAX_LEVELS;
use crate::wait::Wait;

/// The exit status of a Rust program that panics.
pub(super) const PANICKED: i32 = 101;

/// Calls the function of a child that got ready, sends what it returns, and gives the exit status. Nothing unwinds
/// out of it.
pub(super) fn run<R: Serialize>(
    result: &Sender<Delivery<R>>,
    ready: Result<impl FnOnce() -> R>,
) -> i32 {
    let run = AssertUnwindSafe(|| match ready {
        Ok(f) => deliver(result, Delivery::Value(f())),
        Err(error) => deliver(result, Delivery::Undelivered(format!("{error:#}"))),
    });
    catch_unwind(run).unwrap_or_else(|payload| {
        // The function panicked, or else the `Serialize` of its result.
        let _ = result.send(Delivery::Panicked(panic_message(payload)));
        PANICKED
    })
}

/// Sends the result, or else why there is none, and gives the exit status.
fn deliver<R: Serialize>(result: &Sender<Delivery<R>>, outcome: Delivery<R>) -> i32 {
    let code = (!matches!(outcome, Delivery::Value(_))).into();
    // The list around a value does not count for its receiver.
    match result.send_nested(outcome, MAX_LEVELS + 1, &[], Wait::Forever) {
        Ok(()) | Err(Error::Disconnected) => code, // disconnected: nothing waits for it
        Err(error) => {
            let _ = result.send(Delivery::Undelivered(format!("{error:#}")));
            1
        }
    }
}

pub(super) fn panic_message(payload: Box<dyn Any + Send>) -> String {
    let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref()) {
        (Some(text), _) => String::from(*text),
        (None, Some(text)) => String::clone(text),
        (None, None) => "a value that is no text".to_owned(),
    };
    std::mem::forget(payload); // its destructor could panic again
    message
}
