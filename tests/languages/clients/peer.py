"""The program in Python. Its argument is its role, what it is handed are the classes below: see messages.rs."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import wormhole_ipc as wormhole
from wormhole_ipc import I64, U8, U32, U64, U128, Blob, Fd, Receiver, Sender

LANGUAGE = "python"


@dataclass
class Letter:
    number: U64
    text: str
    wide: U64
    negative: I64
    third: float
    list: List[U8]
    maybe: Optional[str]


def letter(number: int) -> Letter:
    return Letter(
        number,
        f"letter {number}: é 😀 \0 \" \\ \n </b>",
        number * 0x9E3779B97F4A7C15 % 2**64,
        -number,
        number / 3.0,
        [7] * (number % 5),
        str(number) if number % 2 == 0 else None,
    )


@dataclass
class Parcel:
    name: str
    inputs: List[Fd]
    reply: Sender[str]
    words: Receiver[str]
    data: Blob


@dataclass
class Streams:
    pipe: Fd
    connection: Fd


@dataclass
class ReceivingStreams:
    source: Receiver[Streams]
    plan: List[U64]
    report: Sender[str]
    forever: Receiver[U8]


@dataclass
class SendingLetters:
    to: Sender[Letter]
    plan: List[U64]
    report: Sender[str]
    forever: Receiver[U8]


@dataclass
class SendingParcels:
    to: Sender[Parcel]
    plan: List[U64]
    report: Sender[str]
    forever: Receiver[U8]


@dataclass
class ReceivingLetters:
    source: Receiver[Letter]
    plan: List[U64]
    report: Sender[str]
    forever: Receiver[U8]


@dataclass
class ReceivingParcels:
    source: Receiver[Parcel]
    plan: List[U64]
    report: Sender[str]
    forever: Receiver[U8]


@dataclass
class Starting:
    command: List[str]
    environment: Dict[str, str]
    to: Sender[str]
    until: Receiver[U8]


@dataclass
class Saying:
    to: Optional[Sender[str]]
    address: Optional[str]


@dataclass
class Passing:
    source: Receiver[Sender[str]]
    to: Sender[Sender[str]]


@dataclass
class Job:
    number: U64
    wait: bool


@dataclass
class Done:
    number: U64
    square: U64
    language: str


@dataclass
class Working:
    jobs: Receiver[Job]
    results: Sender[Done]
    gate: Receiver[U8]


def long_text(size: int) -> str:
    return "wörmhole " * (size // 10 + 1)


def file(content: str) -> Fd:
    fd = os.memfd_create("peer")
    os.write(fd, content.encode())
    return Fd(fd)


def content(fd: Fd) -> str:
    return os.pread(fd.fileno(), 1000, 0).decode()


def is_over(receiver: Receiver) -> bool:
    try:
        receiver.recv()
    except wormhole.Disconnected:
        return True
    return False


def send_letters() -> None:
    args = wormhole.inherit(SendingLetters)
    for number in range(args.plan[0]):
        args.to.send(letter(number))
    args.report.send("done")


def receive_letters() -> None:
    args = wormhole.inherit(ReceivingLetters)
    for number in range(args.plan[0]):
        got = args.source.recv()
        assert got == letter(number), got
    assert is_over(args.source)
    args.report.send("done")


def send_parcels() -> None:
    args = wormhole.inherit(SendingParcels)
    for size in args.plan:
        reply, replies = wormhole.channel(str)
        word, words = wormhole.channel(str)
        word.send("word")
        word.close()
        name = long_text(size)
        blob = Blob.from_bytes(b"blob")
        parcel = Parcel(name, [file("first"), file("second")], reply, words, blob)
        args.to.send_with_fds(parcel, [file("beside")], move=True)
        expected = f"{len(name.encode())} first second beside word blob"
        got = replies.recv()
        assert got == expected, got
        assert is_over(replies)
    args.report.send("done")


def receive_parcels() -> None:
    args = wormhole.inherit(ReceivingParcels)
    for size in args.plan:
        parcel, beside = args.source.recv_with_fds()
        assert parcel.name == long_text(size), len(parcel.name)
        word = parcel.words.recv()
        assert is_over(parcel.words)
        first, second, third = map(content, [*parcel.inputs, *beside])
        length, data = len(parcel.name.encode()), bytes(parcel.data).decode()
        parcel.reply.send(f"{length} {first} {second} {third} {word} {data}")
        parcel.reply.close()
    assert is_over(args.source)
    args.report.send("done")


def fill() -> None:
    args = wormhole.inherit(SendingLetters)
    try:
        while True:
            args.to.try_send(letter(0))
    except wormhole.Full:
        args.report.send("full")
    try:
        args.to.send(letter(0))
    except wormhole.Disconnected:
        args.report.send("disconnected")


def hold() -> None:
    args = wormhole.inherit(ReceivingLetters)
    args.forever.recv()


def send_one_and_hold() -> None:
    args = wormhole.inherit(SendingLetters)
    args.to.send(letter(1))
    args.forever.recv()


def wait() -> None:
    args = wormhole.inherit(ReceivingLetters)
    assert args.source.recv() == letter(1)
    args.report.send("one")
    assert is_over(args.source)
    args.report.send("disconnected")


def start() -> None:
    args = wormhole.inherit(Starting)
    program = wormhole.spawn(
        args.command, Saying(args.to, None), type=Saying, env={**os.environ, **args.environment}
    )
    assert program.wait() == 0
    assert is_over(args.until)


def say() -> None:
    args = wormhole.inherit(Saying)
    to = args.to or wormhole.connect(args.address, str)
    to.send(LANGUAGE)


def pass_on() -> None:
    args = wormhole.inherit(Passing)
    end = args.source.recv()
    end.send(LANGUAGE)
    args.to.send(end, move=True)


def work() -> None:
    args = wormhole.inherit(Working)
    for job in args.jobs:
        args.results.send(Done(job.number, job.number**2, LANGUAGE))
        if job.wait:
            args.gate.recv()


def receive_streams() -> None:
    args = wormhole.inherit(ReceivingStreams)
    streams = args.source.recv()
    for stream in (streams.pipe, streams.connection):
        assert os.get_blocking(stream.fileno())
    args.report.send("reading")
    texts = []
    for stream in (streams.pipe, streams.connection):
        with open(stream.fileno(), "rb", closefd=False) as file:
            texts.append(file.read().decode())
    args.report.send(", ".join(texts))


@dataclass
class Table:
    steps: Receiver[str]
    source: Receiver[Any]
    to: Sender[Any]


@dataclass
class Keys:
    inner: Dict[U32, U32]


@dataclass
class Wide:
    kind: str
    inner: U128


@dataclass
class Inner:
    inner: U128


@dataclass
class Time:
    secs_since_epoch: U64
    nanos_since_epoch: U32


class Maybe(NamedTuple):
    value: Optional[float]


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


READ: Dict[str, Any] = {
    "float": float,
    "optional float": Optional[float],
    "keys": Keys,
    "wide": Wide,
    "anything": Any,
    "time": Time,
    "bytes": bytes,
}
SEND: Dict[str, Tuple[Any, Any]] = {
    "NaN": (float, float("nan")),
    "infinity": (Any, [{"x": float("-inf")}]),
    "no Unicode": (str, os.fsdecode(b"\xff")),
    "a key that is no Unicode": (Dict[str, int], {os.fsdecode(b"\xff"): 1}),
    "127 levels": (Any, nested(127)),
    "128 levels": (Any, nested(128)),
    "keys that are lists": (Any, {(1, 2): 3}),
    "keys that are written alike": (Any, {1: "a", "1": "b"}),
    "something that is written null": (Optional[Maybe], Maybe(None)),
    "nothing": (Optional[Maybe], None),
    "2^64+1": (int, 2**64 + 1),
    "2^64+1 in a record": (Inner, Inner(2**64 + 1)),
    "2^53+1": (int, 2**53 + 1),
    "keys": (Keys, Keys({7: 2})),
    "minus zero": (float, -0.0),
}


def table() -> None:
    args = wormhole.inherit(Table)
    for step in args.steps:
        how, name = step.split(" ", 1)
        hint, value = (READ[name], None) if how == "read" else SEND[name]
        with Receiver(os.dup(args.source.fileno()), hint) as source:
            with Sender(os.dup(args.to.fileno()), hint) as to:
                try:
                    to.send(source.recv() if how == "read" else value)
                except (wormhole.Decode, wormhole.Encode):
                    args.to.send("refused")


ROLES = [
    send_letters, receive_letters, send_parcels, receive_parcels, fill, hold, send_one_and_hold, wait, start, say,
    pass_on, work, receive_streams, table,
]  # fmt: skip

{role.__name__.replace("_", " "): role for role in ROLES}[sys.argv[1]]()
