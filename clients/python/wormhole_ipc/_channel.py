"""The two ends of a channel."""

from __future__ import annotations

import errno
import os
import socket
import threading
import weakref
from collections import deque
from itertools import chain, starmap
from select import POLLIN, POLLOUT
from struct import Struct
from time import monotonic
from typing import (
    TYPE_CHECKING,
    Any,
    Deque,
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

from . import _memfd, _packets
from ._end import End
from ._errors import (
    Decode,
    Disconnected,
    Empty,
    Encode,
    Error,
    FdsLost,
    Full,
    Io,
    Malformed,
    Mismatch,
    TimedOut,
    TooLarge,
    TooManyFds,
    TooManyFdsInFlight,
    UnexpectedFds,
)
from ._fd import Fd, HasFileno, number_of
from ._fields import plan_of, write_unknown
from ._message import DEFAULT_MAX_BLOB_LEN, NO_FDS, Incoming, Outgoing
from ._packets import MAX_PACKET, MSG_CTRUNC, SEND_NOW, Sends, Socket
from ._text import check_keys, is_too_deep, parse, writer
from ._wait import Closed

T = TypeVar("T")

_slots = _packets.slots

#: The longest text, in bytes, that an end sends or accepts unless its `max_message_len` is set.
DEFAULT_MAX_MESSAGE_LEN = 64 << 20

_NO_FILES: List[Any] = []  # never changed

_HEADER = Struct("<Q")
_pack, _unpack_from = _HEADER.pack, _HEADER.unpack_from


# How many packets may be refused before what the kernel says of its buffer is taken for wrong.
_TRUST = 4


class _Current(threading.local):
    """The descriptors of the message that this thread is writing."""

    fds: Optional[Outgoing] = None


_current = _Current()


def _default(value: Any) -> Any:
    fds = _current.fds
    assert fds is not None
    return write_unknown(value, fds)


_write_text = writer(_default)


class _ChannelEnd(End):
    """What a `Sender` and a `Receiver` have in common."""

    def __init__(
        self,
        fd: Union[int, Fd, socket.socket],
        type: Any = Any,
        *,
        max_message_len: int = DEFAULT_MAX_MESSAGE_LEN,
    ) -> None:
        """Takes over a descriptor from elsewhere. Closes it and raises `NotAChannel` unless it is a connected unix
        `SOCK_SEQPACKET` socket, and not one of the other direction. Raises `TypeError` if messages of that type
        cannot be received."""
        plan_of(type)
        self._set_up(self._adopt(fd), type)
        self.max_message_len = max_message_len

    def _set_up(self, socket: Socket, type: Any) -> None:
        super()._set_up(socket, type)
        self.max_message_len = DEFAULT_MAX_MESSAGE_LEN

    def _settings(self) -> Any:
        return {"max_message_len": self.max_message_len}


class Sender(_ChannelEnd, Generic[T]):
    """The sending end of a channel.

    Any number of threads and processes may send at the same time; each message is sent whole or not at all. The
    receivers see `Disconnected` when the end is closed in every process.

    Whatever has a `fileno` may stand in a message: open files, sockets, `Fd`, `Blob`, ends of channels. The other
    side gets a duplicate. It stays open here; with ``move=True`` what the message holds is closed when the call is
    over, sent or not: that is how an end is handed over. (Of a message that cannot be encoded, as far as it was.)

    These raise, and nothing was sent then, `Disconnected`, `Encode`, `TooLarge`, `TooManyFds`,
    `TooManyFdsInFlight` or `Io`; and `ValueError` once the sender is closed. When a signal's handler raises, its
    exception leaves open whether the message was sent: whole, or not at all.
    """

    _what = "sender"

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

    @classmethod
    def _check(cls, candidate: Socket) -> None:
        _packets.check(candidate, False)

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
        _keeps_if_full: bool = False,
        _done: Optional[List[int]] = None,
    ) -> List[Any]:
        """Gives the socket files that the receiver of the message is to remove from now on. Whatever it raises, there
        is something in the list of the caller's once the message is sent."""
        outer, fields = _current.fds, Outgoing()
        _current.fds = fields
        try:
            try:
                write = self._plan.write
                written = _write_text(message if write is None else write(message, fields))
                if self._plan.loose:
                    check_keys(written)
                text = written.encode()
            except (Mismatch, TypeError, ValueError, AttributeError, RecursionError) as error:
                raise Encode(self._plan.name, str(error)) from error
            finally:
                _current.fds = outer
            if len(text) > 127 and is_too_deep(text):
                raise Encode(self._plan.name, "nested deeper than 127 levels")
            if len(text) > self.max_message_len:
                raise TooLarge(len(text), self.max_message_len)
            fds = fields.numbers
            end = self._open()
            if (
                not fds
                and not beside
                and len(text) < MAX_PACKET
                and Sends.plainly
                and _done is None
            ):
                try:  # the usual case, in short
                    end.send(_pack(len(text)) + text, SEND_NOW)
                    return _NO_FILES
                except OSError as error:
                    # What has been through a frame is of a signal's handler, and the message is sent.
                    if error.errno is None or error.__traceback__.tb_next:  # type: ignore[union-attr]
                        raise
                    # Otherwise once more, and to the end.
            if beside:
                fds = fds + [number_of(fd) for fd in beside]
            done = [] if _done is None else _done
            self._send_text(end, text, fds, deadline, waits, done)
            if not fields.owners:
                return _NO_FILES
            return [owner._was_given() for owner in fields.owners if hasattr(owner, "_was_given")]
        except Full:
            if _keeps_if_full:
                move = False  # it is tried again
            raise
        finally:
            if move:
                for owner in fields.owners:
                    getattr(owner, "close", lambda: None)()

    def _send_text(
        self,
        end: Socket,
        text: bytes,
        fds: List[int],
        deadline: Optional[float],
        waits: bool,
        done: List[int],
    ) -> None:
        """Sends it, and puts something into the list: see `_packets.send`."""
        if len(fds) > _packets.MAX_FDS:
            raise TooManyFds(len(fds), _packets.MAX_FDS)
        packet: Union[bytes, memoryview] = _pack(len(text)) + text
        spill: Optional[Fd] = None
        refused = 0 if len(packet) <= MAX_PACKET else -1  # that one is not even tried

        def attempt(may_block: bool) -> bool:
            return _packets.send(
                end, packet, fds if spill is None else [spill.fileno(), *fds], done
            )

        try:
            while True:
                try:
                    if spill is None and len(packet) > MAX_PACKET:
                        raise OSError(errno.EMSGSIZE, "")
                    if attempt(False):
                        return
                    if not waits:
                        raise Full
                    if self._wait(end, POLLOUT, deadline, attempt):
                        return
                    raise TimedOut
                except OSError as error:
                    if done or error.errno is None:
                        raise
                    if error.errno != errno.EMSGSIZE:
                        raise self._failure(end, error) from error
                    refused += 1
                    # Some kernel may take less than it says. Then half of that, and so on.
                    limit = _packets.packet_limit(end) >> max(refused - _TRUST, 0)
                    if limit < _HEADER.size:
                        raise self._failure(end, error) from error
                # The socket's buffer is smaller than the packet, or than it was a moment ago: some other
                # process that shares the socket may have changed it.
                if len(fds) + 1 > _packets.MAX_FDS:
                    raise TooManyFds(len(fds) + 1, _packets.MAX_FDS)
                if spill is not None:
                    spill.close()
                    spill = None
                whole = memoryview(_pack(len(text)) + text)
                packet = whole[:limit]
                if limit < len(whole):
                    spill = _memfd.spill(whole[limit:])
        except Closed:
            raise self._is_closed() from None
        finally:
            if spill is not None:
                spill.close()

    def _failure(self, end: Socket, error: OSError) -> Exception:
        if self._socket is not end:
            return self._is_closed()
        if isinstance(error, (BrokenPipeError, ConnectionResetError, ConnectionRefusedError)):
            return Disconnected()
        if error.errno == errno.ETOOMANYREFS:
            return TooManyFdsInFlight()
        return Io("send a message")


