"""The two ends of a channel."""

from __future__ import annotations

import errno
import os
import socket
import threading
from functools import partial
from select import POLLIN, POLLOUT
from struct import Struct
from time import monotonic
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
    Union,
    overload,
)

from . import _memfd, _socket
from ._errors import (
    Decode,
    Disconnected,
    Empty,
    Encode,
    FdsLost,
    Full,
    Io,
    Malformed,
    NotABlob,
    NotAChannel,
    TooLarge,
    TooManyFds,
    TooManyFdsInFlight,
    UnexpectedFds,
)
from ._fd import Closing, Fd, HasFileno, number_of
from ._fields import Incoming, Mismatch, Outgoing, plan_of, write_unknown
from ._text import is_too_deep, parse, writer
from ._wait import Spin, until_ready

_receive, _buffers, MAX_PACKET, SEND_NOW = (
    _socket.receive,
    _socket.buffers,
    _socket.MAX_PACKET,
    _socket.SEND_NOW,
)

T = TypeVar("T")
E = TypeVar("E", bound="_End")

#: The longest text, in bytes, that an end sends or accepts unless its `max_message_len` is set.
DEFAULT_MAX_MESSAGE_LEN = 64 << 20

_HEADER = Struct("<Q")
_pack, _unpack_from = _HEADER.pack, _HEADER.unpack_from


class _Current(threading.local):
    """The descriptors of the message that this thread is writing."""

    fds: Optional[Outgoing] = None


_current = _Current()


def _default(value: Any) -> Any:
    fds = _current.fds
    assert fds is not None
    return write_unknown(value, fds)


_write_text = writer(_default)


class _End(Closing):
    """What a `Sender` and a `Receiver` have in common."""

    def __init__(
        self,
        fd: Union[int, Fd, socket.socket],
        type: Any = Any,
        *,
        max_message_len: int = DEFAULT_MAX_MESSAGE_LEN,
    ) -> None:
        """Takes over a descriptor from elsewhere. Closes it and raises `NotAChannel` unless it is a connected unix
        `SOCK_SEQPACKET` socket. Raises `TypeError` if messages of that type cannot be received."""
        plan = plan_of(type)
        self._set_up(_socket.adopt(fd if isinstance(fd, int) else fd.detach()), plan)
        self.max_message_len = max_message_len

    def _set_up(self, end: socket.socket, plan: Any) -> None:
        self._socket = end
        self._plan = plan
        self._spin = Spin()
        self.max_message_len = DEFAULT_MAX_MESSAGE_LEN

    @classmethod
    def _of(cls: Type[E], end: socket.socket, plan: Any) -> E:
        made = cls.__new__(cls)
        made._set_up(end, plan)
        return made

    @classmethod
    def __wormhole_fd__(cls: Type[E], number: int, arguments: Tuple[Any, ...]) -> E:
        plan = plan_of(arguments[0] if arguments else Any)
        return cls._of(_socket.adopt(number), plan)

    def fileno(self) -> int:
        """The number of the descriptor, for `selectors` and `asyncio`: a receiver is readable when a message is
        waiting or the channel has ended. Set no flags on it, other processes share them. Raises `ValueError` once
        it is closed."""
        number = self._socket.fileno()
        if number < 0:
            raise ValueError("the end of the channel is closed")
        return number

    def detach(self) -> int:
        """Gives up the descriptor: it is the caller's to close."""
        self.fileno()
        return self._socket.detach()

    def close(self) -> None:
        """Closes this process's copy of the end. Does nothing the second time. The end of a ``with`` does it too,
        and so does losing the last reference."""
        self._socket.close()

    def __del__(self) -> None:
        end = getattr(self, "_socket", None)
        if end is not None:
            end.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._plan.name}, fd {self._socket.fileno()}>"


