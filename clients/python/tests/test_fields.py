"""What a type says about the text, and what stands for descriptors."""

from __future__ import annotations

import enum
import io
import os
import socket
import sys
import threading
import unittest
from dataclasses import dataclass, field
from typing import (
    Annotated,
    Any,
    Dict,
    List,
    Literal,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Type,
    Union,
)
from unittest import mock

import wormhole_ipc as wormhole
from wormhole_ipc import U8, Blob, Fd, Range, Receiver, Sender, _fields, _text

from .support import Case, open_fds, packet, raw_recv, raw_send


@dataclass
class Answer:
    text: str


@dataclass
class Job:
    name: str
    file: io.FileIO
    reply: Sender[Answer]
    more: Optional[Job] = None


class Color(enum.Enum):
    RED = 1
    GREEN = 2


class Point(NamedTuple):
    x: int
    y: float


class Meters(NamedTuple):
    value: float


@dataclass
class Stop:
    pass


class _Port(NamedTuple):
    number: int


class Port(_Port):
    def __new__(cls, number: int) -> Port:
        if number < 1:
            raise ValueError("no port")
        return super().__new__(cls, number)


class Bits(enum.IntFlag):
    ONE = 1

    @classmethod
    def _missing_(cls, value: object) -> Any:
        raise KeyError(value)


@dataclass
class Left:
    right: Optional[Right]
    number: complex  # of which there is no plan


@dataclass
class Right:
    left: Optional[Left]


@dataclass
class Odd:
    kind: str = field(metadata={"wormhole": "type"})
    tags: List[str] = field(default_factory=list)
    limit: Optional[int] = None
    needed: Optional[int] = field(default=7)


@dataclass
class Files:
    raw: io.FileIO
    read: io.BufferedReader
    write: io.BufferedWriter
    text: io.TextIOWrapper
    stream: socket.socket
    other: List[Fd]
    named: Dict[str, Blob]


