"""Channels in an asyncio program.

The clients are processes, each with a channel of its own.

    python3 examples/asyncio_sum.py
"""

import asyncio
import subprocess
import sys
from typing import Any, Tuple

import wormhole_ipc
from wormhole_ipc import Sender, aio


def start(count: int) -> "Tuple[subprocess.Popen[Any], aio.Receiver[int]]":
    """Starts a client that sends so many numbers."""
    tx, rx = aio.channel(int)
    return wormhole_ipc.spawn([sys.executable, __file__, "client"], (count, tx)), rx


def client() -> None:
    count, numbers = wormhole_ipc.inherit(Tuple[int, Sender[int]])
    for number in range(count):
        numbers.send(number)


async def total(rx: "aio.Receiver[int]") -> int:
    async with rx:
        return sum([number async for number in rx])


async def main() -> None:
    clients = [start(count) for count in (10, 1000, 0)]
    print(await asyncio.gather(*(total(rx) for _, rx in clients)))
    for process, _ in clients:
        process.wait()


if __name__ == "__main__":
    client() if sys.argv[1:] == ["client"] else asyncio.run(main())
