//! Bugs that are put in on purpose, to see that they are noticed.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What somebody does wrong now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Sabotage {
    /// A sender says that it has sent what it has not.
    Drop,
    /// A sender sends a message twice.
    Twice,
    /// A sender sends a message after it said that it could not.
    Ghost,
    /// A sender changes a byte of a message.
    Tear,
    /// A sender sends the second of two messages first.
    Reorder,
    /// A sender puts the descriptors of a message in another order.
    SwapFds,
    /// A sender says that all receivers are gone, although they are not.
    FalseEnd,
    /// A relay forgets a message.
    Forget,
    /// A replier sends less than it says.
    ShortReply,
    /// A process does not close a descriptor.
    LeakFd,
    /// A supervisor does not reap a child.
    Zombie,
    /// A supervisor keeps a copy of an end that it should have dropped.
    Stray,
    /// A process waits for what cannot come.
    Hang,
    /// A process that lives on needs more memory each time.
    LeakMemory,
    /// A process panics.
    Panic,
}
