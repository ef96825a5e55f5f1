"""Channels between processes that are no relatives: listening at a name, and connecting to it."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
import weakref
from collections import deque
from contextlib import suppress
from itertools import starmap
from select import POLLIN
from time import monotonic
from typing import (
    Any,
    Deque,
    Generic,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Tuple,
    Type,
    TypeVar,
    Union,
    overload,
)

from . import _packets
from ._channel import DEFAULT_MAX_MESSAGE_LEN, Receiver, Sender, take_first
from ._end import End
from ._errors import Address, Empty, Io, NotAChannel, TimedOut
from ._fd import Fd, opened
from ._fields import plan_of
from ._message import DEFAULT_MAX_BLOB_LEN
from ._packets import Socket
from ._wait import Closed

T = TypeVar("T")
Path = Union[str, bytes, "os.PathLike[str]"]

_MAX_NAME = 107


class Peer(NamedTuple):
    """The process at the other end of a connection, as the kernel knows it."""

    pid: int
    uid: int
    gid: int


def _address(path: Path) -> Tuple[bytes, str]:
    """A name as the kernel takes it and as errors show it. An abstract one begins with a NUL, shown as ``\\0``."""
    raw = os.fsencode(path)
    is_abstract = raw.startswith(b"\0")
    shown = "\\0" + os.fsdecode(raw[1:]) if is_abstract else os.fsdecode(raw)
    name = raw[1:] if is_abstract else raw
    if not name:
        raise Address("use", shown) from ValueError("the name of a socket cannot be empty")
    if len(name) > _MAX_NAME:
        raise Address("use", shown) from ValueError(
            f"the name of a socket has at most {_MAX_NAME} bytes, this one has {len(name)}"
        )
    if not is_abstract and b"\0" in raw:
        raise Address("use", shown) from ValueError("a path cannot contain NUL")
    return raw, shown


class _SocketFile:
    """The file of a listening socket, removed by the process that made it."""

    def __init__(self, path: bytes) -> None:
        self.path = os.path.abspath(path)
        found = os.lstat(self.path)
        self.identity = (found.st_dev, found.st_ino)
        self.process = os.getpid()
        self.given = False
        self.removed = False

    def remove(self) -> None:
        """To be called while its socket is open: until then no process takes the file for stale, and no other file
        gets its inode number. So it counts only once."""
        if self.given or self.removed or self.process != os.getpid():
            return
        self.removed = True
        try:
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == self.identity:
                os.unlink(self.path)
        except OSError as error:
            if error.errno is None:
                raise
            # What cannot be removed is stale.


def _bind(listening: Socket, raw: bytes) -> Optional[_SocketFile]:
    # No moment at which others may connect.
    os.fchmod(listening.fileno(), 0o600)
    if raw.startswith(b"\0"):
        listening.bind(raw)
        return None
    try:
        listening.bind(raw)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        # Two processes could find the same file stale, and the slower one remove what the faster one has just bound.
        # A name that is free needs no lock: bind(2) takes it or fails.
        lock = _lock(raw + b".wormhole-lock")
        try:
            _remove_if_stale(raw)
            listening.bind(raw)
        finally:
            try:
                os.unlink(raw + b".wormhole-lock")  # still locked, so still the holder's own
            except OSError as problem:
                if problem.errno is None:
                    raise
                # One that is left over and not locked does no harm.
            finally:
                # To close it is not enough: a process that was forked meanwhile has a copy.
                fcntl.flock(lock.fileno(), fcntl.LOCK_UN)
                lock.close()
    return _SocketFile(raw)


def _lock(path: bytes) -> Fd:
    while True:
        # Others may not even open it, so they cannot hold the lock.
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = opened(os.open, path, flags, 0o600)
        try:
            try:
                fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from None
            # The holder before may have removed it between the two calls.
            if os.fstat(lock.fileno()).st_nlink > 0:
                return lock
        except BaseException:
            lock.close()
            raise
        lock.close()


def _remove_if_stale(raw: bytes) -> None:
    try:
        found = os.lstat(raw)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "a file that is not a socket is there")
    probe = Socket(_packets.UNIX, int(socket.SOCK_DGRAM | socket.SOCK_NONBLOCK), 0)
    try:
        probe.connect(raw)
    except ConnectionRefusedError:
        with suppress(FileNotFoundError):  # it may go meanwhile
            os.unlink(raw)  # nobody has a socket bound to it
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EPROTOTYPE:
            raise
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


class Listener(End, Generic[T]):
    """A name at which other processes connect, each with a `Sender` of its own; `accept` gives the `Receiver`.

    The socket file is made with mode 0600 and removed by `close`, when the last reference is gone, and when the
    program ends in the ordinary way. What a dead program has left behind is replaced, what a living one has is not.
    An abstract name, which is one that begins with a NUL, has neither file nor permissions.

    A listener can stand in a message. Then the file is the receiving program's, and no longer removed here.

    These raise `Io`, and `ValueError` once it is closed, by another thread as well.
    """

    _what = "listener"

    def __init__(
        self,
        fd: Union[int, Fd, socket.socket],
        type: Type[T],
        *,
        max_message_len: int = DEFAULT_MAX_MESSAGE_LEN,
        max_blob_len: int = DEFAULT_MAX_BLOB_LEN,
    ) -> None:
        """Takes over a descriptor that listens already, as systemd hands them to programs; `accept` makes it
        non-blocking. Closes it and raises `NotAChannel` if it is something else. See also `bind`."""
        plan_of(type)
        self._set_up(self._adopt(fd), type)
        self.max_message_len, self.max_blob_len = max_message_len, max_blob_len

    def _set_up(self, socket: Socket, type: Any) -> None:
        super()._set_up(socket, type)
        self.max_message_len = DEFAULT_MAX_MESSAGE_LEN
        self.max_blob_len = DEFAULT_MAX_BLOB_LEN
        self._file: Optional[_SocketFile] = None
        self._accepted: Deque[List[Any]] = deque()

    @classmethod
    def bind(
        cls,
        path: Path,
        type: Type[T],
        *,
        max_message_len: int = DEFAULT_MAX_MESSAGE_LEN,
        max_blob_len: int = DEFAULT_MAX_BLOB_LEN,
    ) -> Listener[T]:
        """Listens at a path, or at an abstract name. Raises `Address`, whose ``__cause__`` says why: it is in use,
        or the directory is missing. The limits are those of the receivers."""
        plan_of(type)
        raw, shown = _address(path)
        file = None
        try:
            listening = Socket(_packets.UNIX, _packets.KIND, 0)
            file = _bind(listening, raw)
            listening.listen(4096)
        except OSError as error:
            if file is not None:
                file.remove()
            if error.errno is None:
                raise
            raise Address("listen at", shown) from error
        made: Listener[T] = cls._of(listening, type)
        made.max_message_len, made.max_blob_len = max_message_len, max_blob_len
        if file is not None:
            made._file = file
            weakref.finalize(made, file.remove)
        return made

    @classmethod
    def _check(cls, candidate: Socket) -> None:
        _packets.check_kind(candidate)
        if not candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise NotAChannel("a unix socket that does not listen")

    def _settings(self) -> Any:
        return {"max_message_len": self.max_message_len, "max_blob_len": self.max_blob_len}

    def accept(self) -> Tuple[Receiver[T], Peer]:
        """The next client. Blocks until one connects."""
        return self._accept(None, True)

    def try_accept(self) -> Tuple[Receiver[T], Peer]:
        """A client that waits now. Does not block. Raises `Empty` as well."""
        return self._accept(None, False)

    def accept_timeout(self, timeout: float) -> Tuple[Receiver[T], Peer]:
        """The next client, waiting for at most so many seconds. Raises `TimedOut` as well."""
        return self._accept(monotonic() + timeout, True)

    def __iter__(self) -> Iterator[Tuple[Receiver[T], Peer]]:
        while True:
            yield self.accept()

    def close(self) -> None:
        if self._file is not None:
            self._file.remove()
        super().close()
        held: List[Any] = []
        while take_first(self._accepted, held):
            self._own(held)
            del held[:]

    close.__doc__ = End.close.__doc__

    def _was_given(self) -> Optional[_SocketFile]:
        if self._file is not None:
            self._file.given = True
        return self._file

    def _accept(self, deadline: Optional[float], waits: bool) -> Tuple[Receiver[T], Peer]:
        end = self._open()
        held: List[Any] = []
        try:
            if self._accepted:
                take_first(self._accepted, held)

            def attempt(may_block: bool) -> bool:
                return bool(held) or _accept_one(end, held)

            if not attempt(False):
                if not waits:
                    raise Empty
                if not self._wait(end, POLLIN, deadline, attempt):
                    raise TimedOut
            return self._made(held)
        except Closed:
            raise self._is_closed() from None
        except BaseException as error:
            if held:  # so it is of a signal's handler
                try:
                    self._own(held)
                finally:  # not before: another thread may take it, and own it
                    self._accepted += (held,)
                raise
            if not isinstance(error, OSError) or error.errno is None:
                raise
            if self._socket is not end:
                raise self._is_closed() from None
            raise Io("accept a client") from error

    def _own(self, held: List[Any]) -> Socket:
        """Makes what was accepted an object that owns it, known to the list before it does."""
        if len(held) == 1:
            held.append(Socket.__new__(Socket))
        made: Socket = held[1]
        if made.fileno() < 0:
            made.__init__(_packets.UNIX, _packets.KIND, 0, held[0][0])  # type: ignore[misc]
        return made

    def _made(self, held: List[Any]) -> Tuple[Receiver[T], Peer]:
        accepted = self._own(held)
        try:
            accepted.shutdown(socket.SHUT_WR)
            peer = Peer(*_packets.credentials(accepted))
        except OSError as error:
            if error.errno is None:
                raise
            del held[:]
            raise Io("accept a client") from error
        receiver: Receiver[T] = Receiver._of(accepted, self._type)
        receiver.max_message_len = self.max_message_len
        receiver.max_blob_len = self.max_blob_len
        return receiver, peer


def _accept_one(listening: Socket, held: List[Any]) -> bool:
    # accept has no flag for one call, and another process that has this socket may have cleared the one that counts.
    # So it is called when a client waits. What is left: that flag is cleared, and another process takes the client in
    # between. Then the call blocks until the next one comes.
    if os.get_blocking(listening.fileno()):
        os.set_blocking(listening.fileno(), False)
    if not _packets.events_of(listening, POLLIN):
        return False
    try:
        held.extend(starmap(listening._accept, ((),)))  # type: ignore[attr-defined]
    except (BlockingIOError, ConnectionAbortedError) as error:
        if held or error.errno is None:
            raise  # of a signal's handler
        return False
    return True


@overload
def connect(path: Path, type: Type[T], *, timeout: Optional[float] = ...) -> Sender[T]: ...


@overload
def connect(path: Path, type: Any = ..., *, timeout: Optional[float] = ...) -> Sender[Any]: ...


def connect(
    path: Path,
    type: Any = Any,
    *,
    timeout: Optional[float] = None,
) -> Sender[Any]:
    """Connects to the listener at a path, or at an abstract name, which is one that begins with a NUL.

    Does not wait to be accepted: messages can be sent at once. Blocks only while more clients wait than the kernel
    has room for, usually 4,096, and for at most `timeout` seconds. Raises `Address`, whose ``__cause__`` says why,
    or `TimedOut`.
    """
    plan_of(type)
    raw, shown = _address(path)
    return _connected(raw, shown, type, None if timeout is None else monotonic() + timeout)


def _try_connect(path: Path, type: Any) -> Optional[Sender[Any]]:
    """The same without waiting: nothing while no more clients may wait."""
    plan_of(type)
    raw, shown = _address(path)
    try:
        return _connected(raw, shown, type, 0.0)
    except TimedOut:
        return None


def _connected(raw: bytes, shown: str, type: Any, deadline: Optional[float]) -> Sender[Any]:
    try:
        end = Socket(_packets.UNIX, int(socket.SOCK_SEQPACKET), 0)
    except OSError as error:
        if error.errno is None:
            raise
        raise Address("connect to", shown) from error
    try:
        end.setblocking(True)
        _connect(end, raw, deadline)
        made: List[Socket] = []
        _packets.take_over((end,), made)
        return Sender._of(made[0], type)
    except OSError as error:
        if error.errno is None:
            raise
        raise Address("connect to", shown) from error
    finally:
        end.close()


def _connect(end: Socket, address: bytes, deadline: Optional[float]) -> None:
    while True:
        left = 0.0
        if deadline is not None:
            # No other process shares this socket yet, so it may have a timeout for a moment. Zero is forever.
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


def _set_timeout(end: Socket, seconds: float) -> None:
    seconds = min(seconds, 1e9)
    whole = int(seconds)
    timeout = struct.pack("ll", whole, int((seconds - whole) * 1e6))
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
