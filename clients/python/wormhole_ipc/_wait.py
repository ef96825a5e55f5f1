"""How a call waits: try, look again for a moment while that has been paying off, then sleep in the kernel."""

from __future__ import annotations

import _socket
import os
import select
import socket
from time import monotonic
from typing import Any, Callable, Dict, List, Optional

from . import _packets
from ._packets import Socket

#: How long a call looks again and again before it sleeps, in seconds.
SPIN = 50e-6

# At this score a call spins.
_ENOUGH = 4
_MOST = 8
_FIRST_PENALTY = 8
_LAST_PENALTY = 4096

# A full socket wakes its senders only once three quarters of its buffer are free, while a send succeeds as soon
# as any of it is. So senders look for themselves, now and then.
FIRST_RETRY = 0.001
LAST_RETRY = 0.064

# How long a call sleeps at most when there is no descriptor left to wake it with.
_WITHOUT_WAKER = 0.05


class Closed(Exception):
    """Another thread, or a signal's handler, has closed the end meanwhile."""


class Spin:
    """What one end of a channel has learned about its waits.

    To be woken costs more than most answers take to come, so it pays to look again for an answer, while to look
    again for what comes now and then would only burn the processor. Each time that it was in vain it takes twice as
    many quick answers until it is tried again.
    """

    __slots__ = ("score", "penalty")

    def __init__(self) -> None:
        self.score = 0
        self.penalty = _FIRST_PENALTY

    def failed(self) -> None:
        self.score = -self.penalty
        self.penalty = min(self.penalty * 2, _LAST_PENALTY)

    def succeeded(self, spun: bool) -> None:
        if self.score < _MOST:
            self.score += 1
        if spun and self.penalty > _FIRST_PENALTY:
            self.penalty -= 1

    def was_slow(self) -> None:
        if self.score > 0:
            self.score -= 1


class Waiters:
    """The sleeping calls of one end: closing it wakes them."""

    __slots__ = ("wakers",)

    def __init__(self) -> None:
        self.wakers: List[_socket.socket] = []

    def wake(self) -> None:
        for waker in tuple(self.wakers):
            try:
                waker.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                if error.errno is None:
                    raise


# The wakers of the calls that sleep now, and whose they are.
_asleep: Dict[Socket, Waiters] = {}


def _after_fork() -> None:
    """The calls that sleep are the other process's. To shut down a waker here would wake them for ever."""
    for waiters in list(_asleep.values()):
        waiters.wakers.clear()
    _asleep.clear()


os.register_at_fork(after_in_child=_after_fork)


def _waker() -> Optional[Socket]:
    """A descriptor of one sleeping call's own, which becomes ready when another thread wants to wake it. Whoever
    refers to it keeps it open, so it cannot be another file by the time that it is woken."""
    # KERNEL: a datagram socket without a peer polls as nothing until it is shut down, as hung up from then on:
    # tests/test_closing.py.
    try:
        return Socket(_packets.UNIX, int(socket.SOCK_DGRAM | socket.SOCK_NONBLOCK), 0)
    except OSError as error:
        if error.errno is None:
            raise
        return None


def _is_alone() -> bool:
    """Whether nobody can close an end while this thread sleeps, but for a signal's handler, which wakes it."""
    if getattr(select, "poll", None) is not _packets.poll:
        return False  # the greenlets of this thread go on meanwhile
    try:
        # KERNEL: proc_task_getattr counts the threads, those that Python knows nothing of too.
        return os.stat("/proc/self/task").st_nlink == 3
    except OSError as error:
        if error.errno is None:
            raise
        return False


def until_ready(
    end: Socket,
    events: int,
    spin: Spin,
    deadline: Optional[float],
    attempt: Callable[[bool], bool],
    waiters: Waiters,
    is_open: Callable[[], bool],
) -> bool:
    """Waits after an attempt that would have blocked, and runs `attempt` until it is done, which it says by a true
    value. It is told whether it may block. False at the deadline. Raises `Closed` when the end is closed."""
    since = monotonic()
    if spin.score >= _ENOUGH:
        stop = since + SPIN
        if deadline is not None and deadline < stop:
            stop = deadline
        while True:
            os.sched_yield()
            if attempt(False):
                spin.succeeded(True) if monotonic() <= since + 2 * SPIN else spin.failed()
                return True
            if monotonic() >= stop:
                break
        spin.failed()
        learns = False
    else:
        learns = True
    if not _sleep(end, events, deadline, attempt, waiters, is_open):
        return False
    if learns:
        spin.succeeded(False) if monotonic() <= since + 2 * SPIN else spin.was_slow()
    return True


def _sleep(
    end: Socket,
    events: int,
    deadline: Optional[float],
    attempt: Callable[[bool], bool],
    waiters: Waiters,
    is_open: Callable[[], bool],
) -> bool:
    alone = _is_alone()
    sends = events == select.POLLOUT
    # Blocked receivers of one socket are woken one by one, polling ones all at once, so a receive that may wait
    # forever blocks by itself. Only a poll can be woken by another thread that closes the end.
    if alone and deadline is None and not sends:
        if attempt(True):
            return True
        # Some other process has made the socket non-blocking, or a signal's handler has closed this end.
        if not is_open():
            raise Closed
    looks: Any = getattr(select, "poll", _packets.poll)()
    looks.register(end.fileno(), events)
    retry = FIRST_RETRY
    waker = None if alone else _waker()
    try:
        if waker is not None:
            _asleep[waker] = waiters
            waiters.wakers.append(waker)
            looks.register(waker.fileno(), select.POLLIN)
        while True:
            if not is_open():
                raise Closed
            left = None
            if deadline is not None:
                left = deadline - monotonic()
                if left <= 0:
                    return attempt(False)  # it may have been woken for a message at the last moment
            if sends:
                left = retry if left is None else min(left, retry)
                retry = min(retry * 2, LAST_RETRY)
            if waker is None and not alone:
                left = _WITHOUT_WAKER if left is None else min(left, _WITHOUT_WAKER)
            # Rounded up: not to look a moment before the deadline again and again.
            looks.poll(None if left is None else int(min(left, 1e6) * 1000 + 0.999))
            if not is_open():
                raise Closed
            if attempt(False):
                return True
    finally:
        if waker is not None:
            _asleep.pop(waker, None)
            if waker in waiters.wakers:
                waiters.wakers.remove(waker)