class Sender(_End, Generic[T]):
    """The sending end of a channel.

    Any number of threads and processes may send at the same time; each message is sent whole or not at all. The
    receivers see `Disconnected` when the end is closed in every process.

    Whatever has a `fileno` may stand in a message: open files, sockets, `Fd`, `Blob`, ends of channels. The other
    side gets a duplicate. It stays open here; with ``move=True`` what the message holds is closed when the call is
    over, sent or not: that is how an end is handed over. (Of a message that cannot be encoded, as far as it was.)

    These raise, and nothing was sent then, `Disconnected`, `Encode`, `TooLarge`, `TooManyFds`,
    `TooManyFdsInFlight` or `Io`; and `ValueError` once the sender is closed.
    """

    if TYPE_CHECKING:

        @overload
        def __init__(
            self, fd: Union[int, Fd, socket.socket], type: Type[T], *, max_message_len: int = ...
        ) -> None: ...

        @overload
        def __init__(
            self: Sender[Any],
            fd: Union[int, Fd, socket.socket],
            type: Any = ...,
            *,
            max_message_len: int = ...,
        ) -> None: ...

        def __init__(self, fd: Any, type: Any = Any, *, max_message_len: int = 0) -> None: ...

    def send(self, message: T, *, move: bool = False) -> None:
        """Sends a message. Blocks while the channel is full: it holds about 200 KB, or 278 small messages. When
        it returns the kernel has the whole message, which outlives this process."""
        self._send(message, (), None, True, move)

    def send_with_fds(
        self, message: T, fds: Sequence[Union[int, HasFileno]], *, move: bool = False
    ) -> None:
        """Sends a message and beside it duplicates of `fds`, which `Receiver.recv_with_fds` gives in this order.
        Blocks as `send` does. `move` does not close `fds`."""
        self._send(message, fds, None, True, move)

    def try_send(self, message: T, *, move: bool = False) -> None:
        """Sends a message if there is room for it now. Never blocks. Raises `Full` as well."""
        self._send(message, (), None, False, move)

    def send_timeout(self, message: T, timeout: float, *, move: bool = False) -> None:
        """Sends a message, waiting for at most so many seconds while the channel is full. Raises `TimedOut` as
        well."""
        self._send(message, (), monotonic() + timeout, True, move)

    def _send(
        self,
        message: T,
        beside: Sequence[Union[int, HasFileno]],
        deadline: Optional[float],
        waits: bool,
        move: bool,
    ) -> None:
        outer, fields = _current.fds, Outgoing()
        _current.fds = fields
        try:
            try:
                write = self._plan.write
                text = _write_text(message if write is None else write(message, fields)).encode()
            except (Mismatch, TypeError, ValueError, AttributeError, RecursionError) as error:
                raise Encode(self._plan.name, str(error)) from error
            finally:
                _current.fds = outer
            if len(text) > 127 and is_too_deep(text):
                raise Encode(self._plan.name, "nested deeper than 127 levels")
            if len(text) > self.max_message_len:
                raise TooLarge(len(text), self.max_message_len)
            fds = fields.numbers
            if not fds and not beside and len(text) < MAX_PACKET:
                try:  # the usual case, in short
                    self._socket.send(_pack(len(text)) + text, SEND_NOW)
                    return
                except OSError:
                    pass  # once more, and to the end
            if beside:
                fds = fds + [number_of(fd) for fd in beside]
            self._send_text(text, fds, deadline, waits)
        finally:
            if move:
                for owner in fields.owners:
                    getattr(owner, "close", lambda: None)()

    def _send_text(
        self, text: bytes, fds: List[int], deadline: Optional[float], waits: bool
    ) -> None:
        end = self._socket
        if len(fds) > _socket.MAX_FDS:
            raise TooManyFds(len(fds), _socket.MAX_FDS)
        packet: Union[bytes, memoryview] = _pack(len(text)) + text
        spill = -1
        try:
            while True:
                try:
                    if spill < 0 and len(packet) > _socket.MAX_PACKET:
                        raise OSError(errno.EMSGSIZE, "")
                    all_fds = fds if spill < 0 else [spill] + fds
                    try:
                        _socket.send(end, packet, all_fds)
                    except BlockingIOError:
                        if not waits:
                            raise Full from None
                        until_ready(
                            end,
                            POLLOUT,
                            self._spin,
                            deadline,
                            lambda _: _socket.send(end, packet, all_fds),
                        )
                    return
                except OSError as error:
                    if error.errno != errno.EMSGSIZE:
                        raise self._failure(error) from error
                # The socket's buffer is smaller than the packet, or than it was a moment ago: some other
                # process that shares the socket may have changed it.
                if len(fds) + 1 > _socket.MAX_FDS:
                    raise TooManyFds(len(fds) + 1, _socket.MAX_FDS)
                if spill >= 0:
                    os.close(spill)
                    spill = -1
                whole = memoryview(_pack(len(text)) + text)
                limit = _socket.packet_limit(end)
                packet = whole[:limit]
                if limit < len(whole):
                    spill = _memfd.spill(whole[limit:])
        finally:
            if spill >= 0:
                os.close(spill)

    def _failure(self, error: OSError) -> Exception:
        if isinstance(error, (BrokenPipeError, ConnectionResetError, ConnectionRefusedError)):
            return Disconnected()
        if error.errno == errno.ETOOMANYREFS:
            return TooManyFdsInFlight()
        if self._socket.fileno() < 0:
            return ValueError("the sender is closed")
        return Io("send a message")


