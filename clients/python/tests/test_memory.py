"""How much memory a received message takes up, as a multiple of its text: its type decides. The figures are in
SECURITY.md; ``python3 -m tests.test_memory`` prints them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, NamedTuple

import wormhole_ipc as wormhole

from .support import PACKAGE, Case, raw_send

SIZE = 1 << 20


@dataclass
class Point:
    x: int


class Kind(NamedTuple):
    """A type, and a text that begins, goes on over and over, and ends like this."""

    hint: Any
    start: str
    item: str
    end: str
    #: What no version of Python should come near.
    most: float

    def pieces(self) -> Iterator[bytes]:
        """The text, never much of it at once: what is freed again would make room for the message."""
        yield self.start.encode()
        at_once = 10_000 // len(self.item)
        for place in range(0, SIZE // len(self.item), at_once):
            if "%" in self.item:
                numbers = range(place, place + at_once)
                yield "".join([self.item % number for number in numbers]).encode()
            else:
                yield self.item.encode() * at_once
        yield self.end.encode()


KINDS: Dict[str, Kind] = {
    "bytes": Kind(bytes, "[", "0,", "0]", 20),
    "floats": Kind(List[float], "[", "0.5,", "0.5]", 40),
    "lists": Kind(List[List[int]], "[", "[],", "[]]", 80),
    "filled lists": Kind(List[List[int]], "[", "[0],", "[0]]", 80),
    "objects": Kind(Any, "[", "{},", "{}]", 80),
    "filled objects": Kind(Any, "[", '{"":0},', "{}]", 80),
    "nested lists": Kind(List[Any], "[", "[" * 120 + "]" * 120 + ",", "[]]", 150),
    "nested objects": Kind(List[Any], "[", '{"":' * 120 + "0" + "}" * 120 + ",", "{}]", 150),
    "records": Kind(List[Point], "[", '{"x":0},', '{"x":0}]', 120),
    "maps": Kind(List[Dict[int, int]], "[", '{"1":1},', "{}]", 120),
    "keys": Kind(Dict[int, int], "{", '"1%05d":0,', '"0":0}', 60),
    "text": Kind(str, '"', "x", '"', 8),
    "text with an emoji": Kind(str, '"\U0001f600', "x", '"', 16),
}


def status(name: str) -> int:
    with open("/proc/self/status") as file:
        (found,) = (line for line in file if line.startswith(name + ":"))
    return int(found.split()[1]) << 10


def growth(kind: Kind) -> float:
    """By how much this process grows, which has received nothing before."""
    tx, rx = wormhole.channel(kind.hint)
    memfd = os.memfd_create("text")
    size = sum(os.write(memfd, piece) for piece in kind.pieces())
    raw_send(tx, size.to_bytes(8, "little"), [memfd])
    before = status("VmRSS")
    message = rx.recv()
    assert message is not None
    return (status("VmHWM") - before) / size


def growths() -> Dict[str, float]:
    found = {}
    for name, kind in KINDS.items():
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, b"%.1f" % growth(kind))
            os._exit(0)
        os.close(writer)
        found[name] = float(os.read(reader, 100) or b"nan")
        os.close(reader)
        os.waitpid(child, 0)
    return found


class Memory(Case):
    def test_a_message_takes_up_a_multiple_of_its_text_that_its_type_decides(self) -> None:
        command = [sys.executable, "-m", "tests.test_memory"]
        done = subprocess.run(command, cwd=PACKAGE, capture_output=True, timeout=50, check=True)
        found = json.loads(done.stdout)
        self.assertEqual(found.keys(), KINDS.keys())
        for name, kind in KINDS.items():
            self.assertTrue(1 <= found[name] <= kind.most, found)


if __name__ == "__main__":
    print(json.dumps(growths()))
