"""Ends for asyncio: waiting, cancelling, closing."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import tempfile
import unittest
from dataclasses import dataclass
from typing import Any, Awaitable, List

import wormhole_ipc as wormhole
from wormhole_ipc import aio

from .support import Case, fork, raw_send


@dataclass
class Request:
    text: str
    reply: aio.Sender[str]


class Aio(Case):
    def run_all(self, main: Awaitable[Any]) -> Any:
        async def within() -> Any:
            return await asyncio.wait_for(main, 30)

        return asyncio.run(within())

    def test_messages_arrive_in_order_until_the_end(self) -> None:
        async def main() -> None:
            tx, rx = aio.channel(int)

            async def send() -> None:
                async with tx:
                    for number in range(2000):  # more than there is room for
                        await tx.send(number)

            sending = asyncio.ensure_future(send())
            async with rx:
                self.assertEqual([number async for number in rx], list(range(2000)))
                with self.assertRaises(wormhole.Disconnected):
                    await rx.recv()
            await sending

        self.run_all(main())

    def test_a_request_carries_the_end_for_its_reply(self) -> None:
        async def main() -> None:
            tx, rx = aio.channel(Request)
            reply, replies = aio.channel(str)
            await tx.send(Request("hello", reply), move=True)
            request = await rx.recv()
            async with request.reply:
                await request.reply.send(request.text.upper())
            self.assertEqual([text async for text in replies], ["HELLO"])
            for end in (tx, rx, replies):
                end.close()

        self.run_all(main())

    def test_cancelled_receives_lose_nothing(self) -> None:
        async def main() -> None:
            tx, rx = aio.channel(int)
            numbers = random.Random(1)
            seen: List[int] = []
            for sent in range(1000):
                tasks = [asyncio.ensure_future(rx.recv()) for _ in range(3)]
                for _ in range(numbers.randint(0, 3)):
                    await asyncio.sleep(0)
                await tx.send(sent)
                for _ in range(numbers.randint(0, 3)):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                for each in await asyncio.gather(*tasks, return_exceptions=True):
                    if isinstance(each, int):
                        seen.append(each)
            await tx.send(1000)
            tx.close()
            seen += [number async for number in rx]
            self.assertEqual(sorted(seen), list(range(1001)))
            rx.close()

        self.run_all(main())

    def test_a_timeout_around_a_receive_loses_nothing(self) -> None:
        async def main() -> None:
            tx, rx = aio.channel(int)
            seen: List[int] = []

            async def send() -> None:
                async with tx:
                    for number in range(300):
                        await tx.send(number)
                        await asyncio.sleep(0.0003)

            sending = asyncio.ensure_future(send())
            while True:
                try:
                    seen.append(await asyncio.wait_for(rx.recv(), 0.0003))
                except asyncio.TimeoutError:
                    pass
                except wormhole.Disconnected:
                    break
            self.assertEqual(seen, list(range(300)))
            await sending
            rx.close()

        self.run_all(main())

    def test_a_cancelled_send_has_sent_and_closed_nothing(self) -> None:
        async def main() -> None:
            tx, rx = aio.channel()
            other, others = aio.channel(int)
            sent = 0
            with self.assertRaises(wormhole.Full):
                while True:
                    tx.try_send(sent)
                    sent += 1
            task = asyncio.ensure_future(tx.send(other, move=True))
            await asyncio.sleep(0.01)
            self.assertFalse(task.done())
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            other.fileno()
            tx.close()
            self.assertEqual([number async for number in rx], list(range(sent)))
            for end in (rx, other, others):
                end.close()

        self.run_all(main())

    def test_a_full_channel_goes_on_as_soon_as_there_is_room(self) -> None:
        # The kernel would not say so before three quarters of the buffer are free.
        async def main() -> None:
            tx, rx = aio.channel(int)
            with self.assertRaises(wormhole.Full):
                while True:
                    tx.try_send(0)
            task = asyncio.ensure_future(tx.send(1))
            await asyncio.sleep(0)
            rx.try_recv()
            await task
            tx.close()
            rx.close()

        self.run_all(main())

    def test_closing_ends_the_calls_that_wait(self) -> None:
        async def main() -> None:
            tx, rx = aio.channel(int)
            tasks = [asyncio.ensure_future(rx.recv()) for _ in range(3)]
            await asyncio.sleep(0.01)
            rx.close()
            for task in tasks:
                with self.assertRaisesRegex(ValueError, "closed"):
                    await task
            tx.close()

        self.run_all(main())

    def test_a_forked_process_that_closes_it_leaves_the_others_waiting(self) -> None:
        async def main() -> None:
            tx, rx = aio.channel(int)
            waiting = asyncio.ensure_future(rx.recv())
            while not rx._tasks.waiting:
                await asyncio.sleep(0)
            child = fork()
            if child == 0:
                rx.close()
                os._exit(0)
            self.assertEqual(os.waitpid(child, 0)[1], 0)
            await tx.send(7)
            self.assertEqual(await waiting, 7)
            tx.close()
            rx.close()

        self.run_all(main())

    def test_other_tasks_have_their_turn(self) -> None:
        async def main() -> None:
            tx, rx = aio.channel(int)
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            counting = asyncio.ensure_future(count())
            for number in range(1000):
                await tx.send(number)
                await rx.recv()
            self.assertGreater(turns, 10)
            counting.cancel()
            tx.close()
            rx.close()

        self.run_all(main())

    def test_an_error_costs_one_message_and_no_flag_is_set(self) -> None:
        async def main() -> None:
            tx, rx = aio.channel(int)
            task = asyncio.ensure_future(rx.recv())
            await asyncio.sleep(0.01)
            flags = fcntl.fcntl(rx.fileno(), fcntl.F_GETFL)
            self.assertFalse(flags & os.O_NONBLOCK)
            raw_send(tx, b"\1\0\0\0\0\0\0\0x")
            with self.assertRaises(wormhole.Decode):
                await task
            await tx.send(5)
            self.assertEqual(await rx.recv(), 5)
            tx.close()
            rx.close()

        self.run_all(main())

    def test_clients_connect_to_a_listener(self) -> None:
        async def main(name: str) -> None:
            async with aio.Listener.bind(name, str) as listener:
                waiting = asyncio.ensure_future(listener.accept())
                await asyncio.sleep(0.01)
                waiting.cancel()
                for _ in range(3):
                    tx = await aio.connect(name, str)
                    rx, peer = await listener.accept()
                    self.assertEqual(peer.pid, os.getpid())
                    async with tx, rx:
                        await tx.send("hello")
                        self.assertEqual(await rx.recv(), "hello")
            with self.assertRaises(wormhole.Address):
                await aio.connect(name, str)

        with tempfile.TemporaryDirectory() as folder:
            self.run_all(main(f"{folder}/server"))


if __name__ == "__main__":
    unittest.main()
