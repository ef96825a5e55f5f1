"""JSON as strict as the protocol has it, beside Python's own reading of the same texts."""

from __future__ import annotations

import json
import random
import unittest
from typing import Any

from wormhole_ipc._errors import Mismatch
from wormhole_ipc._text import MAX_DEPTH, is_too_deep, parse

from .support import Case

STRINGS = ["", "a", "[", "]]", "{", '"', "\\", '\\"', "\\\\[", "é", "\U0001f600", "\0", '["', "u"]


def some(numbers: random.Random, depth: int) -> Any:
    """A value of about that depth."""
    if depth <= 0:
        return numbers.choice([None, True, 1, -0.5, 10**30, *STRINGS])
    if numbers.random() < 0.5:
        return [
            some(numbers, depth - numbers.randint(1, 3)) for _ in range(numbers.randint(0, 2))
        ] + [some(numbers, depth - 1)]
    return {numbers.choice(STRINGS): some(numbers, depth - 1), "x" * depth: numbers.choice(STRINGS)}


def depth_of(value: Any) -> int:
    if isinstance(value, (list, dict)):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth_of, inner), default=0)
    return 0


class Text(Case):
    def test_what_is_valid_is_read_as_python_reads_it_up_to_the_depth(self) -> None:
        numbers = random.Random(1)
        seen = set()
        for turn in range(300):
            value = some(numbers, 8)
            for _ in range(numbers.choice([0, 100, 115, 120, 125, 130])):
                value = numbers.choice([[value], {"x": value}, [[], value, {}], {"[": value}])
            text = json.dumps(value, ensure_ascii=turn % 2 == 0, indent=turn % 3 or None).encode()
            depth = depth_of(value)
            seen.add(depth > MAX_DEPTH)
            self.assertEqual(is_too_deep(text), depth > MAX_DEPTH, text)
            if depth <= MAX_DEPTH:
                self.assertEqual(parse(text, False), value)
            else:
                self.assertRaises(Mismatch, parse, text, False)
        self.assertEqual(seen, {False, True})

    def test_what_is_broken_is_refused_or_read_as_python_reads_it(self) -> None:
        numbers = random.Random(2)
        read = 0
        for _ in range(3000):
            text = bytearray(json.dumps(some(numbers, 4), ensure_ascii=False).encode())
            for _ in range(numbers.randint(1, 3)):
                place = numbers.randrange(len(text))
                text[place : place + numbers.randint(0, 2)] = numbers.choice(
                    [
                        b"",
                        b"[",
                        b"]",
                        b'"',
                        b"\\",
                        b"\\ud800",
                        b"\xff",
                        b"NaN",
                        b"1e999",
                        b"0",
                        b" ",
                    ]
                )
            try:
                value = parse(bytes(text), False)
            except Mismatch:
                continue
            read += 1
            self.assertEqual(value, json.loads(text))
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        self.assertGreater(read, 100)


if __name__ == "__main__":
    unittest.main()