# What signals' handlers have kept from being delivered: see `Receiver._recv`.
_Held = List[Any]
_kept_by: "weakref.WeakKeyDictionary[Receiver[Any], Deque[_Held]]" = weakref.WeakKeyDictionary()

# How often a message is tried again whose receive ended with an exception that says nothing of it.
_MOST_TRIES = 16


def take_first(kept: Deque[_Held], held: _Held) -> bool:
    """Moves what is in the first of the lists into another one, at once, so that each gets to one thread and no
    handler's exception loses it. False if there is none."""
    try:
        held.extend(chain.from_iterable(starmap(kept.popleft, ((),))))
    except IndexError:
        if held:
            raise
        return False
    return True


def _discard(kept: Deque[_Held]) -> None:
    held: _Held = []
    while take_first(kept, held):
        if len(held) == 2:
            _unpack(held)
        for each in held:
            if isinstance(each, Incoming):
                each.discard()
        del held[:]


def _unpack(held: _Held) -> None:
    """Makes of what recvmsg gave what does not need the slot."""
    slot, (length, ancillary, seen, _) = held
    ((((buffer,), _, _),)) = slot
    fds, stray = _packets.unpack(ancillary)
    inline = bytes(buffer[: min(length, MAX_PACKET)])
    held[:] = (Incoming(inline, length, seen & MSG_CTRUNC != 0, fds, stray),)
    _packets.give_back(slot)


