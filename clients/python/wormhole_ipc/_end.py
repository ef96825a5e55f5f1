"""What all ends of channels, and listeners, have in common: one socket, which closes when it should."""

from __future__ import annotations

import _socket
import fcntl
import os
import pickle
import socket
import weakref
from typing import Any, Callable, List, Optional, Tuple, Type, TypeVar, Union

from . import _packets
from ._errors import NotAChannel
from ._fd import Closing, Fd, number_of, opened, share
from ._fields import Plan, plan_of
from ._packets import Socket
from ._wait import Spin, Waiters, until_ready

E = TypeVar("E", bound="End")


class End(Closing):
    """A socket and the type of what goes through it.

    It closes when the last reference to the socket is gone, so closing is to give up this end's. Calls of other
    threads that are in the middle of something have references of their own.
    """

    _what = "end of the channel"
    _socket: Optional[Socket]

    def _set_up(self, socket: Socket, type: Any) -> None:
        self._socket = socket
        self._type = type
        self._plan: Plan = plan_of(type)
        self._spin = Spin()
        self._waiters = Waiters()

    @classmethod
    def _of(cls: Type[E], socket: Socket, type: Any) -> E:
        made = cls.__new__(cls)
        made._set_up(socket, type)
        return made

    @classmethod
    def _check(cls, candidate: Socket) -> None:
        raise NotImplementedError

    @classmethod
    def _adopt(cls, fd: Union[int, Fd, socket.socket]) -> Socket:
        """Takes over a descriptor from elsewhere; closes it if it is something else."""
        owner: Any = fd
        if not isinstance(fd, (int, Fd, _socket.socket)):
            owner = fd.detach()  # of a library that patches `socket`
        number = number_of(owner)
        detach: Any = _socket.socket.detach if isinstance(owner, _socket.socket) else Fd.detach
        given = (owner,) if isinstance(owner, int) else map(detach, (owner,))
        taken: List[Socket] = []
        try:
            # At once: a signal's handler finds it owned by one or by the other.
            taken[:] = map(Socket, (_packets.UNIX,), (_packets.KIND,), (0,), given)
        except BaseException as error:
            if not taken:
                if isinstance(owner, Fd):
                    owner._number = -1
                elif isinstance(owner, _socket.socket):
                    owner.detach()
                _packets.close_all([number])
            if not isinstance(error, OSError) or error.errno is None:
                raise
            raise NotAChannel(os.strerror(error.errno)) from None
        cls._check(taken[0])
        return taken[0]

    @classmethod
    def __wormhole_fd__(cls: Type[E], index: Any, arguments: Tuple[Any, ...], fds: Any) -> E:
        taken = fds.take(index, Socket, _packets.UNIX, _packets.KIND, 0, None)
        cls._check(taken)
        return cls._of(taken, arguments[0] if arguments else Any)

    def fileno(self) -> int:
        """The number of the descriptor, for `selectors` and `asyncio`. Set no flags on it, other processes share
        them. Raises `ValueError` once it is closed."""
        return self._open().fileno()

    def _open(self) -> Socket:
        socket = self._socket
        if socket is None:
            raise self._is_closed()
        return socket

    def _is_closed(self) -> ValueError:
        return ValueError(f"the {self._what} is closed")

    def _wait(
        self,
        socket: Socket,
        events: int,
        deadline: Optional[float],
        attempt: Callable[[bool], bool],
    ) -> bool:
        """False at the deadline. Raises `_wait.Closed` if this end is closed meanwhile."""
        return until_ready(
            socket,
            events,
            self._spin,
            deadline,
            attempt,
            self._waiters,
            lambda: self._socket is socket,
        )

    def detach(self) -> int:
        """Gives up the descriptor: it is the caller's to close. Calls of other threads that wait raise
        `ValueError`."""
        socket = self._open()
        self._socket = None
        if self._waiters.wakers:
            copy = opened(fcntl.fcntl, socket.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
            self._waiters.wake()
            _packets.bury(socket)
            return copy.detach()
        return socket.detach()

    def close(self) -> None:
        """Closes this process's copy of the end. Does nothing the second time. Calls that wait in other threads
        raise `ValueError` at once. The end of a ``with`` does it too, and so does losing the last reference."""
        socket, self._socket = self._socket, None
        if socket is None:
            return
        self._waiters.wake()
        reference = weakref.ref(socket)
        del socket
        left = reference()
        if left is not None:
            _packets.bury(left)

    def __reduce__(self) -> Any:
        try:
            pickle.dumps(self._type)
        except Exception as error:
            raise pickle.PicklingError(
                f"a {type(self).__name__} of {self._plan.name} cannot go to another process: {error}. Define the type "
                "at a module's level, where that process finds it"
            ) from None
        return _shared, (type(self), self._type, self._settings(), *share(self.fileno()))

    def _settings(self) -> Any:
        return {}

    def __repr__(self) -> str:
        socket = self._socket
        state = "closed" if socket is None else f"fd {socket.fileno()}"
        return f"<{type(self).__name__} of {self._plan.name}, {state}>"


def _shared(kind: Type[E], type: Any, settings: Any, copy: Any) -> E:
    """An end that came through `multiprocessing`."""
    made = kind._of(kind._adopt(copy.detach()), type)
    for name, value in settings.items():
        setattr(made, name, value)
    return made
