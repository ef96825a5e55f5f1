"""Connecting to a Rust ``Listener``: channels between processes that are no relatives."""

from __future__ import annotations

import errno
import os
import socket
import struct
from time import monotonic
from typing import Any, Optional, Type, TypeVar, Union, overload

from . import _packets
from ._channel import Sender
from ._errors import Address, TimedOut
from ._fields import plan_of

T = TypeVar("T")

_MAX_NAME = 107


@overload
def connect(
    path: Union[str, bytes, os.PathLike[str]], type: Type[T], *, timeout: Optional[float] = ...
) -> Sender[T]: ...


@overload
def connect(
    path: Union[str, bytes, os.PathLike[str]], type: Any = ..., *, timeout: Optional[float] = ...
) -> Sender[Any]: ...


def connect(
    path: Union[str, bytes, os.PathLike[str]],
    type: Any = Any,
    *,
    timeout: Optional[float] = None,
) -> Sender[Any]:
    """Connects to the listener at a path, or at an abstract name, which is one that begins with a NUL.

    Does not wait to be accepted: messages can be sent at once. Blocks only while more clients wait than the kernel
    has room for, usually 4,096, and for at most `timeout` seconds. Raises `Address`, whose ``__cause__`` says why,
    or `TimedOut`.
    """
    plan = plan_of(type)
    raw = os.fsencode(path)
    shown = "@" + os.fsdecode(raw[1:]) if raw.startswith(b"\0") else os.fsdecode(raw)
    name = raw[1:] if raw.startswith(b"\0") else raw
    if not name:
        raise Address("use", shown) from ValueError("the name of a socket cannot be empty")
    if len(name) > _MAX_NAME:
        raise Address("use", shown) from ValueError(
            f"the name of a socket has at most {_MAX_NAME} bytes, this one has {len(name)}"
        )
    if not raw.startswith(b"\0") and b"\0" in raw:
        raise Address("use", shown) from ValueError("a path cannot contain NUL")
    deadline = None if timeout is None else monotonic() + timeout
    try:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:
        raise Address("connect to", shown) from error
    try:
        end.setblocking(True)
        _connect(end, raw, deadline)
        return Sender._of(_packets.wrap(end.detach()), type)
    except OSError as error:
        raise Address("connect to", shown) from error
    finally:
        end.close()


def _connect(end: socket.socket, address: bytes, deadline: Optional[float]) -> None:
    while True:
        left = 0.0
        if deadline is not None:
            # No other process shares this socket yet, so it may have a timeout for a moment. Zero is for ever.
            left = max(deadline - monotonic(), 1e-6)
            _set_timeout(end, left)
        try:
            end.connect(address)
            # Python takes a connect that a signal has interrupted for done when the socket polls as writable.
            end.getpeername()
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EAGAIN, errno.EINTR):
                raise
            if deadline is not None and monotonic() >= deadline:
                raise TimedOut from None
            continue
        if deadline is not None:
            _set_timeout(end, 0.0)
        return


def _set_timeout(end: socket.socket, seconds: float) -> None:
    seconds = min(seconds, 1e9)
    whole = int(seconds)
    timeout = struct.pack("ll", whole, int((seconds - whole) * 1e6))
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
