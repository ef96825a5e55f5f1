"""Channels for asyncio: the same ends, whose waiting calls are coroutines.

    tx, rx = aio.channel(int)
    await tx.send(5)
    async for number in rx:
        ...

One message is one system call, so cancelling loses nothing: a cancelled `recv` has taken no message, a cancelled `send`
has sent none. So there are no timeouts here; ``asyncio.timeout`` and ``asyncio.wait_for`` around a call are safe.

Any number of tasks may use one end. The descriptors stay as they are: no flag is set on them. Ends of both kinds can
stand in messages and as types in them, and become one another: ``aio.Receiver(rx)``, ``rx.sync``.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import (
    Any,
    AsyncIterator,
    Callable,
    Deque,
    Generic,
    List,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
    Union,
    overload,
)

from . import _channel, _listener
from ._channel import DEFAULT_MAX_MESSAGE_LEN
from ._end import End
from ._errors import Disconnected, Empty, Full
from ._fd import Closing, Fd, HasFileno
from ._listener import Path, Peer
from ._message import DEFAULT_MAX_BLOB_LEN
from ._wait import FIRST_RETRY, LAST_RETRY

__all__ = ["Listener", "Receiver", "Sender", "channel", "connect"]

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S", bound="_Wrapper[Any]")
L = TypeVar("L", bound=End)

# So many calls in a row may be done at once until the other tasks have a turn.
_BUDGET = 64


class _Tasks:
    """The tasks that wait for a descriptor. The event loop watches it as long as there are some."""

    def __init__(self) -> None:
        self.waiting: Deque[asyncio.Future[None]] = deque()
        self.loop: Optional[asyncio.AbstractEventLoop] = None
        self.number = -1
        self.process = -1

    async def ready(self, number: int, sends: bool, at_most: Optional[float]) -> None:
        """Returns when the descriptor is ready or the time is over, and sometimes for nothing."""
        loop = asyncio.get_running_loop()
        if self.waiting and self.loop is not loop:
            raise RuntimeError("tasks of another event loop wait for this end")
        turn = loop.create_future()
        timer = None
        if not self.waiting:
            self.loop, self.number, self.process = loop, number, os.getpid()
            if sends:
                loop.add_writer(number, self._wake_one)
            else:
                loop.add_reader(number, self._wake_one)
        self.waiting.append(turn)
        if at_most is not None:
            timer = loop.call_later(at_most, _finish, turn)
        try:
            await turn
        finally:
            if timer is not None:
                timer.cancel()
            if turn in self.waiting:
                self.waiting.remove(turn)
            if not self.waiting and self.number >= 0:
                self._stop(sends)

    def _stop(self, sends: bool) -> None:
        number, self.number = self.number, -1
        if self.process != os.getpid():
            return  # what watches the descriptor is shared with the other process, whose tasks wait on
        if self.loop is not None and not self.loop.is_closed():
            if sends:
                self.loop.remove_writer(number)
            else:
                self.loop.remove_reader(number)

    def _wake_one(self) -> None:
        # The descriptor stays ready until somebody has taken what is there, so a task that is cancelled after it was
        # woken costs the others nothing.
        for turn in self.waiting:
            if not turn.done():
                turn.set_result(None)
                return
        # All have been woken, and have not run yet.

    def wake_all(self, sends: bool) -> None:
        """The end is about to be closed."""
        if self.number >= 0:
            self._stop(sends)
        for turn in self.waiting:
            _finish(turn)
        self.waiting = deque()


def _finish(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


class _Wrapper(Closing, Generic[L]):
    _sends = False
    _kind: Any

    #: The end itself, with calls that block.
    sync: L

    def __init__(self, sync: L) -> None:
        """Takes over an end. Use it through one of the two from then on."""
        self.sync = sync
        self._tasks = _Tasks()
        self._spent = 0

    @classmethod
    def __wormhole_fd__(cls: Type[S], index: Any, arguments: Tuple[Any, ...], fds: Any) -> S:
        return cls(cls._kind.__wormhole_fd__(index, arguments, fds))

    @property
    def _socket(self) -> Any:
        return self.sync._socket

    def fileno(self) -> int:
        """The number of the descriptor. Set no flags on it, other processes share them."""
        return self.sync.fileno()

    def close(self) -> None:
        """Closes this process's copy of the end. Calls that wait raise `ValueError`."""
        self._tasks.wake_all(self._sends)
        self.sync.close()

    async def __aenter__(self: S) -> S:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        return type(self), (self.sync,)

    def __repr__(self) -> str:
        return f"aio.{type(self).__name__}({self.sync!r})"

    async def _until(self, attempt: Callable[[], R], nothing: Type[Exception]) -> R:
        """What the attempt gives as soon as it does not raise `nothing`."""
        # To give way comes first: what the attempt has taken must not be lost by a cancellation after it.
        self._spent += 1
        if self._spent > _BUDGET:
            self._spent = 0
            await asyncio.sleep(0)
        retry = FIRST_RETRY
        while True:
            try:
                return attempt()
            except nothing:
                pass
            self._spent = 0
            await self._tasks.ready(self.fileno(), self._sends, retry if self._sends else None)
            # A full socket says that it is writable only when three quarters of its buffer are free.
            retry = min(retry * 2, LAST_RETRY)