class Types(Case):
    def both_ways(self, type: Any, value: Any, text: str) -> None:
        """The value is written as that text, and the text is read as that value."""
        tx, rx = wormhole.channel(type)
        with tx, rx:
            tx.send(value)
            data, fds = raw_recv(rx)
            self.assertEqual((data[8:].decode(), fds), (text, []))
            raw_send(tx, data)
            received = rx.recv()
            self.assertEqual(received, value)
            self.assertIs(received.__class__, value.__class__)

    def refused(self, hint: Any, *texts: str) -> None:
        tx, rx = wormhole.channel(hint)
        with tx, rx:
            for text in texts:
                raw_send(tx, packet(text.encode()))
                with self.assertRaises(wormhole.Decode, msg=text):
                    rx.recv()

    def test_types_are_written_as_serde_json_writes_them(self) -> None:
        self.both_ways(None, None, "null")
        self.both_ways(bytes, b"\x00\xff", "[0,255]")
        self.both_ways(List[int], [1, 2], "[1,2]")
        self.both_ways(list, [1, {"a": []}], '[1,{"a":[]}]')
        self.both_ways(dict, {"a": {"b": 1}}, '{"a":{"b":1}}')
        self.both_ways(Sequence[bytes], [b"a"], "[[97]]")
        self.both_ways(Tuple[int, str], (1, "x"), '[1,"x"]')
        self.both_ways(Tuple[int, ...], (1, 2, 3), "[1,2,3]")
        self.both_ways(Dict[str, Any], {"a": [{"b": None}]}, '{"a":[{"b":null}]}')
        self.both_ways(Dict[int, str], {1: "x", -2: "y"}, '{"1":"x","-2":"y"}')
        self.both_ways(Dict[U8, str], {1: "x"}, '{"1":"x"}')
        self.both_ways(Optional[int], None, "null")
        self.both_ways(Optional[int], 5, "5")
        self.both_ways(Color, Color.RED, '"RED"')
        self.both_ways(List[Color], [Color.RED, Color.GREEN], '["RED","GREEN"]')
        self.both_ways(Literal["a", 1], "a", '"a"')
        self.both_ways(Point, Point(1, 0.5), "[1,0.5]")
        self.both_ways(Meters, Meters(0.5), "0.5")
        self.both_ways(Annotated[int, Range(1, 6)], 6, "6")
        self.both_ways(Annotated[str, "a note"], "x", '"x"')
        self.both_ways(Union[Stop, Answer, Meters], Stop(), '"Stop"')
        self.both_ways(Union[Stop, Answer, Meters], Answer("x"), '{"Answer":{"text":"x"}}')
        self.both_ways(Union[Stop, Answer, Meters], Meters(1.5), '{"Meters":1.5}')
        self.both_ways(Optional[Union[Stop, Answer]], None, "null")
        self.both_ways(Odd, Odd("x", ["y"], 1, 2), '{"type":"x","tags":["y"],"limit":1,"needed":2}')

    def test_what_is_not_of_the_type_is_refused(self) -> None:
        self.refused(int, "true", "1.0", '"1"', "null", "[1]")
        self.refused(float, "true", '"1"', "1" + "0" * 400)
        self.refused(bool, "0", "1", "null")
        self.refused(str, "1", "null", '["x"]')
        self.refused(bytes, "[256]", "[-1]", "[1.0]", "[true]", '"x"')
        self.refused(List[int], '[1,"2"]', '{"0":1}', "null")
        self.refused(Tuple[int, str], "[1]", '[1,"x",2]', '["x",1]', "{}")
        self.refused(
            Dict[int, str], '{"x":"y"}', '{"1.0":"y"}', '{"":"y"}', '{"+1":"y"}', '{"٣":"y"}'
        )
        self.refused(Dict[U8, str], '{"256":"x"}')
        # Or two keys would be one.
        self.refused(Dict[int, str], '{"01":"y"}', '{"-0":"y"}', '{"-01":"y"}', '{"1 ":"y"}')
        self.refused(Color, '"BLUE"', "1", "null", '{"RED":null}')
        self.refused(Literal["a", 1], '"b"', "true", "1.0")
        self.refused(U8, "-1", "256")
        self.refused(
            Odd, "{}", '{"kind":"x"}', '{"type":"x","type":"y"}', '{"type":"x","limit":"y"}'
        )
        self.refused(Union[Stop, Answer], '"Answer"', '{"Stop":1}', '"Go"', "{}", "null", "5")

    def test_members_that_are_missing_have_their_defaults(self) -> None:
        tx, rx = wormhole.channel(Odd)
        with tx, rx:
            raw_send(tx, packet(b'{"type":"x","unknown":[1]}'))
            self.assertEqual(rx.recv(), Odd("x", [], None, 7))

    def test_an_error_names_the_place(self) -> None:
        tx, rx = wormhole.channel(Job)
        with tx, rx:
            raw_send(
                tx, packet(b'{"name":"x","file":0,"reply":1,"more":{"name":5}}'), [0, tx.fileno()]
            )
            with self.assertRaisesRegex(wormhole.Decode, "Job.more: Job.name: expected a string"):
                rx.recv()

    def test_an_error_does_not_repeat_all_that_the_peer_has_sent(self) -> None:
        tx, rx = wormhole.channel(Color)
        with tx, rx:
            raw_send(tx, packet(b'"\\n\\u001b[31m' + b"x" * 100_000 + b'"'))
            with self.assertRaises(wormhole.Decode) as caught:
                rx.recv()
            self.assertLess(len(str(caught.exception)), 1200)
            self.assertTrue(str(caught.exception).isprintable())

    def test_types_that_cannot_be_received_are_refused_at_once(self) -> None:
        class Plain:
            pass

        for type in (Plain, set, Dict[float, int], Union[int, str], Type[int]):
            self.assertRaises(TypeError, wormhole.channel, type)

    def test_what_cannot_be_written_is_refused(self) -> None:
        cases: List[Tuple[Any, Any]] = [
            (Any, float("nan")),
            (Any, [float("inf")]),
            (Any, "\ud800"),
            (Any, {"\udc00": 1}),
            (Any, {1, 2}),
            (Any, {(1, 2): 3}),
            (Any, object()),
            (float, float("-inf")),
            (U8, 256),
            (U8, True),
            (Job, Answer("x")),
            (Color, "RED"),
            (Dict[int, str], {"1": "x"}),
            (Union[Stop, Answer], "Stop"),
            (Tuple[int, int], (1, 2, 3)),
        ]
        endless: List[Any] = []
        endless.append(endless)
        cases.append((Any, endless))
        deep: List[Any] = []
        for _ in range(127):
            deep = [deep]
        cases.append((Any, deep))
        for type, value in cases:
            tx, rx = wormhole.channel(type)
            with tx, rx:
                with self.assertRaises(wormhole.Encode):
                    tx.send(value)
                self.assertRaises(wormhole.Empty, rx.try_recv)
                raw_send(tx, packet(b"1"))  # it works as before

    def test_brackets_in_strings_are_no_depth(self) -> None:
        tx, rx = wormhole.channel(Any)
        with tx, rx:
            messages: List[Any] = [
                "[" * 1000,
                ['"[{\\"' * 300, "\\" * 301, {"]" * 200: "\\[" * 200}],
                [[["x\\", '"'] for _ in range(200)]] * 2,
                [{"[": {"}": []}} for _ in range(300)],
            ]
            for message in messages:
                tx.send(message)
                self.assertEqual(rx.recv(), message)

    def test_without_jsons_c_parts_the_text_is_the_same(self) -> None:
        def unknown(value: object) -> object:
            return str(value)

        value = {"a": [1, 0.5, None, True, "\x00é"], "b": {"c": object}}
        text = _text.writer(unknown)(value)
        with mock.patch("wormhole_ipc._text._encoder.c_make_encoder", None):
            write = _text.writer(unknown)
        self.assertEqual(write(value), text)
        for bad in (float("nan"), float("inf")):
            self.assertRaises(ValueError, write, bad)


