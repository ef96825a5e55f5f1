"""What is sent is checked like what is received, and what strangers send costs no more than it should."""

from __future__ import annotations

import ctypes
import enum
import errno
import io
import os
import platform
import struct
import unittest
from dataclasses import dataclass
from typing import Any, Dict, List, Literal, NamedTuple, Optional, Sequence, Tuple, Union
from unittest import mock

import wormhole_ipc as wormhole
from wormhole_ipc import U8, U128, Blob, Fd, Receiver, Sender, _packets
from wormhole_ipc._errors import excerpt
from wormhole_ipc._text import is_too_deep

from .support import Case, fork, open_fds, packet, raw_recv, raw_send


@dataclass
class Job:
    name: str
    size: int


class Point(NamedTuple):
    x: int
    y: int


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Color(str, enum.Enum):
    RED = "red"
    BLUE = "blue"


class Mode(enum.IntFlag):
    READ = 1
    WRITE = 2


#: fstat, newfstatat, statx, lseek and read.
CALLS_ON_FILES = {"x86_64": (5, 262, 332, 8, 0), "aarch64": (80, 79, 291, 62, 63)}


SENDTO = {"x86_64": 44, "aarch64": 206}


def deny(calls: Sequence[int], answer: int = errno.EBADF) -> None:
    """From now on these system calls fail in this process."""
    load, equal, done = 0x20, 0x15, 0x06
    steps = [(load, 0, 0, 0)]
    for place, call in enumerate(calls):
        steps.append((equal, len(calls) - place, 0, call))
    steps += [(done, 0, 0, 0x7FFF0000), (done, 0, 0, 0x00050000 | answer)]
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(buffer))
    prctl = ctypes.CDLL(None).prctl
    assert prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert prctl(22, 2, program, 0, 0) == 0  # PR_SET_SECCOMP


class Sending(Case):
    def test_what_is_not_of_the_type_is_not_sent(self) -> None:
        reply, answers = wormhole.channel(int)
        cases: List[Tuple[Any, List[Any]]] = [
            (int, ["five", 1.5, True, None, [1]]),
            (float, ["1", True, None, 10**400, float("nan")]),
            (str, [5, b"x", None, ["x"]]),
            (bool, [0, 1, "true", None]),
            (None, [0, False, ""]),
            (bytes, ["abc", [1, 2], 5, None]),
            (List[int], ["abc", [1, "2"], [True], {1: 2}, (1, 2), None]),
            (Sequence[int], ["abc", [1.5], {1}]),
            (Tuple[int, str], [(1, 2), [1, "x"], "ab", (1,), None]),
            (Tuple[int, ...], [[1], (1, "x"), 5]),
            (Dict[str, int], [{"a": "b"}, {1: 1}, ["a"], "a", None]),
            (Dict[int, str], [{"1": "x"}, {True: "x"}, {1: 1}]),
            (Dict[U8, str], [{256: "x"}]),
            (Optional[int], ["x", 1.5]),
            (Literal["a", 1], ["b", True, 1.0]),
            (Job, [Job(5, 1), Job("x", "y"), Job("x", True), {"name": "x", "size": 1}]),  # type: ignore[arg-type]
            (Point, [(1, 2), Point("x", 1), [1, 2]]),  # type: ignore[arg-type]
            (Level, [1, "LOW", Color.RED]),
            (Color, ["red", Level.LOW]),
            (Fd, ["x", 5]),
            (Sender[int], [answers, Fd(os.dup(0)), 5]),
            (Receiver[int], [reply, "x"]),
            (Blob, [b"bytes", reply]),
            (List[Job], [[Job("x", 1), Job(1, "x")]]),  # type: ignore[arg-type]
        ]
        with reply, answers:
            for hint, values in cases:
                tx, rx = wormhole.channel(hint)
                with tx, rx:
                    for value in values:
                        with self.assertRaises(wormhole.Encode, msg=f"{hint} <- {value!r}"):
                            tx.send(value)
                        self.assertRaises(wormhole.Empty, rx.try_recv)
            del cases, values, value

    def test_an_error_names_the_place(self) -> None:
        tx, rx = wormhole.channel(List[Job])
        with tx, rx:
            with self.assertRaisesRegex(wormhole.Encode, "Job.size: expected an integer, got 'y'"):
                tx.send([Job("x", "y")])  # type: ignore[arg-type]

    def test_enums_have_one_spelling(self) -> None:
        for value, text in (
            (Level.LOW, b"1"),
            (Color.RED, b'"red"'),
            (Mode.READ | Mode.WRITE, b"3"),
        ):
            for hint in (type(value), Any):
                tx, rx = wormhole.channel(hint)
                with tx, rx:
                    tx.send(value)
                    data, _ = raw_recv(rx)
                    self.assertEqual(data[8:], text)
                    raw_send(tx, data)
                    got = rx.recv()
                    self.assertEqual(got, value)
                    if hint is not Any:
                        self.assertIs(got.__class__, value.__class__)
        tx, rx = wormhole.channel(Level)
        with tx, rx:
            for text in (b"3", b"true", b'"LOW"', b"1.0"):
                raw_send(tx, packet(text))
                self.assertRaises(wormhole.Decode, rx.recv)

    def test_local_classes_work_or_say_what_to_do(self) -> None:
        @dataclass
        class Inner:
            x: int

        @dataclass
        class Outer:
            inner: Inner
            more: Optional[Outer] = None

        tx, rx = wormhole.channel(Outer)
        with tx, rx:
            message = Outer(Inner(1), Outer(Inner(2)))
            tx.send(message)
            self.assertEqual(rx.recv(), message)

        def made() -> Any:
            @dataclass
            class Gone:
                x: int

            @dataclass
            class Holder:
                gone: Gone

            return Holder

        with self.assertRaisesRegex(TypeError, "Holder.*'Gone'.*module's level"):
            wormhole.channel(made())

    def test_send_falls_back_to_sendmsg_in_a_sandbox(self) -> None:
        call = SENDTO.get(platform.machine())
        if call is None:
            self.skipTest(
                f"the numbers of the system calls of {platform.machine()} are not known here"
            )
        tx, rx = wormhole.channel(int)
        with tx, rx:
            child = fork()
            if child == 0:
                status = 1
                try:
                    deny([call], errno.EPERM)
                    tx.send(0)
                    status = 2 if _packets.Sends.plainly else 0
                    tx.send(1)
                finally:
                    os._exit(status)
            self.assertEqual(os.waitpid(child, 0)[1], 0)
            self.assertEqual(list(rx.try_iter()), [0, 1])


