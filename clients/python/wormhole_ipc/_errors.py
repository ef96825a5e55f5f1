"""What sending, receiving or making a channel can fail with: the names are those of the Rust crate's `Error`."""

from __future__ import annotations

import re
from typing import Any


class Mismatch(Exception):
    """A value is not of its type. Becomes `Encode` or `Decode`."""


class Error(Exception):
    """The base of all of them. Each subclass is a decision for the caller.

    After any but `Disconnected` the channel works as before: what failed to be sent was not sent at all,
    what failed to be received is consumed and its descriptors are closed, but for `Io`, which consumes nothing. What
    the kernel said, or another library, is the ``__cause__``.
    """


class Disconnected(Error):
    """Every copy of the other end, in every process, is gone. For a receiver the queue is empty as well."""

    def __init__(self) -> None:
        super().__init__("channel is disconnected: every copy of its other end is gone")


class Empty(Error):
    """`Receiver.try_recv`: no message is waiting. Nothing was consumed."""

    def __init__(self) -> None:
        super().__init__("cannot receive now: nothing is waiting")


class Full(Error):
    """`Sender.try_send`: the kernel's buffer has no room. Nothing was sent."""

    def __init__(self) -> None:
        super().__init__("cannot send now: the channel is full")


class TimedOut(Error):
    """The deadline passed first. Nothing was consumed or sent."""

    def __init__(self) -> None:
        super().__init__("timed out waiting for the other side")


class Encode(Error):
    """The message cannot be written as JSON: it is not of the channel's type, or holds a NaN, an infinity or a
    lone surrogate. Nothing was sent."""

    def __init__(self, type_name: str, reason: str) -> None:
        super().__init__(f"cannot encode a message of type `{type_name}`: {excerpt(reason)}")


class Decode(Error):
    """A message was received and is not a value of the expected type. It is consumed."""

    def __init__(self, type_name: str, reason: str) -> None:
        super().__init__(f"cannot decode a message as `{type_name}`: {excerpt(reason)}")


class TooLarge(Error):
    """The message's text is longer than this end's `max_message_len`. It was not sent, or it is consumed."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"message of {size} bytes is longer than the limit of {limit} bytes")
        self.size = size
        self.limit = limit


class TooManyFds(Error):
    """The message carries more descriptors than one packet can. Nothing was sent."""

    def __init__(self, count: int, limit: int) -> None:
        super().__init__(f"cannot send {count} descriptors in one message: the limit is {limit}")
        self.count = count
        self.limit = limit


class TooManyFdsInFlight(Error):
    """Too many descriptors that this user sent have not been received yet. Nothing was sent; it works again
    when some have been."""

    def __init__(self) -> None:
        super().__init__(
            "cannot send descriptors now: too many that this user sent have not been received yet"
        )


class FdsLost(Error):
    """The message came, but not all of its descriptors: this process is out of them, or a security module
    refused them. It is consumed and those that did come are closed."""

    def __init__(self) -> None:
        super().__init__(
            "descriptors of a received message were lost: this process is out of descriptors, "
            "or a security module refused them"
        )


class UnexpectedFds(Error):
    """The message carries descriptors which neither its fields nor `Receiver.recv_with_fds` claim. It is
    consumed and they are closed."""

    def __init__(self, count: int) -> None:
        super().__init__(f"received a message with {count} descriptors that nothing claims")
        self.count = count


class Malformed(Error):
    """What came is no wormhole packet, so a foreign or broken program is at the other end. It is consumed."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"received a malformed packet: {reason}")


class NotAChannel(Error):
    """A descriptor that was to become a `Sender` or a `Receiver` is no connected unix `SOCK_SEQPACKET` socket.
    It is closed."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"descriptor is not an end of a channel: {reason}")


class NotInherited(Error):
    """`inherit`: this program was not handed anything, or it has been taken. Nothing was changed."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"nothing to inherit: {excerpt(reason)}")


class NotABlob(Error):
    """A descriptor that was to become a `Blob` is not a sealed memfd. It is closed."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"descriptor is not a blob: {reason}")


class Address(Error):
    """Connecting to a name failed. The ``__cause__`` is what Python raised: `FileNotFoundError` if nobody has
    listened there, `ConnectionRefusedError` if nobody does any more."""

    def __init__(self, operation: str, address: str) -> None:
        super().__init__(f"cannot {operation} `{excerpt(address)}`")
        self.operation = operation
        self.address = address


class Io(Error):
    """The kernel refused an operation for a reason that has nothing to do with the channel's state, such as a
    lack of memory or of descriptors. A receiver has consumed nothing. The ``__cause__`` is the `OSError`."""

    def __init__(self, operation: str) -> None:
        super().__init__(f"cannot {operation}")
        self.operation = operation


# What Python calls printable and nobody sees, or sees as something else (Unicode's Default_Ignorable_Code_Point).
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)


def excerpt(reason: str) -> str:
    """A text that may quote what the other side sent: without characters that control a terminal, turn the direction
    of writing or cannot be seen, and not too long to read."""
    shown = "".join(
        c if c.isprintable() and not _INVISIBLE.match(c) else ascii(c)[1:-1] for c in reason[:1000]
    )
    return shown if len(reason) <= 1000 else shown + " [...]"


def shown(value: Any) -> str:
    """A value, for the text of an error: one that has come, as `_text` gives it, or one that is to be sent."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, dict)):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, (int, float)):
        return f"the number {value}" if abs(value) < 1e30 else "a number"
    if isinstance(value, str):
        return excerpt(repr(value[:80]))
    return f"a {type(value).__name__}"


def expected(what: str, value: Any) -> Mismatch:
    return Mismatch(f"expected {what}, got {shown(value)}")