class Receiver(_End, Generic[T]):
    """The receiving end of a channel. Iterating gives its messages until no sender is left.

    Receivers in several threads and processes share the work: each message reaches exactly one of them. The
    senders see `Disconnected` when the end is closed in every process.

    These raise `Disconnected` when every copy of the sender is gone, and so is every message. What else they
    raise means that a message was received, which is consumed and whose descriptors are closed, and the next call
    gives the next one: `Decode`, `TooLarge`, `FdsLost`, `UnexpectedFds`, `Malformed` or `Io`. An iteration goes on
    as well, with another ``for``. Once it is closed they raise `ValueError`.
    """

    if TYPE_CHECKING:

        @overload
        def __init__(
            self, fd: Union[int, Fd, socket.socket], type: Type[T], *, max_message_len: int = ...
        ) -> None: ...

        @overload
        def __init__(
            self: Receiver[Any],
            fd: Union[int, Fd, socket.socket],
            type: Any = ...,
            *,
            max_message_len: int = ...,
        ) -> None: ...

        def __init__(self, fd: Any, type: Any = Any, *, max_message_len: int = 0) -> None: ...

    def recv(self) -> T:
        """Receives the next message. Blocks until one comes or no sender is left."""
        return self._recv(None, True)

    def recv_with_fds(self) -> Tuple[T, List[Fd]]:
        """Receives the next message, and the descriptors that came beside it, as many as there are. Blocks as
        `recv` does."""
        beside: List[Fd] = []
        return self._recv(None, True, beside), beside

    def try_recv(self) -> T:
        """Receives a message if one is waiting. Never blocks. Raises `Empty` as well."""
        return self._recv(None, False)

    def recv_timeout(self, timeout: float) -> T:
        """Receives the next message, waiting for at most so many seconds. Raises `TimedOut` as well."""
        return self._recv(monotonic() + timeout, True)

    def try_iter(self) -> Iterator[T]:
        """The messages that are waiting now. Never blocks."""
        while True:
            try:
                message = self._recv(None, False)
            except (Empty, Disconnected):
                return
            yield message

    def __iter__(self) -> Receiver[T]:
        return self

    def __next__(self) -> T:
        try:
            return self._recv(None, True)
        except Disconnected:
            raise StopIteration from None

    def _recv(self, deadline: Optional[float], waits: bool, beside: Optional[List[Fd]] = None) -> T:
        end = self._socket
        try:
            packet = _receive(end, False)
        except BlockingIOError:
            if not waits:
                raise Empty from None
            try:
                packet = until_ready(end, POLLIN, self._spin, deadline, partial(_receive, end))
            except OSError as error:
                raise self._failure(error) from error
        except OSError as error:
            raise self._failure(error) from error
        if packet is None:
            raise Disconnected
        buffer, length, numbers, lost = packet
        if not numbers and not lost and 8 <= length <= MAX_PACKET:
            (declared,) = _unpack_from(buffer)
            if declared == length - 8 and declared <= self.max_message_len:
                # The usual case, in short.
                text = bytes(buffer[8:length])
                _buffers.append(buffer)
                return self._decode(text, Incoming(numbers), beside)  # type: ignore[no-any-return]
        fds = Incoming(numbers)
        try:
            try:
                text = self._text_of(buffer, length, lost, fds)
            finally:
                _socket.give_back(buffer)
            return self._decode(text, fds, beside)  # type: ignore[no-any-return]
        except BaseException:
            _socket.close_all(fds.left())
            for made in fds.made:
                made.close()
            raise

    def _text_of(self, buffer: memoryview, length: int, lost: bool, fds: Incoming) -> bytes:
        """The whole text of a packet, after all the checks around it."""
        if lost:
            raise FdsLost
        if length > _socket.MAX_PACKET:
            raise Malformed(
                f"a packet of {length} bytes is longer than the limit of {_socket.MAX_PACKET}"
            )
        if length < 8:
            raise Malformed(
                f"{length} bytes are too few for the length of a message, which takes 8"
            )
        (declared,) = _unpack_from(buffer)
        inline = length - 8
        if declared < inline:
            raise Malformed(f"{inline} bytes of text came with a declared length of {declared}")
        if declared > self.max_message_len:
            raise TooLarge(declared, self.max_message_len)
        if declared == inline:
            return bytes(buffer[8:length])
        if not fds.numbers:
            raise Malformed(
                f"{declared - inline} bytes of text are missing and no descriptor came with the rest"
            )
        memfd = fds.numbers.pop(0)  # it does not count for the indices in the text
        assert memfd is not None
        try:
            return _memfd.gather(buffer[8:length], memfd, declared - inline)
        finally:
            os.close(memfd)

    def _decode(self, text: bytes, fds: Incoming, beside: Optional[List[Fd]]) -> Any:
        plan = self._plan
        read = plan.read
        try:
            message = parse(text, plan.pairs)
            if read is not None:
                message = read(message, fds)
        except (
            Mismatch,
            NotAChannel,
            NotABlob,
            ValueError,
            TypeError,
            OSError,
            RecursionError,
        ) as error:
            raise Decode(plan.name, str(error)) from error
        left = fds.numbers and fds.left()
        if left:
            if beside is None:
                raise UnexpectedFds(len(left))
            beside.extend(map(Fd, left))
        return message

    def _failure(self, error: OSError) -> Exception:
        if self._socket.fileno() < 0:
            return ValueError("the receiver is closed")
        return Io("receive a message")