class Ends(Case):
    def test_a_request_carries_the_channel_for_its_reply(self) -> None:
        tx, rx = wormhole.channel(Job)
        reply, answers = wormhole.channel(Answer)
        with tx, rx, answers:
            tx.send(Job("first", io.FileIO("/dev/null"), reply), move=True)
            self.assertRaises(ValueError, reply.fileno)
            job = rx.recv()
            self.assertEqual((job.name, job.file.read(), job.more), ("first", b"", None))
            job.reply.send(Answer("done"))
            self.assertEqual(answers.recv(), Answer("done"))
            job.reply.close()
            job.file.close()
            self.assertRaises(wormhole.Disconnected, answers.recv)

    def test_what_is_given_away_is_closed_when_it_cannot_be_sent_as_well(self) -> None:
        tx, rx = wormhole.channel(Job)
        reply, answers = wormhole.channel(Answer)
        rx.close()
        with tx, answers:
            with self.assertRaises(wormhole.Disconnected):
                tx.send(Job("x", io.FileIO("/dev/null"), reply), move=True)
            self.assertRaises(wormhole.Disconnected, answers.recv)

    def test_files_and_sockets_of_all_kinds(self) -> None:
        tx, rx = wormhole.channel(Files)
        a, b = socket.socketpair()
        reader, writer = os.pipe()
        with tx, rx:
            with open(os.dup(reader), "rb") as read, open(writer, "wb") as write:
                tx.send(
                    Files(
                        io.FileIO(reader),
                        read,
                        write,
                        open("/dev/null"),
                        a,
                        [Fd(os.dup(0))],
                        {"x": Blob.from_bytes(b"blob")},
                    ),
                    move=True,
                )
            files = rx.recv()
            files.write.write(b"hello")
            files.write.close()
            self.assertEqual(files.raw.read(2), b"he")
            self.assertEqual(files.read.read(), b"llo")
            self.assertEqual(files.text.read(), "")
            files.stream.send(b"x")
            self.assertEqual(b.recv(10), b"x")
            self.assertEqual(bytes(files.named["x"]), b"blob")
            for each in (files.raw, files.read, files.text, files.stream, b, files.named["x"]):
                each.close()

    def test_in_a_message_without_a_type_descriptors_are_numbers(self) -> None:
        tx, rx = wormhole.channel()
        reply, answers = wormhole.channel()
        with tx, rx, reply, answers, open("/dev/null") as null:
            tx.send(
                {"name": "x", "input": null, "reply": reply, "at": Point(1, 2.0), "c": Color.RED}
            )
            message, fds = rx.recv_with_fds()
            self.assertEqual(
                message, {"name": "x", "input": 0, "reply": 1, "at": [1, 2.0], "c": "RED"}
            )
            back: Sender[Any] = Sender(fds[message["reply"]])
            with back:
                back.send(5)
            self.assertEqual(answers.recv(), 5)
            fds[0].close()
            # And it can be made to fit the type.
            tx.send({"name": "x", "file": null, "reply": reply})
            typed = Receiver(rx.detach(), Job)
            job = typed.recv()
            self.assertEqual(job.name, "x")
            for each in (job.file, job.reply, typed):
                each.close()

    def test_descriptors_are_closed_when_the_rest_of_the_message_is_wrong(self) -> None:
        tx, rx = wormhole.channel(Files)
        with tx, rx:
            for text in (
                b'{"raw":0,"read":1,"write":2,"text":3,"stream":4,"other":[5],"named":{"x":6}}',
                b'{"raw":0,"read":1,"write":2,"text":3,"stream":4,"other":[5,6],"named":{}} x',
                b'{"stream":0}',
                b'{"raw":0,"raw":1}',
            ):
                before = open_fds()
                raw_send(tx, packet(text), [tx.fileno()] * 7)
                self.assertRaises(wormhole.Decode, rx.recv)
                self.assertEqual(open_fds(), before)

    def test_what_a_class_refuses_is_one_error(self) -> None:
        for hint, wrong in ((Port, b"0"), (List[Port], b"[1,0]"), (Bits, b"6")):
            tx, rx = wormhole.channel(hint)
            with tx, rx:
                raw_send(tx, packet(wrong))
                self.assertRaises(wormhole.Decode, rx.try_recv)
                self.assertRaises(wormhole.Empty, rx.try_recv)

    def test_a_memfd_that_cannot_be_read_is_one_error(self) -> None:
        tx, rx = wormhole.channel(str)
        with tx, rx:
            for call, error in (
                ("os.fstat", PermissionError(1, "denied")),
                ("os.pread", PermissionError(1, "denied")),
                ("os.pread", OverflowError("too long")),
            ):
                tx.send("x" * 1_000_000)
                with mock.patch(call, side_effect=error):
                    with self.assertRaisesRegex(wormhole.Malformed, "memfd"):
                        rx.try_recv()
                self.assertRaises(wormhole.Empty, rx.try_recv)

    def test_a_type_that_cannot_be_received_leaves_nothing_behind(self) -> None:
        known = set(_fields._plans)
        for _ in range(2):
            for hint in (Left, Right, Optional[Right], List[Left]):
                with self.assertRaisesRegex(TypeError, "complex"):
                    wormhole.channel(hint)
        self.assertEqual(set(_fields._plans), known)

    def test_threads_see_types_that_contain_themselves_whole(self) -> None:
        hints = _fields._hints

        def looked(kind: Any) -> Any:
            self.assertNotIn(kind, _fields._plans)
            return hints(kind)

        failed: List[BaseException] = []
        interval = sys.getswitchinterval()
        self.addCleanup(sys.setswitchinterval, interval)
        sys.setswitchinterval(1e-6)
        for _ in range(30):

            @dataclass
            class Node:
                value: int
                more: List[Node]

            def use(start: threading.Barrier, node: Any = Node) -> None:
                try:
                    start.wait(30)
                    tx, rx = wormhole.channel(node)
                    with tx, rx:
                        message = node(1, [node(2, [])])
                        tx.send(message)
                        assert rx.recv() == message
                except BaseException as error:
                    failed.append(error)

            start = threading.Barrier(4)
            threads = [threading.Thread(target=use, args=(start,)) for _ in range(4)]
            with mock.patch.object(_fields, "_hints", looked):
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(30)
            self.assertEqual(failed, [])

    def test_a_directory_is_no_file(self) -> None:
        for type in (io.FileIO, io.BufferedReader, io.TextIOWrapper):
            tx, rx = wormhole.channel(type)
            with tx, rx, Fd(os.open("/", os.O_RDONLY)) as root:
                before = open_fds()
                raw_send(tx, packet(b"0"), [root.fileno()])
                self.assertRaises(wormhole.Decode, rx.recv)
                self.assertEqual(open_fds(), before)

    def test_a_socket_that_cannot_be_a_text_file_is_closed_once(self) -> None:
        a, b = socket.socketpair()
        tx, rx = wormhole.channel(io.TextIOWrapper)
        with tx, rx, a, b:
            before = open_fds()
            raw_send(tx, packet(b"0"), [a.fileno()])
            with self.assertRaisesRegex(wormhole.Decode, "(?i)seek"):
                rx.recv()
            self.assertEqual(open_fds(), before)

    def test_a_message_sent_in_the_middle_of_another_one(self) -> None:
        outer, outer_rx = wormhole.channel()
        inner, inner_rx = wormhole.channel()

        class Nosy:
            def fileno(self) -> int:
                inner.send({"end": outer})
                return inner.fileno()

        with outer, outer_rx, inner, inner_rx:
            outer.send([inner, Nosy(), outer])
            message, fds = outer_rx.recv_with_fds()
            self.assertEqual((message, len(fds)), ([0, 1, 2], 3))
            message, fds = inner_rx.recv_with_fds()
            self.assertEqual((message, len(fds)), ({"end": 0}, 1))
            del fds


if __name__ == "__main__":
    unittest.main()
