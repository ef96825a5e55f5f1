"""Channels in an asyncio program: receivers are descriptors, so the event loop can watch them.

The clients are processes, each with a channel of its own.

    python3 examples/asyncio_sum.py
"""

import asyncio
import subprocess
import sys
from typing import Any, AsyncIterator, Tuple, TypeVar

import wormhole_ipc as wormhole
from wormhole_ipc import Receiver, Sender

T = TypeVar("T")


async def messages(rx: "Receiver[T]") -> AsyncIterator[T]:
    """The messages of a receiver, until no sender is left. Waits without blocking the event loop."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(rx.fileno(), ready.set)
    try:
        while True:
            try:
                message = rx.try_recv()
            except wormhole.Empty:
                ready.clear()
                await ready.wait()
            except wormhole.Disconnected:
                return
            else:
                yield message
    finally:
        loop.remove_reader(rx.fileno())


def start(count: int) -> "Tuple[subprocess.Popen[Any], Receiver[int]]":
    """Starts a client that sends so many numbers."""
    tx, rx = wormhole.channel(int)
    return wormhole.spawn([sys.executable, __file__, "client"], (count, tx)), rx


def client() -> None:
    count, numbers = wormhole.inherit(Tuple[int, Sender[int]])
    for number in range(count):
        numbers.send(number)


async def total(rx: "Receiver[int]") -> int:
    with rx:
        return sum([number async for number in messages(rx)])


async def main() -> None:
    clients = [start(count) for count in (10, 1000, 0)]
    print(await asyncio.gather(*(total(rx) for _, rx in clients)))
    for process, _ in clients:
        process.wait()


if __name__ == "__main__":
    client() if sys.argv[1:] == ["client"] else asyncio.run(main())
