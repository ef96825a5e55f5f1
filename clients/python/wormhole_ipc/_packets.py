"""One packet out, one packet in, and what a socket must be. Each is one attempt; waiting is in `_wait`.

The sockets are those of `_socket`, which no library that patches `socket` replaces, and are made so that Python takes
them for ones that do not block, without setting the flag: `O_NONBLOCK` lives in the socket, which other processes
share. Then Python never polls by itself, and whether a call blocks is up to `MSG_DONTWAIT`.

The kernel's errors have numbers. An `OSError` without one, such as `TimeoutError`, is of a signal's handler and goes
through, here as everywhere.
"""

from __future__ import annotations

import _socket
import array
import errno
import fcntl
import mmap
import os
import select
import socket
import struct
import sys
import termios
from itertools import chain, repeat, starmap
from typing import Any, Callable, Iterable, List, Tuple

from ._errors import Io, NotAChannel

#: The longest packet, and so the size of a receiver's buffer.
MAX_PACKET = 256 * 1024
#: The most descriptors that one packet carries (`SCM_MAX_FD`, unix(7)).
MAX_FDS = 253

_SCM_PIDFD = 4  # since Linux 6.5
# All descriptors, and what a foreign holder of the socket may have asked for: credentials, a label, a pidfd.
_ANCILLARY = socket.CMSG_SPACE(MAX_FDS * 4) + socket.CMSG_SPACE(12) + 320
# As plain integers: the flags of `socket` compute slowly.
_RECEIVE = int(socket.MSG_CMSG_CLOEXEC | socket.MSG_TRUNC)
_RECEIVE_NOW = int(_RECEIVE | socket.MSG_DONTWAIT)
MSG_CTRUNC = int(socket.MSG_CTRUNC)
SEND_NOW = int(socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
_POLLRDHUP = getattr(select, "POLLRDHUP", 0x2000)
KIND = int(socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
UNIX = int(socket.AF_UNIX)


def unpatched_poll() -> Callable[[], select.poll]:
    """`select.poll` itself: gevent and eventlet put their own in its place, which knows fewer events."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None:
        return gevent.get_original("select", "poll")  # type: ignore[no-any-return]
    if eventlet is not None:
        return eventlet.original("select").poll  # type: ignore[no-any-return]
    return select.poll


poll = unpatched_poll()


class Socket(_socket.socket):
    """A socket that closes when the last reference to it is gone, and not before: a thread that is in the middle of a
    call refers to it, so nobody can close its number under that thread. Both are written in C, so a signal's handler
    cannot get in between."""

    __slots__ = ("__weakref__",)
    __del__ = _socket.socket.close


def wrap(fd: int) -> Socket:
    """Takes over a descriptor that is a socket; raises `NotAChannel`, and leaves it alone, if it is something
    else."""
    try:
        return Socket(UNIX, KIND, 0, fd)
    except OSError as error:
        if error.errno is None:
            raise
        raise NotAChannel(os.strerror(error.errno)) from None


def take_over(fresh: Iterable[_socket.socket], made: List[Socket]) -> None:
    """Puts a `Socket` in the place of each socket that Python makes, without a moment at which nobody owns it."""
    detached = map(_socket.socket.detach, fresh)
    made.extend(map(Socket, repeat(UNIX), repeat(KIND), repeat(0), detached))


def pair() -> Tuple[Socket, Socket]:
    """Makes the two sockets of a channel, the sending one first."""
    made: List[Socket] = []
    pairs = starmap(_socket.socketpair, ((UNIX, int(socket.SOCK_SEQPACKET)),))
    try:
        take_over(chain.from_iterable(pairs), made)
    except OSError as error:
        if error.errno is None:
            raise
        raise Io("create a socket pair") from error
    sending, receiving = made
    for fresh in made:
        os.set_blocking(fresh.fileno(), True)  # `socket.setdefaulttimeout` may have said otherwise
    receiving.shutdown(socket.SHUT_WR)
    return sending, receiving


def bury(left: Socket) -> None:
    """Closes a socket that others still refer to: an inert one takes its number, which stays taken until they are
    gone."""
    # KERNEL: a call on a SEQPACKET socket that was never connected fails with ENOTCONN, and it polls as hung up:
    # tests/test_closing.py.
    try:
        inert = Socket(UNIX, KIND & ~socket.SOCK_NONBLOCK, 0)
        os.dup2(inert.fileno(), left.fileno(), inheritable=False)
    except OSError as error:
        if error.errno is None:
            raise
        # Out of descriptors: closed when the last of them is gone.


def check_kind(candidate: Socket) -> None:
    """Checks that a descriptor is a unix socket of the right type."""
    try:
        domain = candidate.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
        kind = candidate.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    except OSError as error:
        if error.errno is None:
            raise
        raise NotAChannel(os.strerror(error.errno)) from None
    if domain != socket.AF_UNIX:
        raise NotAChannel(f"a socket of family {domain}, not AF_UNIX")
    if kind != socket.SOCK_SEQPACKET:
        raise NotAChannel(f"a unix socket of type {kind}, not SOCK_SEQPACKET")


def check(candidate: Socket, receives: bool) -> None:
    """Checks that a descriptor can be an end of a channel, of this direction as far as can be known."""
    check_kind(candidate)
    try:
        candidate.getpeername()
    except OSError as error:
        if error.errno is None:
            raise
        raise NotAChannel("a unix socket that is not connected") from None
    if receives and nothing_can_come(candidate):
        raise NotAChannel("a sending end, where a receiving one is expected")
    if not receives and nothing_can_go(candidate):
        raise NotAChannel("a receiving end, where a sending one is expected")


def credentials(connected: Socket) -> Tuple[int, int, int]:
    """The pid, uid and gid of the process that has connected a socket, or made it in a pair."""
    found = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, gid = struct.unpack("3i", found)
    return pid, uid, gid


def events_of(candidate: Socket, mask: int) -> int:
    """What a socket polls as, now. Nothing where a sandbox denies poll."""
    try:
        looks = poll()
        looks.register(candidate.fileno(), mask)
        return sum(events for _, events in looks.poll(0))
    except OSError as error:
        if error.errno is None:
            raise
        return 0


def nothing_can_come(candidate: Socket) -> bool:
    """Whether a connected socket is a channel's sending one, whose peer lives and never writes."""
    # KERNEL: RDHUP is that the peer does not write any more, HUP that both directions are shut, so a peer that is
    # gone gives both: tests/test_channel.py.
    events = events_of(candidate, _POLLRDHUP)
    return bool(events & _POLLRDHUP and not events & select.POLLHUP and not queued(candidate))


_unreadable: List[mmap.mmap] = []


def _nowhere() -> mmap.mmap:
    """A byte that no system call can read."""
    if not _unreadable:
        _unreadable.append(mmap.mmap(-1, 1, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 0))
    return _unreadable[0]


def nothing_can_go(candidate: Socket) -> bool:
    """Whether a connected socket is a channel's receiving one, whose peer lives. Sends nothing."""
    if sys.implementation.name != "cpython":
        return False  # others may copy what is to be sent, and die of it
    try:
        looks = poll()
        looks.register(candidate.fileno(), _POLLRDHUP)
        if looks.poll(0):
            return False  # a sending one, or its peer is gone
        # KERNEL: a send looks first whether the socket may write (EPIPE), then for room (EAGAIN), and only then at the
        # bytes, which it cannot read (EFAULT): tests/test_strict.py.
        candidate.send(_nowhere(), SEND_NOW)
    except BrokenPipeError:
        return not looks.poll(0)  # or the peer has gone meanwhile
    except OSError as error:
        if error.errno is None:
            raise
        # And where a sandbox denies to ask.
    return False


def queued(receiving: Socket) -> int:
    """How many bytes of the next packet wait in a socket."""
    found = array.array("i", [0])
    try:
        fcntl.ioctl(receiving.fileno(), termios.FIONREAD, found)
    except OSError as error:
        if error.errno is None:
            raise
        return 0
    return found[0]


def packet_limit(sending: Socket) -> int:
    """The longest packet that a sending socket takes."""
    try:
        return min(sending.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - 32, MAX_PACKET)
    except OSError as error:
        if error.errno is None:
            raise
        raise Io("look up the size of the buffer") from error


class Sends:
    """Whether ``send``, which is the system call sendto, is allowed. Some sandboxes allow sendmsg alone."""

    plainly = True


def send(sending: Socket, data: Any, fds: List[int], done: List[int]) -> bool:
    """Sends a packet whole or not at all. False if it would block. Raises `OSError`.

    Once it is sent there is something in ``done``, from C, before a signal's handler can run: what is raised then is
    the handler's, and to send once more would be to send twice.
    """
    try:
        if not fds and Sends.plainly:
            try:
                done.extend(starmap(sending.send, ((data, SEND_NOW),)))
                return True
            except OSError as error:
                if done or error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSYS):
                    raise
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        done.extend(starmap(sending.sendmsg, (([data], rights, SEND_NOW),)))
        if not fds:
            Sends.plainly = False
        return True
    except BlockingIOError as error:
        if done or error.errno is None:
            raise
        return False


#: The arguments of a receive that does not wait, in a tuple of one for `starmap`; the buffer is among them.
Slot = Tuple[Tuple[Tuple[memoryview], int, int]]

# The ones that nobody uses now. A list of them rather than one for each thread, because a signal handler may receive
# as well. A mapping takes up memory only as it is written to, and is private in forked processes.
slots: List[Slot] = []


def fresh_slot() -> Slot:
    buffer = memoryview(mmap.mmap(-1, MAX_PACKET, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    return (((buffer,), _ANCILLARY, _RECEIVE_NOW),)


def give_back(slot: Slot) -> None:
    if len(slots) < 8:
        slots.append(slot)


def receive(receiving: Socket, held: List[Any], may_block: bool) -> bool:
    """Receives a packet into ``held``, which has a slot already: what recvmsg returns goes behind it. False if it
    would block. Raises `OSError`.

    The list gets it from C, before a signal's handler can run: once it is there only its owner can lose it.
    """
    slot = held[0]
    if may_block:
        ((buffers, ancillary, _),) = slot
        calls: Any = ((buffers, ancillary, _RECEIVE),)
    else:
        calls = slot
    while True:
        try:
            held.extend(starmap(receiving.recvmsg_into, calls))
        except OSError as error:
            if len(held) > 1 or error.errno is None:
                raise  # of a signal's handler
            if isinstance(error, BlockingIOError):
                return False
            if isinstance(error, ConnectionResetError):
                continue  # the sender closed and left unread what was sent backwards to it: reported once
            raise
        return True


def unpack(ancillary: List[Tuple[int, int, bytes]]) -> Tuple[List[int], List[int]]:
    """The descriptors of a packet, and those that the kernel has added because some other holder of the socket asked
    it to."""
    fds: List[int] = []
    stray: List[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind in (socket.SCM_RIGHTS, _SCM_PIDFD):
            numbers = struct.unpack(f"{len(data) // 4}i", data[: len(data) // 4 * 4])
            if kind == socket.SCM_RIGHTS:
                fds.extend(numbers)
            else:
                stray.extend(number for number in numbers if number >= 0)
    return fds, stray


def what_nothing_means(receiving: Socket) -> str:
    """Why a receive gave no bytes: it is the end, or the receive missed something, or the packet was empty."""
    try:
        looks = poll()
        looks.register(receiving.fileno(), _POLLRDHUP)
        if not any(events & _POLLRDHUP for _, events in looks.poll(0)):
            return "empty packet"
    except OSError as error:
        if error.errno is None:
            raise
        # A sandbox denies poll: then it is nearly always the end.
    # A receive that finds the queue empty looks only then whether the sender is gone, which may have sent and
    # closed meanwhile.
    return "miss" if queued(receiving) > 0 else "end"


def close_all(fds: List[int]) -> None:
    """Closes them and takes them off the list."""
    while fds:
        number = fds[-1]
        del fds[-1]
        try:
            os.close(number)
        except OSError as error:
            if error.errno is None:
                raise
