"""The packets of conformance/, which the tests of all languages read. Its README says what they mean."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import struct
import unittest
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Union

import wormhole_ipc as wormhole
from wormhole_ipc import Blob, Fd, Receiver, Sender
from wormhole_ipc._fields import I64, I128, U8, U32, U64, U128

from .support import PACKAGE, Case, open_fds, raw_send

DATA = Path(os.environ.get("WORMHOLE_CONFORMANCE") or PACKAGE.parent.parent / "conformance")
FILES = ("packets", "text", "numbers", "values", "descriptors")


@dataclass
class Record:
    a: U32
    b: str
    c: List[U8]


@dataclass
class Job:
    name: str
    input: Fd
    reply: Sender[U32]


@dataclass
class Stop:
    pass


class Go(NamedTuple):
    value: U32


class At(NamedTuple):
    x: I64
    y: I64


@dataclass
class Turn:
    degrees: I64
    fast: bool


Choice = Union[Stop, Go, At, Turn]

TYPES: Dict[str, Any] = {
    "u8": U8,
    "i64": I64,
    "u64": U64,
    "i128": I128,
    "u128": U128,
    "f64": float,
    "optional_f64": Optional[float],
    "bool": bool,
    "string": str,
    "list": List[I64],
    "map": Dict[str, I64],
    "any": Any,
    "record": Record,
    "choice": Choice,
    "job": Job,
    "descriptor": Fd,
    "descriptors": List[Fd],
    "sender": Sender[U32],
    "receiver": Receiver[U32],
    "blob": Blob,
}


def data_of(pieces: Any) -> bytes:
    result = b""
    for piece in [pieces] if isinstance(pieces, (str, dict)) else pieces:
        if isinstance(piece, str):
            result += bytes.fromhex(piece)
        else:
            once = (
                piece["ascii"].encode("ascii") if "ascii" in piece else bytes.fromhex(piece["hex"])
            )
            result += once * piece.get("times", 1)
    return result


def normal(value: Any) -> Any:
    """A value of the data in the one form in which values are compared: bytes as `bytes`."""
    ((kind, content),) = [item for item in value.items() if item[0] != "value"]
    if kind in ("text", "descriptor", "blob"):
        return {kind: data_of(content)}
    if kind == "list":
        return {kind: [normal(item) for item in content]}
    if kind == "object":
        return {kind: {name: normal(item) for name, item in content.items()}}
    if kind == "choice" and "value" in value:
        return {kind: content, "value": normal(value["value"])}
    if kind in ("nested", "nested_objects"):
        inner: Any = {"list": []} if kind == "nested" else {"object": {}}
        for _ in range(content - 1):
            inner = {"list": [inner]} if kind == "nested" else {"object": {"x": inner}}
        return inner
    return value


class Descriptors:
    """What goes with a packet, and the other ends that the test keeps."""

    def __init__(self, data: Any) -> None:
        self.sent: List[int] = []
        self.kept: List[Any] = []
        for one in data or []:
            for _ in range(one.get("times", 1) if isinstance(one, dict) else 1):
                self.sent.append(self.open(one))

    def open(self, one: Any) -> int:
        if isinstance(one, dict):
            return memfd(one)
        if one == "pipe":
            reader, writer = os.pipe()
            os.close(writer)
            return reader
        if one == "stream socket":
            a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            b.close()
            return a.detach()
        if one == "unconnected socket":
            return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach()
        paths = {"file": "/proc/self/status", "directory": "/", "terminal": "/dev/ptmx"}
        if one in paths:
            return os.open(paths[one], os.O_RDONLY)
        tx, rx = wormhole.channel(U32)
        if one == "dead end":
            tx.close()
            return rx.detach()
        sent, kept = (tx, rx) if one == "sender" else (rx, tx)
        self.kept.append(kept)
        return sent.detach()

    def close_sent(self) -> None:
        for fd in self.sent:
            os.close(fd)


def memfd(data: Any) -> int:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING if "seals" in data else 0)
    os.write(fd, data_of(data["memfd"]))
    if "size" in data:
        os.ftruncate(fd, int(data["size"]))
    bits = {"seal": 1, "shrink": 2, "grow": 4, "write": 8, "future_write": 16}
    for seal in data.get("seals", []):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, bits[seal])
    if data.get("open") == "write":
        again = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
        os.close(fd)
        return again
    return fd


def shown(value: Any, kept: List[Any]) -> Any:
    """A value as the data writes it."""
    if value is None:
        return {"null": True}
    if isinstance(value, bool):
        return {"bool": value}
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, float):
        return {"f64": struct.pack(">d", value).hex()}
    if isinstance(value, str):
        return {"text": value.encode()}
    if isinstance(value, (Stop, Go, At, Turn)):
        choice: Dict[str, Any] = {"choice": type(value).__name__}
        if isinstance(value, Go):
            choice["value"] = shown(value.value, kept)
        elif isinstance(value, At):
            choice["value"] = shown(list(value), kept)
        elif isinstance(value, Turn):
            choice["value"] = {"object": {k: shown(v, kept) for k, v in vars(value).items()}}
        return choice
    if isinstance(value, list):
        return {"list": [shown(item, kept) for item in value]}
    if isinstance(value, (Record, Job)):
        return {"object": {k: shown(v, kept) for k, v in vars(value).items()}}
    if isinstance(value, dict):
        return {"object": {k: shown(v, kept) for k, v in value.items()}}
    if isinstance(value, Blob):
        return {"blob": bytes(value)}
    if isinstance(value, Fd):
        return shown_fd(value)
    assert isinstance(value, (Sender, Receiver)), value
    return shown_end(value, kept)


def shown_fd(fd: Fd) -> Any:
    mode = os.fstat(fd.fileno()).st_mode
    for test, name in (
        (stat.S_ISFIFO, "pipe"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISDIR, "directory"),
        (stat.S_ISCHR, "character device"),
    ):
        if test(mode):
            return {"file_type": name}
    return {"descriptor": os.pread(fd.fileno(), 1 << 20, 0)}


def shown_end(value: Union[Sender[Any], Receiver[Any]], kept: List[Any]) -> Any:
    try:
        if isinstance(value, Sender):
            value.send(5)
            assert kept[0].recv() == 5
            return {"end": "sender"}
        for other in kept:
            other.send(5)
        assert value.recv() == 5
        return {"end": "receiver"}
    except wormhole.Disconnected:
        return {"end": "dead"}


def close(value: Any) -> None:
    """Closes what a value holds."""
    if isinstance(value, list):
        for item in value:
            close(item)
    elif isinstance(value, Job):
        close([value.input, value.reply])
    elif hasattr(value, "close"):
        value.close()


class Conformance(Case):
    def run_all(self, file: str) -> None:
        cases = json.loads((DATA / f"{file}.json").read_text())
        self.assertTrue(cases)
        for case in cases:
            with self.subTest(case["name"]):
                self.run_case(case, GOOD[case["type"]])
            self.assertEqual(open_fds(), self.before, case["name"])

    def run_case(self, case: Any, good: Any) -> None:
        tx, rx = wormhole.channel(TYPES[case["type"]], buffer=212992)
        kept: List[Any] = []
        with tx, rx:
            try:
                rx.max_message_len = case.get("max_message_len", rx.max_message_len)
                for each in (case, good):
                    fds = Descriptors(each.get("fds"))
                    kept.append(fds.kept)
                    raw_send(tx, data_of(each["packet"]), fds.sent)
                    fds.close_sent()
                self.receive(rx, case, kept[0])
                rx.max_message_len = wormhole.DEFAULT_MAX_MESSAGE_LEN
                self.receive(rx, good, kept[1])
                self.assertRaises(wormhole.Empty, rx.try_recv)
            finally:
                close(kept)

    def receive(self, rx: Receiver[Any], case: Any, kept: List[Any]) -> None:
        expected = case.get("but", {}).get("python", case)
        before = open_fds()
        value: Any
        try:
            if "beside" in case:
                value, beside = rx.recv_with_fds()
            else:
                value, beside = rx.recv(), []
        except wormhole.Error as error:
            self.assertEqual(type(error).__name__, expected.get("error"), str(error))
            self.assertLess(len(str(error)), 1200)
            self.assertEqual(open_fds(), before)
            return
        self.assertIn("value", expected, value)
        self.assertEqual(shown(value, kept), normal(expected["value"]))
        wanted = Descriptors(case.get("beside"))
        self.assertEqual([shown_fd(fd) for fd in beside], [shown_fd(Fd(fd)) for fd in wanted.sent])
        if "encode" in case:
            tx, back = wormhole.channel(TYPES[case["type"]])
            with tx, back:
                tx.send_with_fds(value, beside)
                again, rest = back.recv_with_fds()
                self.assertEqual(shown(again, kept), normal(expected["value"]))
                self.assertEqual(len(rest), len(beside))
                close([again, rest])
        close([value, beside])

    def test_packets(self) -> None:
        self.run_all("packets")

    def test_text(self) -> None:
        self.run_all("text")

    def test_numbers(self) -> None:
        self.run_all("numbers")

    def test_values(self) -> None:
        self.run_all("values")

    def test_descriptors(self) -> None:
        self.run_all("descriptors")

    def test_every_file_is_read(self) -> None:
        self.assertEqual(sorted(path.stem for path in DATA.glob("*.json")), sorted(FILES))


def good_cases() -> Dict[str, Any]:
    """The first case of each type that gives a value."""
    good: Dict[str, Any] = {}
    for file in FILES:
        for case in json.loads((DATA / f"{file}.json").read_text()):
            if "value" in case and "max_message_len" not in case:
                good.setdefault(case["type"], case)
    return good


GOOD = good_cases()

if __name__ == "__main__":
    unittest.main()
