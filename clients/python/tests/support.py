"""What the tests share: deadlines, counted descriptors, raw packets."""

from __future__ import annotations

import array
import faulthandler
import gc
import os
import socket
import struct
import unittest
import warnings
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

#: How long one test may take. Far more than it needs: only a hang gets there, and ends the program.
DEADLINE = 60.0

PACKAGE = Path(__file__).resolve().parent.parent


class Case(unittest.TestCase):
    """A test that fails instead of hanging, and that leaves no descriptor open."""

    def setUp(self) -> None:
        faulthandler.dump_traceback_later(DEADLINE, exit=True)
        self.before = open_fds()

    def tearDown(self) -> None:
        gc.collect()  # what a caught exception's frames still hold
        self.assertEqual(open_fds(), self.before)
        faulthandler.cancel_dump_traceback_later()


def open_fds() -> Dict[int, str]:
    """The open descriptors of this process, and what each one is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass  # that of the list itself
    return found


def fork() -> int:
    """Forks, of which newer versions warn: the thread that they see is the one with the deadline."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def packet(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def raw(end: object) -> socket.socket:
    """Another socket for an end of a channel, for what the package does not do."""
    number = os.dup(end.fileno())  # type: ignore[attr-defined]
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, number)


def raw_send(end: object, data: bytes, fds: Sequence[int] = ()) -> None:
    with raw(end) as plain:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = plain.sendmsg([data], rights, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        assert sent == len(data)


def raw_recv(end: object) -> Tuple[bytes, List[int]]:
    with raw(end) as plain:
        data, fds, _, _ = socket.recv_fds(plain, 1 << 20, 253, socket.MSG_CMSG_CLOEXEC)
        return data, list(fds)
