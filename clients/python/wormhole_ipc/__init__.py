"""Typed channels between Linux processes, in Python and in Rust.

The other end of a channel may be in this process, in another Python or in a program that uses the crate
``wormhole-rs``. What travels is specified in its PROTOCOL.md.

    tx, rx = wormhole_ipc.channel(int)
    tx.send(5)
    assert rx.recv() == 5

Start with `channel`, with `inherit` in a program that was handed something, and with `work` in a worker of a pool.
The same for asyncio is in `wormhole_ipc.aio`.
"""

from ._blob import Blob
from ._channel import DEFAULT_MAX_MESSAGE_LEN, Receiver, Sender, channel
from ._errors import (
    Address,
    Decode,
    Disconnected,
    Empty,
    Encode,
    Error,
    FdsLost,
    Full,
    Io,
    Malformed,
    NotABlob,
    NotAChannel,
    NotInherited,
    TimedOut,
    TooLarge,
    TooManyFds,
    TooManyFdsInFlight,
    UnexpectedFds,
)
from ._fd import Fd
from ._fields import I8, I16, I32, I64, I128, U8, U16, U32, U64, U128, Range
from ._listener import Listener, Peer, connect
from ._message import DEFAULT_MAX_BLOB_LEN
from ._process import inherit, spawn
from ._worker import work

__all__ = [
    "Address",
    "Blob",
    "DEFAULT_MAX_BLOB_LEN",
    "DEFAULT_MAX_MESSAGE_LEN",
    "Decode",
    "Disconnected",
    "Empty",
    "Encode",
    "Error",
    "Fd",
    "FdsLost",
    "Full",
    "I128",
    "I16",
    "I32",
    "I64",
    "I8",
    "Io",
    "Listener",
    "Malformed",
    "NotABlob",
    "NotAChannel",
    "NotInherited",
    "Peer",
    "Range",
    "Receiver",
    "Sender",
    "TimedOut",
    "TooLarge",
    "TooManyFds",
    "TooManyFdsInFlight",
    "U128",
    "U16",
    "U32",
    "U64",
    "U8",
    "UnexpectedFds",
    "channel",
    "connect",
    "inherit",
    "spawn",
    "work",
]