def _after_fork() -> None:
    """The messages belong to the other process."""
    for kept in list(_kept_by.values()):
        _discard(kept)


os.register_at_fork(after_in_child=_after_fork)


class Receiver(_ChannelEnd, Generic[T]):
    """The receiving end of a channel. Iterating gives its messages until no sender is left.

    Receivers in several threads and processes share the work: each message reaches exactly one of them. The
    senders see `Disconnected` when the end is closed in every process.

    These raise `Disconnected` when every copy of the sender is gone, and so is every message, and `Io` when the call
    itself fails, out of memory or in a sandbox for instance: nothing was received then. What else they
    raise means that a message was received, which is consumed and whose descriptors are closed, and the next call
    gives the next one: `Decode`, `TooLarge`, `FdsLost`, `UnexpectedFds` or `Malformed`. An iteration goes on
    as well, with another ``for``. Once it is closed they raise `ValueError`.

    When a signal's handler raises, such as that of Ctrl-C, its exception ends the call, and the next call gives the
    message that had come already. (The descriptor may not say that one is waiting, then.)
    """

    _what = "receiver"

    #: How many bytes all blobs of one message may have, 1 GiB unless set.
    max_blob_len: int

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

    def _set_up(self, socket: Socket, type: Any) -> None:
        super()._set_up(socket, type)
        self.max_blob_len = DEFAULT_MAX_BLOB_LEN
        self._kept: Deque[_Held] = deque()
        self._tries = 0
        self._tried: Any = None

    @classmethod
    def _check(cls, candidate: Socket) -> None:
        _packets.check(candidate, True)

    def _settings(self) -> Any:
        return {**super()._settings(), "max_blob_len": self.max_blob_len}

    def close(self) -> None:
        super().close()
        if self._kept:
            _discard(self._kept)

    close.__doc__ = End.close.__doc__

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

    def _try_recv_with_fds(self) -> Tuple[T, List[Fd]]:
        beside: List[Fd] = []
        return self._recv(None, False, beside), beside

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
        # What this call has received: a slot, and behind it what recvmsg gave; then a text alone, or an `Incoming`.
        # Each step changes it at once or not at all, so whenever a signal's handler raises it is whole, and kept.
        # CPython: handlers run when a function begins, when a loop goes round and after a function in C has returned,
        # not between its last instruction and the assignment of what it gave (before 3.11: there too, see README.md).
        held: _Held = []
        kept = self._kept
        end: Optional[Socket] = None
        problem: Optional[Exception] = None
        try:
            if kept:
                self._take_kept(held)
            if not held:
                end = self._open()
                try:
                    held.append(_slots.pop())
                except IndexError:
                    held.append(_packets.fresh_slot())
                blocks = False
                try:
                    held.extend(starmap(end.recvmsg_into, held[0]))
                except OSError as error:
                    if len(held) > 1 or error.errno is None:
                        raise  # of a signal's handler
                    blocks = isinstance(error, BlockingIOError)
                    # Otherwise once more, and to the end.
                if len(held) < 2 or not held[1][0]:
                    problem = self._wait_for_packet(end, held, deadline, waits, blocks)
                    if problem is not None:
                        raise problem from problem.__cause__
            if len(held) == 2:
                slot, (length, ancillary, seen, _) = held
                ((((buffer,), _, _),)) = slot
                if not ancillary and 8 <= length <= MAX_PACKET and not seen & MSG_CTRUNC:
                    (declared,) = _unpack_from(buffer)
                    if declared == length - 8 and declared <= self.max_message_len:
                        text = bytes(buffer[8:length])  # the usual case, in short
                        held[:] = (text,)
                        _slots.append(slot)
                if len(held) == 2:
                    _unpack(held)
            packet = held[0]
            if packet.__class__ is bytes:
                message = self._decode(packet, NO_FDS, held)
            else:
                message = self._open_packet(packet, held, beside)
            return message  # type: ignore[no-any-return]
        except BaseException:
            if held[1:] or held and held[0].__class__ is not tuple:  # more than a slot
                # As it is: what another thread takes nobody changes any more.
                kept += (held,)
                self._settle()
            # The exception refers to this frame, which is not to refer to it, nor to keep the socket.
            end = problem = None
            raise

    def _wait_for_packet(
        self, end: Socket, held: _Held, deadline: Optional[float], waits: bool, blocks: bool
    ) -> Optional[Exception]:
        """Waits until something is held. Gives what is to be raised instead, if there is."""
        problem: Exception
        try:
            while True:
                if len(held) < 2 and (blocks or not _packets.receive(end, held, False)):
                    if not waits:
                        problem = Empty()
                        break
                    if not self._wait(
                        end, POLLIN, deadline, lambda block: _packets.receive(end, held, block)
                    ):
                        problem = TimedOut()
                        break
                length, ancillary, seen, _ = held[1]
                if length or ancillary or seen & MSG_CTRUNC:
                    return None
                what = _packets.what_nothing_means(end)
                if what == "empty packet":
                    return None
                if what == "end":
                    problem = Disconnected() if self._socket is end else self._is_closed()
                    break
                del held[1]
                blocks = False
        except Closed:
            problem = self._is_closed()
        except OSError as error:
            if len(held) > 1 or error.errno is None:
                raise  # of a signal's handler
            if self._socket is end:
                problem = Io("receive a message")
                problem.__cause__ = error.with_traceback(None)  # this frame refers to the problem
            else:
                problem = self._is_closed()
        self._drop(held)
        return problem

    def _drop(self, held: _Held) -> None:
        """Nothing came."""
        slot = held[0]
        del held[:]
        _packets.give_back(slot)

    def _settle(self) -> None:
        """Sees to it that what is kept is closed if nobody receives it."""
        if self not in _kept_by:
            _kept_by[self] = self._kept
            weakref.finalize(self, _discard, self._kept)

    def _take_kept(self, held: _Held) -> None:
        """Takes up a message whose receive an exception of a signal's handler has ended."""
        while not held and take_first(self._kept, held):
            if len(held) == 2:
                length, ancillary, seen, _ = held[1]
                if not (length or ancillary or seen & MSG_CTRUNC):
                    self._drop(held)  # the end, or nothing: to be asked again
                    continue
                _unpack(held)
            packet = held[0]
            if isinstance(packet, Incoming):
                packet.tries += 1
                tries = packet.tries
            else:
                self._tries = tries = self._tries + 1 if packet is self._tried else 1
                self._tried = packet
            if isinstance(packet, Incoming) and (packet.refused or not packet.restore()):
                packet.discard()
                del held[:]
            elif tries > _MOST_TRIES:
                _discard(deque([held[:]]))
                del held[:]

    def _open_packet(self, packet: Incoming, held: _Held, beside: Optional[List[Fd]]) -> Any:
        """The message of a packet, of any kind."""
        try:
            self._close_stray(packet)
            if packet.text is None:
                packet.text = self._text_of(packet)
            spilled = packet.spilled
            if spilled is not None:
                packet.spilled = None
                os.close(spilled)
            packet.blob_left = self.max_blob_len
            message = self._decode(packet.text, packet, None)
            left = packet.left()
            if left:
                if beside is None:
                    raise UnexpectedFds(len(left))
                beside[:] = packet.take_rest()
        except (Error, MemoryError):
            packet.refused = True
            packet.discard()
            del held[:]
            raise
        return message

    def _close_stray(self, packet: Incoming) -> None:
        if packet.stray:
            _packets.close_all(packet.stray)

    def _text_of(self, packet: Incoming) -> bytes:
        """The whole text of a packet, after all the checks around it."""
        length, inline = packet.length, packet.inline
        if packet.lost:
            raise FdsLost
        if length > MAX_PACKET:
            raise Malformed(f"a packet of {length} bytes is longer than the limit of {MAX_PACKET}")
        if length < 8:
            raise Malformed(
                f"{length} bytes are too few for the length of a message, which takes 8"
            )
        (declared,) = _unpack_from(inline)
        missing = declared - (length - 8)
        if missing < 0:
            raise Malformed(f"{length - 8} bytes of text came with a declared length of {declared}")
        if declared > self.max_message_len:
            raise TooLarge(declared, self.max_message_len)
        if not missing:
            return inline[8:]
        if not packet.numbers:
            raise Malformed(
                f"{missing} bytes of text are missing and no descriptor came with the rest"
            )
        memfd = packet.numbers[0]  # it does not count for the indices in the text
        assert memfd is not None
        text = _memfd.gather(inline[8:], memfd, missing)
        packet.spilled = memfd
        del packet.numbers[0]
        return text

    def _decode(self, text: bytes, fds: Incoming, held: Optional[_Held]) -> Any:
        plan = self._plan
        read = plan.read
        try:
            message = parse(text, plan.pairs)
            if read is not None:
                message = read(message, fds)
        except (Mismatch, RecursionError) as error:
            refused = Decode(plan.name, str(error))
            if held is not None:
                del held[:]
            try:
                raise refused from error
            finally:
                del refused  # it refers to this frame
        except MemoryError:
            if held is not None:
                del held[:]
            raise
        return message


