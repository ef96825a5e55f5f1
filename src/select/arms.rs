//! What the arms of `select!` expand to.
//!
//! The channel of an arm can be an end, something that derefs to one, or an `Option` of one. Traits with one method
//! each find out which, by the rules of method calls.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::selected::Outcome;
use super::{Case, PollFlags, Select, Selected, random_below};
use crate::channel::{Receiver, Sender};
use crate::error::Result;
use crate::wait::Wait;

/// What can stand in an arm `recv`.
pub trait RecvArm<T> {
    /// The receiver, if there is one.
    fn __recv_arm(&self) -> Option<&Receiver<T>>;
}

impl<T> RecvArm<T> for Receiver<T> {
    fn __recv_arm(&self) -> Option<&Receiver<T>> {
        Some(self)
    }
}

impl<T> RecvArm<T> for Option<Receiver<T>> {
    fn __recv_arm(&self) -> Option<&Receiver<T>> {
        self.as_ref()
    }
}

impl<T> RecvArm<T> for Option<&Receiver<T>> {
    fn __recv_arm(&self) -> Option<&Receiver<T>> {
        *self
    }
}

/// What can stand in an arm `send` or `closed`.
pub trait SendArm<T> {
    /// The sender, if there is one.
    fn __send_arm(&self) -> Option<&Sender<T>>;
}

impl<T> SendArm<T> for Sender<T> {
    fn __send_arm(&self) -> Option<&Sender<T>> {
        Some(self)
    }
}

impl<T> SendArm<T> for Option<Sender<T>> {
    fn __send_arm(&self) -> Option<&Sender<T>> {
        self.as_ref()
    }
}

impl<T> SendArm<T> for Option<&Sender<T>> {
    fn __send_arm(&self) -> Option<&Sender<T>> {
        *self
    }
}

/// What can stand in an arm `ready` or `writable`.
pub trait FdArm {
    /// The descriptor.
    fn __fd_arm(&self) -> Option<BorrowedFd<'_>>;
}

impl<F: AsFd + ?Sized> FdArm for F {
    fn __fd_arm(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

/// What else can stand there.
pub trait OptionFdArm {
    /// The descriptor, if there is one.
    fn __fd_arm(&self) -> Option<BorrowedFd<'_>>;
}

impl<F: AsFd> OptionFdArm for Option<F> {
    fn __fd_arm(&self) -> Option<BorrowedFd<'_>> {
        self.as_ref().map(AsFd::as_fd)
    }
}

/// Switches an arm off if its condition does not hold.
#[must_use]
pub fn only_if<E>(condition: bool, end: Option<E>) -> Option<E> {
    end.filter(|_| condition)
}

/// Adds an arm that is switched off, which only takes up an index.
pub fn off(select: &mut Select<'_>) -> usize {
    select.add(Case::Over)
}

/// Adds an arm `recv`.
pub fn add_recv<'a, T>(select: &mut Select<'a>, receiver: Option<&'a Receiver<T>>) {
    match receiver {
        Some(receiver) => select.recv(receiver),
        None => off(select),
    };
}

/// Adds an arm `ready`.
pub fn add_ready<'a>(select: &mut Select<'a>, fd: Option<BorrowedFd<'a>>) {
    add_event(select, fd, PollFlags::IN);
}

/// Adds an arm `writable`.
pub fn add_writable<'a>(select: &mut Select<'a>, fd: Option<BorrowedFd<'a>>) {
    add_event(select, fd, PollFlags::OUT);
}

/// Adds an arm `closed`.
pub fn add_closed<'a, T>(select: &mut Select<'a>, sender: Option<&'a Sender<T>>) {
    match sender {
        Some(sender) => select.closed(sender),
        None => off(select),
    };
}

fn add_event<'a>(select: &mut Select<'a>, fd: Option<BorrowedFd<'a>>, events: PollFlags) {
    select.add(match fd {
        Some(fd) => Case::Event(fd, events),
        None => Case::Over,
    });
}

/// Takes the message of an arm `recv` that has happened.
///
/// # Errors
///
/// As [`Selected::recv`].
pub fn take_received<T: DeserializeOwned>(
    selected: Selected,
    receiver: Option<&Receiver<T>>,
) -> Result<T> {
    match receiver {
        Some(receiver) => selected.recv(receiver),
        None => Err(selected.is_no_receive()),
    }
}

/// Waits. If that itself fails, the error becomes the result of one of the cases. `timeout` is `None` to wait forever.
///
/// `None`: nothing could happen in that time; or ever, as all arms are switched off.
#[must_use]
pub fn decide(mut select: Select<'_>, timeout: Option<Duration>) -> Option<Selected> {
    let wait = match timeout {
        None if !select.has_cases() => return None,
        None => Wait::Forever,
        Some(timeout) => Wait::at_most(timeout),
    };
    select.run(wait).unwrap_or_else(|error| {
        let live = select.cases.iter().enumerate();
        let mut live = live.filter(|(_, entry)| !matches!(entry.case, Case::Over));
        let chosen = random_below(live.clone().count());
        let (index, entry) = live.nth(chosen)?;
        let outcome = match entry.case {
            Case::Event(..) => Outcome::Ready,
            Case::Recv { socket, .. } => Outcome::Received(socket.as_fd().as_raw_fd(), Err(error)),
            Case::Send { .. } | Case::Failed(_) | Case::Over => Outcome::Sent(Err(error)),
        };
        Some(Selected { index, outcome })
    })
}