@overload
def channel(
    type: Type[T], *, max_message_len: int = ..., buffer: Optional[int] = ...
) -> Tuple[Sender[T], Receiver[T]]: ...


@overload
def channel(
    type: Any = ..., *, max_message_len: int = ..., buffer: Optional[int] = ...
) -> Tuple[Sender[Any], Receiver[Any]]: ...


def channel(
    type: Any = Any,
    *,
    max_message_len: int = DEFAULT_MAX_MESSAGE_LEN,
    buffer: Optional[int] = None,
) -> Tuple[Sender[Any], Receiver[Any]]:
    """Makes a channel for messages of a type; without one, for any JSON.

    `buffer` is how many bytes the channel holds, which the kernel doubles. Raises `Io` when this process is out of
    descriptors or the machine does not allow such a buffer, `TypeError` for a type that cannot be received.
    """
    plan = plan_of(type)
    sending, receiving = _socket.pair()
    tx: Sender[Any] = Sender._of(sending, plan)
    rx: Receiver[Any] = Receiver._of(receiving, plan)
    tx.max_message_len = rx.max_message_len = max_message_len
    if buffer is not None:
        try:
            sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            granted = sending.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2
        except (OSError, OverflowError) as error:
            raise Io("set the size of the channel's buffer") from error
        if granted < buffer:
            raise Io("set the size of the channel's buffer") from ValueError(
                f"{buffer} bytes asked for, net.core.wmem_max of this machine allows {granted}"
            )
    return tx, rx
