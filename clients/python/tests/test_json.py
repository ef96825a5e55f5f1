"""The table "What JSON cannot carry" of PROTOCOL.md, row by row: what happens in Python is what the table says. What
arrives from Rust, and there, is in tests/languages/clients/table.rs."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import os
import pathlib
import struct
import unittest
from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, List, NamedTuple, Optional, Tuple, Union

import wormhole_ipc as wormhole
from wormhole_ipc import U8, U64, U128

from .support import Case, packet, raw_send


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Side(str, enum.Enum):
    LEFT = "l"
    RIGHT = "r"


class Point(NamedTuple):
    x: int
    y: int


class Maybe(NamedTuple):
    value: Optional[float]


class Wrapped(NamedTuple):
    anything: Any


@dataclass
class Loose:
    anything: Any


@dataclass
class Inner:
    keys: Dict[int, int]
    wide: U128


class Table(Case):
    def arrives(self, hint: Any, value: Any) -> Any:
        tx, rx = wormhole.channel(hint)
        with tx, rx:
            tx.send(value)
            return rx.recv()

    def refused(self, hint: Any, *values: Any) -> None:
        """By the sender: nothing is sent, and the channel works as before."""
        tx, rx = wormhole.channel(hint)
        with tx, rx:
            for value in values:
                with self.assertRaises(wormhole.Encode, msg=f"{hint} <- {value!r}"):
                    tx.send(value)
                self.assertRaises(wormhole.Empty, rx.try_recv)
            raw_send(tx, packet(b"null"))  # it works as before
            try:
                rx.recv()
            except wormhole.Decode:
                pass

    def read(self, hint: Any, text: str) -> Any:
        """What a text of a foreign program is, or `Decode`."""
        tx, rx = wormhole.channel(hint)
        with tx, rx:
            raw_send(tx, packet(text.encode()))
            return rx.recv()

    def test_nan_and_infinities_are_refused_by_the_sender(self) -> None:
        for bad in (float("nan"), float("inf"), float("-inf")):
            self.refused(float, bad)
            self.refused(Optional[float], bad)
            self.refused(List[float], [1.0, bad])
            self.refused(Dict[str, float], {"x": bad})
            self.refused(Maybe, Maybe(bad))
            self.refused(Loose, Loose(bad), Loose([{"x": (bad,)}]))
            self.refused(Any, bad, [bad], {"x": bad}, {bad: 1}, Loose(bad), Maybe(bad))
        # What other programs write in their place.
        self.assertRaises(wormhole.Decode, self.read, float, "null")
        self.assertIsNone(self.read(Optional[float], "null"))
        for text in ("NaN", "Infinity", "-Infinity", "1e999"):
            self.assertRaises(wormhole.Decode, self.read, float, text)
            self.assertRaises(wormhole.Decode, self.read, Any, text)

    def test_something_that_is_written_null_is_refused_where_nothing_is(self) -> None:
        self.refused(Optional[Maybe], Maybe(None))
        self.refused(List[Optional[Maybe]], [None, Maybe(None)])
        self.assertEqual(self.arrives(Maybe, Maybe(None)), Maybe(None))
        self.assertEqual(self.arrives(Optional[Maybe], Maybe(1.5)), Maybe(1.5))
        # A choice puts the name around it.
        either = Optional[Union[Maybe, Point]]
        self.assertEqual(self.arrives(either, Maybe(None)), Maybe(None))
        self.assertIsNone(self.arrives(either, None))

    def test_keys_that_have_no_text_are_refused(self) -> None:
        for key in (float, bytes, Tuple[int, int], Point, FrozenSet[int], Optional[str], Any):
            self.assertRaises(TypeError, wormhole.channel, Dict[key, int])  # type: ignore[valid-type]
        self.refused(Any, {(1, 2): 3}, {b"x": 1}, {frozenset(): 1}, [{Point(1, 2): 3}])
        self.refused(Loose, Loose({(1, 2): 3}))
        self.refused(Any, {Color.RED: 1})  # where the type does not say so

    def test_keys_that_are_numbers_booleans_and_members_arrive_where_the_type_says_so(self) -> None:
        for hint, value, text in (
            (Dict[int, str], {1: "a", -(2**70): "b"}, None),
            (Dict[U8, int], {0: 1, 255: 2}, '{"0":1,"255":2}'),
            (Dict[bool, int], {True: 1, False: 0}, '{"true":1,"false":0}'),
            (Dict[Color, int], {Color.RED: 1, Color.BLUE: 2}, '{"RED":1,"BLUE":2}'),
            (Dict[Level, int], {Level.LOW: 1, Level.HIGH: 2}, '{"1":1,"2":2}'),
            (Dict[Side, int], {Side.LEFT: 1, Side.RIGHT: 2}, '{"l":1,"r":2}'),
        ):
            arrived = self.arrives(hint, value)
            self.assertEqual(arrived, value)
            self.assertEqual(list(map(type, arrived)), list(map(type, value)))
            if text is not None:
                self.assertEqual(self.read(hint, text), value)
        for hint, text in (
            (Dict[U8, int], '{"256":1}'),
            (Dict[U8, int], '{"1.0":1}'),
            (Dict[bool, int], '{"True":1}'),
            (Dict[bool, int], '{"1":1}'),
            (Dict[Color, int], '{"GREEN":1}'),
            (Dict[Color, int], '{"1":1}'),
            (Dict[Level, int], '{"LOW":1}'),
            (Dict[Level, int], '{"3":1}'),
            (Dict[Side, int], '{"LEFT":1}'),
        ):
            with self.assertRaises(wormhole.Decode, msg=f"{hint} <- {text}"):
                self.read(hint, text)
        self.refused(Dict[bool, int], {1: 1}, {"true": 1})
        self.refused(Dict[Color, int], {"RED": 1}, {1: 1}, {Level.LOW: 1})
        self.refused(Dict[Level, int], {1: 1})
        self.refused(Dict[U8, int], {256: 1}, {True: 1}, {"1": 1})

    def test_keys_of_a_message_without_a_type_arrive_as_text(self) -> None:
        sent = {1: "b", None: "c", 2.5: "d", Side.LEFT: "e"}
        expected = {"1": "b", "null": "c", "2.5": "d", "l": "e"}
        self.assertEqual(self.arrives(Any, sent), expected)
        self.assertEqual(
            self.arrives(Any, {True: 1, "x": {None: 2}}), {"true": 1, "x": {"null": 2}}
        )
        self.assertEqual(self.arrives(Dict[str, Any], {"x": {Level.HIGH: 1}}), {"x": {"2": 1}})

    def test_keys_that_are_written_alike_are_refused(self) -> None:
        for alike in (
            {1: "a", "1": "b"},
            {True: "a", "true": "b"},
            {None: "a", "null": "b"},
            {2.5: "a", "2.5": "b"},
            {1e16: "a", "1e+16": "b"},
            {Level.LOW: "a", "1": "b"},
            {-1: "a", "-1": "b"},
            collections.OrderedDict([("1", "a"), (1, "b")]),
        ):
            self.refused(Any, alike, [alike], {"x": ({"y": alike},)}, Loose(alike))
            self.refused(Loose, Loose(alike))
            self.refused(List[Any], [1, alike])
            self.refused(Tuple[int, Any], (1, alike))
            self.refused(Optional[List[Any]], [alike])
            self.refused(Wrapped, Wrapped(alike))
            self.refused(Union[Loose, Point], Loose(alike))
            self.refused(Dict[str, Any], {"x": alike})
            self.refused(dict, {"x": alike})
            self.refused(list, [alike])
        # From elsewhere: the last one counts, in a record it is refused.
        self.assertEqual(self.read(Any, '{"a":1,"a":2}'), {"a": 2})
        self.assertEqual(self.read(Dict[int, int], '{"1":1,"1":2}'), {1: 2})
        self.assertRaises(wormhole.Decode, self.read, Loose, '{"anything":1,"anything":2}')

    def test_integers_of_any_size_arrive_also_where_rust_buffers_them(self) -> None:
        for number in (2**53 + 1, 2**64, -(2**63) - 1, 2**128 - 1, -(10**1000)):
            self.assertEqual(self.arrives(int, number), number)
            self.assertEqual(self.arrives(Any, number), number)
            self.assertEqual(self.arrives(List[Any], [number]), [number])
        value = Inner({2**64: -(2**64)}, 2**128 - 1)
        self.assertEqual(self.arrives(Inner, value), value)
        self.refused(U64, 2**64, -1)
        self.refused(U128, 2**128)
        self.assertRaises(wormhole.Decode, self.read, U64, str(2**64))

    def test_integers_that_no_float_has_are_refused_as_floats(self) -> None:
        for number in (2**53 + 1, -(2**53) - 1, 10**30, 10**400):
            self.refused(float, number)
            self.refused(Optional[float], number)
        for number in (0, -5, 2**53, -(2**80)):
            arrived = self.arrives(float, number)
            self.assertEqual((arrived, type(arrived)), (number, float))
        # From elsewhere they are rounded, as everywhere.
        self.assertEqual(self.read(float, "9007199254740993"), 2.0**53)
        self.assertEqual(self.read(Any, "9007199254740993"), 2**53 + 1)

    def test_floats_arrive_to_the_last_bit(self) -> None:
        for number in (0.1 + 0.2, 1e16, 1e22, 1e23, 5e-324, 1.7976931348623157e308, -0.0, 2.0**64):
            bits = struct.pack("d", number)
            self.assertEqual(struct.pack("d", self.arrives(float, number)), bits)
            self.assertEqual(struct.pack("d", self.arrives(Any, number)), bits)
        # A float of 32 bits comes with as many digits as those take.
        (narrow,) = struct.unpack("f", struct.pack("f", 0.1))
        self.assertNotEqual(self.read(float, "0.1"), narrow)
        self.assertEqual(self.arrives(float, narrow), narrow)
        # Python reads -0 as an integer.
        for hint, expected in ((int, "0"), (Any, "0"), (float, "0.0")):
            self.assertEqual(repr(self.read(hint, "-0")), expected)

    def test_text_that_is_not_unicode_is_refused_by_the_sender(self) -> None:
        name = os.fsdecode(b"\xff")
        for bad in (name, "\ud800", "x\udfff"):
            self.refused(str, bad)
            self.refused(Dict[str, int], {bad: 1})
            self.refused(Any, bad, [bad], {bad: 1})
        for text in ('"\\ud800"', '{"\\udc00":1}'):
            self.assertRaises(wormhole.Decode, self.read, Any, text)
        self.assertEqual(self.arrives(str, "\0\u2028\U0001f600\uffff"), "\0\u2028\U0001f600\uffff")

    def test_what_has_no_form_in_json_is_refused(self) -> None:
        values = (
            pathlib.Path("/tmp"),
            datetime.datetime.now(),
            datetime.timedelta(1),
            decimal.Decimal("0.1"),
            1j,
            {1, 2},
            range(3),
        )
        for value in values:
            self.assertRaises(TypeError, wormhole.channel, type(value))
            self.refused(Any, value, [value], {"x": value})

    def test_a_message_without_a_type_holds_plain_values(self) -> None:
        for sent, arrived in (
            ((1, 2), [1, 2]),
            (b"\x00\xff", [0, 255]),
            (Point(1, 2), [1, 2]),
            (Loose({"a": (1,)}), {"anything": {"a": [1]}}),
            ([Color.RED, Level.LOW, Side.LEFT], ["RED", 1, "l"]),
            ({"a": None}, {"a": None}),
        ):
            self.assertEqual(self.arrives(Any, sent), arrived)

    def test_more_than_127_levels_are_refused_by_the_sender(self) -> None:
        deep: Any = []
        for _ in range(126):
            deep = [deep]
        self.assertEqual(self.arrives(Any, deep), deep)
        self.refused(Any, [deep], {"x": deep})
        self.refused(Loose, Loose(deep))
        endless: List[Any] = []
        endless.append(endless)
        self.refused(Any, endless, {"x": endless})


if __name__ == "__main__":
    unittest.main()
