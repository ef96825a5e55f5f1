"""How a call waits: try, look again for a moment while that has been paying off, then sleep in the kernel."""

from __future__ import annotations

import os
import select
import socket
from time import monotonic
from typing import Callable, Optional, TypeVar

from ._errors import TimedOut

R = TypeVar("R")

#: How long a call looks again and again before it sleeps, in seconds.
SPIN = 50e-6

# At this score a call waits awake.
_ENOUGH = 4
_MOST = 8
_FIRST_PENALTY = 8
_LAST_PENALTY = 4096

# A full socket wakes its senders only once three quarters of its buffer are free, while a send succeeds as soon
# as any of it is. So senders look for themselves, now and then.
_FIRST_RETRY = 0.001
_LAST_RETRY = 0.064


class Spin:
    """What one end of a channel has learned about its waits.

    To be woken costs more than most answers take to come, so who waits for an answer does better to look again;
    who waits for what comes now and then would only burn the processor. Each time that it was in vain it takes
    twice as many quick answers until it is tried again.
    """

    __slots__ = ("score", "penalty")

    def __init__(self) -> None:
        self.score = 0
        self.penalty = _FIRST_PENALTY

    def failed(self) -> None:
        self.score = -self.penalty
        self.penalty = min(self.penalty * 2, _LAST_PENALTY)

    def succeeded(self, awake: bool) -> None:
        if self.score < _MOST:
            self.score += 1
        if awake and self.penalty > _FIRST_PENALTY:
            self.penalty -= 1

    def was_slow(self) -> None:
        if self.score > 0:
            self.score -= 1


def until_ready(
    end: socket.socket,
    events: int,
    spin: Spin,
    deadline: Optional[float],
    attempt: Callable[[bool], R],
) -> R:
    """Waits after an attempt that would have blocked, and runs `attempt` until it has a result. It is told whether
    it may block. Raises `TimedOut` at the deadline."""
    since = monotonic()
    sends = events == select.POLLOUT
    if spin.score >= _ENOUGH:
        stop = since + SPIN
        if deadline is not None and deadline < stop:
            stop = deadline
        while True:
            os.sched_yield()
            try:
                result = attempt(False)
            except BlockingIOError:
                if monotonic() < stop:
                    continue
                break
            spin.succeeded(True) if monotonic() <= since + 2 * SPIN else spin.failed()
            return result
        spin.failed()
        learns = False
    else:
        learns = True
    retry = _FIRST_RETRY
    poll: Optional[select.poll] = None
    # Blocked receivers of one socket are woken one by one, polling ones all at once, so a receive that may wait
    # for ever blocks by itself.
    may_block = deadline is None and not sends
    while True:
        if not may_block:
            left = None
            if deadline is not None:
                left = deadline - monotonic()
                if left <= 0:
                    raise TimedOut
            if sends:
                left = retry if left is None else min(left, retry)
                retry = min(retry * 2, _LAST_RETRY)
            if poll is None:
                poll = select.poll()
                poll.register(end, events)
            # Rounded up: not to look a moment before the deadline again and again.
            poll.poll(None if left is None else int(min(left, 1e6) * 1000 + 0.999))
        try:
            result = attempt(may_block)
        except BlockingIOError:
            may_block = False  # some other process has made the socket non-blocking
            continue
        if learns:
            spin.succeeded(False) if monotonic() <= since + 2 * SPIN else spin.was_slow()
        return result