class Strangers(Case):
    def test_keys_of_one_hash_are_refused_and_wide_ones_are_not(self) -> None:
        tx, rx = wormhole.channel(Dict[int, int])
        wide, wide_rx = wormhole.channel(Dict[U128, int])
        with tx, rx, wide, wide_rx:
            step = 2**61 - 1
            text = "{" + ",".join(f'"{n * step}":1' for n in range(40_000)) + "}"
            tx.send({})
            rx.recv()
            raw_fd = os.memfd_create("test")
            data = text.encode()
            os.write(raw_fd, data)
            raw_send(tx, len(data).to_bytes(8, "little"), [raw_fd])
            os.close(raw_fd)
            with self.assertRaisesRegex(wormhole.Decode, "one hash"):
                rx.recv()
            for message in ({2**127: 1, -(2**200): 2}, {n * step: n for n in range(60)}):
                tx.send(message)
                self.assertEqual(rx.recv(), message)
            wide.send({2**128 - 1: 1})
            self.assertEqual(wide_rx.recv(), {2**128 - 1: 1})

    def test_depth_is_found_in_linear_time(self) -> None:
        # The square of these lengths would run into the deadline.
        for text in (
            b"[" * 127 + b"]" * 127,
            b"[" * 126 + b"[]" * 3 + b"]" * 126,
            b'{"a":' * 100 + b"[]" + b"}" * 100,
        ):
            many = b"[" + b",".join([text] * 4000) + b"]"
            self.assertEqual(is_too_deep(many), text.count(b"[") > 120)
        self.assertTrue(is_too_deep(b"[" * 2_000_000))
        self.assertTrue(is_too_deep(b"[" * 2_000_000 + b"]" * 2_000_000))
        self.assertTrue(is_too_deep(b"]" * 200 + b"[" * 200))
        self.assertFalse(is_too_deep(b"[" + b"[]," * 500_000 + b"[]]"))
        self.assertFalse(is_too_deep(b"[" * 127 + b"]" * 127))
        self.assertTrue(is_too_deep(b"[" * 128 + b"]" * 128))

    def test_blobs_are_counted_over_a_message_before_they_are_mapped(self) -> None:
        tx, rx = wormhole.channel(List[Blob], max_blob_len=3000)
        with tx, rx:
            small, large = Blob.from_bytes(b"x" * 1000), Blob.from_bytes(b"y" * 1001)
            with small, large:
                tx.send([small, small, small])
                for blob in rx.recv():
                    blob.close()
                tx.send([small, small, large])
                with mock.patch("mmap.mmap") as mapped:
                    mapped.return_value = b""
                    with self.assertRaisesRegex(wormhole.Decode, "1001 bytes where 1000 are left"):
                        rx.recv()
                    self.assertEqual(mapped.call_count, 2)
        self.assertEqual(wormhole.DEFAULT_MAX_BLOB_LEN, 2**30)

    def test_a_huge_and_empty_blob_is_refused_by_default(self) -> None:
        import fcntl

        tx, rx = wormhole.channel(Blob)
        memfd = os.memfd_create("huge", os.MFD_ALLOW_SEALING)
        os.ftruncate(memfd, 1 << 40)
        fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, 15)
        with tx, rx:
            raw_send(tx, packet(b"0"), [memfd])
            os.close(memfd)
            with self.assertRaisesRegex(wormhole.Decode, "max_blob_len"):
                rx.recv()
            with Blob.from_bytes(b"x") as blob:
                tx.send(blob)
                rx.recv().close()

    def test_an_end_of_the_wrong_direction_is_refused(self) -> None:
        import socket

        tx, rx = wormhole.channel(int)
        carrier, carried = wormhole.channel(Receiver[int])
        with tx, rx, carrier, carried:
            with self.assertRaisesRegex(wormhole.NotAChannel, "a sending end"):
                Receiver(os.dup(tx.fileno()), int)
            before = open_fds()
            raw_send(carrier, packet(b"0"), [tx.fileno()])
            with self.assertRaisesRegex(wormhole.Decode, "a sending end"):
                carried.recv()
            self.assertEqual(open_fds(), before)
            swapped, swapped_rx = wormhole.channel(Sender[int])
            with swapped, swapped_rx:
                for full in (False, True):
                    with self.assertRaisesRegex(wormhole.NotAChannel, "a receiving end"):
                        Sender(os.dup(rx.fileno()), int)
                    raw_send(swapped, packet(b"0"), [rx.fileno()])
                    with self.assertRaisesRegex(wormhole.Decode, "a receiving end"):
                        swapped_rx.recv()
                    self.assertEqual(
                        open_fds().keys() - before.keys(), {swapped.fileno(), swapped_rx.fileno()}
                    )
                    with self.assertRaises(wormhole.Empty if not full else wormhole.Full):
                        rx.try_recv() if not full else tx.try_send(0)
                    Sender(os.dup(tx.fileno()), int).close()
                    Receiver(os.dup(rx.fileno()), int).close()
                    try:
                        while not full:
                            tx.try_send(0)
                    except wormhole.Full:
                        pass
            # To ask sends nothing, and the ends work as before.
            self.assertEqual(set(rx.try_iter()), {0})
            Receiver(os.dup(rx.fileno()), int).close()
            tx.send(1)
            tx.close()
            with Receiver(os.dup(rx.fileno()), int) as again:
                self.assertEqual(list(again), [1])
            # Once the peer is gone nobody can tell.
            with Sender(os.dup(rx.fileno()), int) as dead:
                self.assertRaises(wormhole.Disconnected, dead.send, 1)
            tx, gone = wormhole.channel(int)
            with tx:
                # It may go in the middle of it.
                looks = mock.Mock(poll=mock.Mock(side_effect=[[], [(0, 16)]]))
                with mock.patch.object(_packets, "poll", return_value=looks):
                    Sender(os.dup(gone.fileno()), int).close()
                gone.close()
                with Sender(os.dup(tx.fileno()), int) as dead:
                    self.assertRaises(wormhole.Disconnected, dead.send, 1)
        # A pair that goes both ways.
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for one, other in ((a.dup(), b.dup()), (b, a)):
            with Sender(one, int) as tx, Receiver(other, int) as rx:
                tx.send(2)
                self.assertEqual(rx.recv(), 2)

    def test_an_fd_of_a_stranger_is_not_asked_for_anything(self) -> None:
        calls = CALLS_ON_FILES.get(platform.machine())
        if calls is None:
            self.skipTest(
                f"the numbers of the system calls of {platform.machine()} are not known here"
            )
        tx, rx = wormhole.channel()
        with tx, rx, open("/dev/null", "rb") as null:
            for hint, outcome in ((Fd, 0), (List[Fd], 0), (io.FileIO, 1), (io.TextIOWrapper, 1)):
                text = b"[0]" if hint == List[Fd] else b"0"
                raw_send(tx, packet(text), [null.fileno()])
                child = fork()
                if child == 0:
                    # Where the file's system would not answer, there is an error here.
                    deny(calls)
                    try:
                        Receiver(os.dup(rx.fileno()), hint).try_recv()
                    except wormhole.Decode:
                        os._exit(1)
                    except BaseException:
                        os._exit(2)
                    os._exit(0)
                _, status = os.waitpid(child, 0)
                self.assertEqual(os.WEXITSTATUS(status), outcome, hint)

    def test_what_cannot_be_seen_is_escaped_in_errors(self) -> None:
        hidden = "\u202e\u2066\u200b\u2028\u034f\u3164\ufe0f\x1b[31m\ufeff\u115f"
        shown = excerpt(hidden)
        self.assertTrue(shown.isascii(), shown)
        tx, rx = wormhole.channel(Color)
        with tx, rx:
            raw_send(tx, packet(f'"a{hidden[:4]}{hidden[4:7]}"'.encode()))
            with self.assertRaises(wormhole.Decode) as caught:
                rx.recv()
            for error in (caught.exception, caught.exception.__cause__):
                self.assertFalse(set(hidden[:7]) & set(str(error)), error)
            self.assertEqual(excerpt("naïve \u05d0 日本"), "naïve \u05d0 日本")

    def test_no_error_shows_what_cannot_be_seen(self) -> None:
        hidden = "\u202e\u2066\u200b\u2028\u034f\u3164\ufe0f\ufeff\u115f\x9b"
        errors: List[BaseException] = []

        def note(raised: Any, call: Any, *arguments: Any) -> None:
            with self.assertRaises(raised) as caught:
                call(*arguments)
            error: Any = caught.exception
            while error is not None and not isinstance(error, OSError):
                errors.append(error)
                error = error.__cause__

        quoted = f'"a{hidden}"'
        for hint, text in (
            (int, quoted),
            (U8, quoted),
            (Literal["a"], quoted),
            (Color, quoted),
            (Level, quoted),
            (List[int], f"[{quoted}]"),
            (Dict[int, int], f"{{{quoted}:1}}"),
            (Dict[Color, int], f"{{{quoted}:1}}"),
            (Dict[str, int], f"{{{quoted}:{quoted}}}"),
            (Job, f'{{"name":"x","size":{quoted}}}'),
            (Job, f"{{{quoted}:1}}"),
            (Union[Job, Point], quoted),
            (Union[Job, Point], f"{{{quoted}:1}}"),
            (Fd, quoted),
            (Any, f"{quoted} {hidden}"),
            (Any, hidden),
            (Any, f'"\\{hidden}"'),
        ):
            tx, rx = wormhole.channel(hint)
            with tx, rx:
                raw_send(tx, packet(text.encode()))
                note(wormhole.Decode, rx.recv)
                note(wormhole.Encode, tx.send, {f"a{hidden}", 1})
        note(wormhole.Address, wormhole.connect, f"/missing/{hidden}")
        note(wormhole.Address, wormhole.Listener.bind, f"/missing/{hidden}", int)
        note(wormhole.Io, wormhole.spawn, [f"/missing/{hidden}"])
        with mock.patch.dict(os.environ, WORMHOLE_FD=hidden):
            note(wormhole.NotInherited, wormhole.inherit)
        self.assertGreater(len(errors), 60)
        for error in errors:
            self.assertFalse(set(hidden) & set(str(error)), repr(error))


if __name__ == "__main__":
    unittest.main()