@overload
def channel(
    type: Type[T],
    *,
    max_message_len: int = ...,
    max_blob_len: int = ...,
    buffer: Optional[int] = ...,
) -> Tuple[Sender[T], Receiver[T]]: ...


@overload
def channel(
    type: Any = ...,
    *,
    max_message_len: int = ...,
    max_blob_len: int = ...,
    buffer: Optional[int] = ...,
) -> Tuple[Sender[Any], Receiver[Any]]: ...


def channel(
    type: Any = Any,
    *,
    max_message_len: int = DEFAULT_MAX_MESSAGE_LEN,
    max_blob_len: int = DEFAULT_MAX_BLOB_LEN,
    buffer: Optional[int] = None,
) -> Tuple[Sender[Any], Receiver[Any]]:
    """Makes a channel for messages of a type; without one, for any JSON.

    `buffer` is how many bytes the channel holds, which the kernel doubles. Raises `Io` when this process is out of
    descriptors or the machine does not allow such a buffer, `TypeError` for a type that cannot be received.
    """
    plan_of(type)
    sending, receiving = _packets.pair()
    tx: Sender[Any] = Sender._of(sending, type)
    rx: Receiver[Any] = Receiver._of(receiving, type)
    tx.max_message_len = rx.max_message_len = max_message_len
    rx.max_blob_len = max_blob_len
    if buffer is not None:
        try:
            sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            granted = sending.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2
        except (OSError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno is None:
                raise
            raise Io("set the size of the channel's buffer") from error
        if granted < buffer:
            raise Io("set the size of the channel's buffer") from ValueError(
                f"{buffer} bytes asked for, net.core.wmem_max of this machine allows {granted}"
            )
    return tx, rx
