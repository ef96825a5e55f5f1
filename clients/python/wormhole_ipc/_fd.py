"""A descriptor that somebody owns."""

from __future__ import annotations

import os
from itertools import starmap
from types import TracebackType
from typing import Any, Callable, List, Optional, Protocol, Tuple, Type, TypeVar, Union


class HasFileno(Protocol):
    """An open file, a socket, an end of a channel, an `Fd`."""

    def fileno(self) -> int: ...


C = TypeVar("C", bound="Closing")


class Closing:
    """Something that the end of a ``with`` closes."""

    __slots__ = ()

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self: C) -> C:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()


class Fd(Closing):
    """An owned descriptor: closed by `close`, at the end of a ``with``, or when the last reference is gone.

    As a field of a message it stands for a descriptor of any kind. A message can also hold files and sockets
    as they are: see `Sender`.
    """

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        """Takes over a descriptor that nobody else will close."""
        self._number = number

    @classmethod
    def __wormhole_fd__(cls, index: Any, arguments: Tuple[Any, ...], fds: Any) -> Fd:
        return fds.take(index, cls, None)  # type: ignore[no-any-return]

    def __reduce__(self) -> Any:
        return Fd._shared, share(self.fileno())

    @classmethod
    def _shared(cls, copy: Any) -> Fd:
        return cls(copy.detach())

    def fileno(self) -> int:
        """The number. Raises `ValueError` once it is closed or given up."""
        if self._number < 0:
            raise ValueError("the descriptor is closed")
        return self._number

    def detach(self) -> int:
        """Gives up the descriptor: it is the caller's to close."""
        number = self.fileno()
        self._number = -1
        return number

    def close(self) -> None:
        """Closes it. Does nothing the second time."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        number = getattr(self, "_number", -1)
        if number >= 0:
            self._number = -1
            try:
                close(number)
            except OSError:
                pass

    def __repr__(self) -> str:
        return f"Fd({self._number})"


def opened(call: Callable[..., int], *arguments: Any) -> Fd:
    """What a call in C opens, with an owner before a signal's handler can run. Raises what the call raises."""
    made = Fd(-1)
    numbers: List[int] = []
    try:
        numbers[:] = starmap(call, (arguments,))  # no handler runs before the next line is done
        made._number = numbers[0]
    except BaseException:
        if numbers:  # before Python 3.11: see `Receiver._recv`
            made._number = numbers[0]
        raise
    return made


def number_of(fd: Union[int, HasFileno]) -> int:
    """The number of a descriptor, or of something that has one."""
    return fd if isinstance(fd, int) else fd.fileno()


def share(number: int) -> Tuple[Any]:
    """What stands for a descriptor in a pickle that goes to a process of `multiprocessing`."""
    from multiprocessing import reduction

    return (reduction.DupFd(number),)