class Sender(_Wrapper["_channel.Sender[Any]"], Generic[T]):
    """The sending end of a channel: see `wormhole_ipc.Sender`, whose errors these raise."""

    _sends = True
    _kind = _channel.Sender

    async def send(self, message: T, *, move: bool = False) -> None:
        """Sends a message, waiting while the channel is full. What was cancelled has sent nothing, and closed
        nothing."""
        await self.send_with_fds(message, (), move=move)

    async def send_with_fds(
        self, message: T, fds: Sequence[Union[int, HasFileno]], *, move: bool = False
    ) -> None:
        """Sends a message and beside it duplicates of `fds`."""
        await self._until(lambda: self._attempt(message, fds, move), Full)

    def _attempt(self, message: T, fds: Sequence[Union[int, HasFileno]], move: bool) -> None:
        self.sync._send(message, fds, None, False, move, _keeps_if_full=True)

    def try_send(self, message: T, *, move: bool = False) -> None:
        """Sends a message if there is room for it now. Raises `Full` as well."""
        self.sync.try_send(message, move=move)


class Receiver(_Wrapper["_channel.Receiver[Any]"], Generic[T]):
    """The receiving end of a channel: see `wormhole_ipc.Receiver`, whose errors these raise. ``async for`` gives its
    messages until no sender is left."""

    _kind = _channel.Receiver

    async def recv(self) -> T:
        """Receives the next message. What was cancelled has taken none."""
        return await self._until(self.sync.try_recv, Empty)

    async def recv_with_fds(self) -> Tuple[T, List[Fd]]:
        """Receives the next message, and the descriptors that came beside it."""
        return await self._until(self.sync._try_recv_with_fds, Empty)

    def try_recv(self) -> T:
        """Receives a message if one is waiting. Raises `Empty` as well."""
        return self.sync.try_recv()  # type: ignore[no-any-return]

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.recv()
        except Disconnected:
            raise StopAsyncIteration from None


class Listener(_Wrapper["_listener.Listener[Any]"], Generic[T]):
    """A name at which other processes connect: see `wormhole_ipc.Listener`. ``async for`` gives its clients."""

    _kind = _listener.Listener

    @classmethod
    def bind(
        cls,
        path: Path,
        type: Type[T],
        *,
        max_message_len: int = DEFAULT_MAX_MESSAGE_LEN,
        max_blob_len: int = DEFAULT_MAX_BLOB_LEN,
    ) -> Listener[T]:
        """Listens at a path, or at an abstract name. Raises `Address`."""
        return cls(
            _listener.Listener.bind(
                path, type, max_message_len=max_message_len, max_blob_len=max_blob_len
            )
        )

    async def accept(self) -> Tuple[Receiver[T], Peer]:
        """The next client. What was cancelled has accepted none."""
        receiver, peer = await self._until(self.sync.try_accept, Empty)
        return Receiver(receiver), peer

    def __aiter__(self) -> AsyncIterator[Tuple[Receiver[T], Peer]]:
        return self

    async def __anext__(self) -> Tuple[Receiver[T], Peer]:
        return await self.accept()


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


def channel(type: Any = Any, **options: Any) -> Tuple[Sender[Any], Receiver[Any]]:
    """Makes a channel: see `wormhole_ipc.channel`."""
    tx, rx = _channel.channel(type, **options)
    return Sender(tx), Receiver(rx)


@overload
async def connect(path: Path, type: Type[T]) -> Sender[T]: ...


@overload
async def connect(path: Path, type: Any = ...) -> Sender[Any]: ...


async def connect(path: Path, type: Any = Any) -> Sender[Any]:
    """Connects to a listener. Waits while more clients than the kernel has room for wait to be accepted. Raises
    `Address`."""
    retry = FIRST_RETRY
    while True:
        connected = _listener._try_connect(path, type)
        if connected is not None:
            return Sender(connected)
        await asyncio.sleep(retry)
        retry = min(retry * 2, LAST_RETRY)
