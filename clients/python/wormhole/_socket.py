"""One packet out, one packet in, and what a socket must be. Each is one attempt; waiting is in `_wait`.

The socket objects are made so that Python takes them for ones that do not block, without setting the flag:
`O_NONBLOCK` lives in the socket, which other processes share. Then Python never polls by itself, and whether a
call blocks is up to `MSG_DONTWAIT`.
"""

from __future__ import annotations

import array
import fcntl
import mmap
import os
import select
import socket
import struct
import termios
from typing import Any, List, Optional, Tuple

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
_MSG_CTRUNC = int(socket.MSG_CTRUNC)
SEND_NOW = int(socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
_POLLRDHUP = getattr(select, "POLLRDHUP", 0x2000)


#: A packet that has come: the buffer that it is in, to be given back with `give_back`; its length, which may be
#: more than the buffer holds; its descriptors; and whether some of them did not make it into this process.
Packet = Tuple[memoryview, int, List[int], bool]


def wrap(fd: int) -> socket.socket:
    """Takes over a descriptor that is a socket; raises `NotAChannel`, and leaves it alone, if it is something
    else."""
    kind = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
    try:
        return socket.socket(socket.AF_UNIX, kind, 0, fd)
    except OSError as error:
        raise NotAChannel(os.strerror(error.errno or 0)) from None


def pair() -> Tuple[socket.socket, socket.socket]:
    """Makes the two sockets of a channel, the sending one first."""
    try:
        sending, receiving = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:
        raise Io("create a socket pair") from error
    for fresh in (sending, receiving):
        fresh.setblocking(True)  # `socket.setdefaulttimeout` may have said otherwise
    receiving.shutdown(socket.SHUT_WR)
    return wrap(sending.detach()), wrap(receiving.detach())


def adopt(fd: int) -> socket.socket:
    """Takes over a descriptor from elsewhere; closes it and raises `NotAChannel` if it is something else."""
    try:
        taken = wrap(fd)
    except BaseException:
        close_all([fd])
        raise
    try:
        check(taken)
    except BaseException:
        taken.close()
        raise
    return taken


def check(candidate: socket.socket) -> None:
    """Checks that a descriptor can be an end of a channel."""
    try:
        domain = candidate.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
        kind = candidate.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    except OSError as error:
        raise NotAChannel(os.strerror(error.errno or 0)) from None
    if domain != socket.AF_UNIX:
        raise NotAChannel(f"a socket of family {domain}, not AF_UNIX")
    if kind != socket.SOCK_SEQPACKET:
        raise NotAChannel(f"a unix socket of type {kind}, not SOCK_SEQPACKET")
    try:
        candidate.getpeername()
    except OSError:
        raise NotAChannel("a unix socket that is not connected") from None


def packet_limit(sending: socket.socket) -> int:
    """The longest packet that a sending socket takes."""
    return min(sending.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - 32, MAX_PACKET)


def send(sending: socket.socket, data: Any, fds: List[int]) -> None:
    """Sends a packet whole or not at all. Raises `OSError`, for one `BlockingIOError` instead of waiting."""
    if fds:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        sending.sendmsg([data], rights, SEND_NOW)
    else:
        sending.send(data, SEND_NOW)


# Buffers that nobody uses now. A list of them rather than one for each thread, because a signal handler may
# receive as well. A mapping takes up memory only as it is written to, and is private in forked processes.
buffers: List[memoryview] = []


def _fresh_buffer() -> memoryview:
    return memoryview(mmap.mmap(-1, MAX_PACKET, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def give_back(buffer: memoryview) -> None:
    if len(buffers) < 8:
        buffers.append(buffer)


def receive(receiving: socket.socket, may_block: bool) -> Optional[Packet]:
    """Receives a packet; `None` is the end of the channel. Raises `OSError`, for one `BlockingIOError` instead of
    waiting."""
    try:
        buffer = buffers.pop()
    except IndexError:
        buffer = _fresh_buffer()
    while True:
        try:
            length, ancillary, seen, _ = receiving.recvmsg_into(
                (buffer,), _ANCILLARY, _RECEIVE if may_block else _RECEIVE_NOW
            )
        except ConnectionResetError:
            continue  # the sender closed and left unread what was sent backwards to it: reported once
        except BaseException:
            buffers.append(buffer)
            raise
        lost = seen & _MSG_CTRUNC != 0
        if length and not ancillary:
            return buffer, length, _NO_FDS, lost
        if not length and not ancillary and not lost:
            what = _what_nothing_means(receiving)
            if what == "end":
                give_back(buffer)
                return None
            if what == "miss":
                continue
        return buffer, length, _unpack(ancillary), lost


_NO_FDS: List[int] = []  # never changed


def _unpack(ancillary: List[Tuple[int, int, bytes]]) -> List[int]:
    """The descriptors of a packet. Those that the kernel has added, because some other holder of the socket asked
    it to, are closed."""
    fds: List[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind in (socket.SCM_RIGHTS, _SCM_PIDFD):
            numbers = struct.unpack(f"{len(data) // 4}i", data[: len(data) // 4 * 4])
            if kind == socket.SCM_RIGHTS:
                fds.extend(numbers)
            else:
                close_all([number for number in numbers if number >= 0])
    return fds


def _what_nothing_means(receiving: socket.socket) -> str:
    """Why a receive gave no bytes: it is the end, or the receive missed something, or the packet was empty."""
    try:
        poll = select.poll()
        poll.register(receiving, _POLLRDHUP)
        if not any(events & _POLLRDHUP for _, events in poll.poll(0)):
            return "empty packet"
    except OSError:
        pass  # a sandbox denies poll: then it is nearly always the end
    # A receive that finds the queue empty looks only then whether the sender is gone, which may have sent and
    # closed meanwhile.
    queued = array.array("i", [0])
    try:
        fcntl.ioctl(receiving, termios.FIONREAD, queued)
    except OSError:
        return "end"
    return "miss" if queued[0] > 0 else "end"


def close_all(fds: List[int]) -> None:
    for fd in fds:
        try:
            os.close(fd)
        except OSError:
            pass
