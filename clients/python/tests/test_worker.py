"""A program as a worker of a pool: its jobs, its failures, its end."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import textwrap
import unittest
from dataclasses import dataclass
from typing import Any, Callable, List, Tuple

import wormhole_ipc as wormhole
from wormhole_ipc import Receiver, Sender
from wormhole_ipc._worker import _types_of

from .support import PACKAGE, Case, packet, raw_send


@dataclass
class Text:
    words: List[str]


def count(text: Text, more: int = 0) -> int:
    return len(text.words) + more


def counted(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return wrapper


class Counter:
    def count(self, text: Text) -> int:
        return count(text)

    __call__ = count

    @counted
    def decorated(self, text: Text) -> int:
        return count(text)

    @classmethod
    def of_the_class(cls, text: Text) -> int:
        return count(text)

    @staticmethod
    def of_nobody(text: Text) -> int:
        return count(text)


class Workers(Case):
    def start(self, code: str) -> "Tuple[subprocess.Popen[Any], Sender[Any], Receiver[Any]]":
        job, jobs = wormhole.channel()
        result, results = wormhole.channel()
        command = [
            sys.executable,
            "-c",
            "import os, sys\nimport wormhole_ipc\n" + textwrap.dedent(code),
        ]
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
        child = wormhole.spawn(command, [jobs, result], env=environment)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        return child, job, results

    SQUARE = """
        def square(number: int) -> int:
            if number == 13:
                raise ValueError("unlucky \\udc80")
            if number == 99:
                os._exit(9)
            return number if number == 7 else "text" if number == 8 else number * number

        wormhole_ipc.work(square)
    """

    def test_each_job_has_one_outcome(self) -> None:
        child, job, results = self.start(self.SQUARE)
        with job, results:
            for number in (3, 13, 8, 4):
                job.send(number)
            raw_send(job, packet(b'"no number"'))
            job.send(5)
            self.assertEqual(results.recv(), {"Ok": 9})
            error = results.recv()["Err"]
            self.assertEqual(error["message"], "ValueError: unlucky \\udc80")
            self.assertRegex(error["place"], r"^<string>:\d+:\d+$")
            self.assertIn("in square", error["backtrace"])
            self.assertIn("expected an integer, got 'text'", results.recv()["Err"]["message"])
            self.assertEqual(results.recv(), {"Ok": 16})
            self.assertIn("expected an integer", results.recv()["Err"]["message"])
            self.assertEqual(results.recv(), {"Ok": 25})
            job.close()
            self.assertRaises(wormhole.Disconnected, results.recv)
            self.assertEqual(child.wait(30), 0)

    def test_the_types_are_those_of_whatever_is_called(self) -> None:
        counter = Counter()
        for function in (
            count,
            counted(count),
            functools.partial(count, more=1),
            functools.partial(counted(count), more=1),
            counter.count,
            counter,
            counter.decorated,
            functools.partial(counter.decorated),
            counted(counter.count),
            Counter.of_the_class,
            counter.of_nobody,
        ):
            self.assertEqual(_types_of(function), (Text, int), function)
            self.assertGreater(function(Text(["one"])), 0)
        for function in (lambda text: 1, len, print, Text, functools.partial(len), dict):
            self.assertEqual(_types_of(function), (Any, Any), function)

    def test_a_result_that_cannot_be_sent_is_an_error(self) -> None:
        child, job, results = self.start(
            """
            import collections, collections.abc

            class Odd(collections.abc.Mapping):
                def __init__(self, error):
                    self.error = error
                def __getitem__(self, key):
                    raise self.error
                def __iter__(self):
                    return iter("x")
                def __len__(self):
                    return 1

            def denied(*_):
                raise PermissionError(1, "denied")

            os.memfd_create = denied

            def work(number: int) -> dict:
                if number == 4:
                    return {"x": "y" * 1_000_000}
                return Odd([KeyError("no key"), OSError(5, "no file"), TimeoutError("late"),
                    wormhole_ipc.Full()][number])

            wormhole_ipc.work(work)
            """
        )
        with job, results:
            for number, message in enumerate(
                ("KeyError: 'no key'", "no file", "TimeoutError: late", "Full", "memfd_create")
            ):
                job.send(number)
                self.assertIn(message, results.recv()["Err"]["message"])
            job.close()
            self.assertEqual(child.wait(30), 0)

    def test_a_worker_that_dies_is_gone(self) -> None:
        child, job, results = self.start(self.SQUARE)
        with job, results:
            job.send(99)
            self.assertRaises(wormhole.Disconnected, results.recv)
            self.assertEqual(child.wait(30), 9)

    def test_a_worker_whose_pool_is_gone_ends(self) -> None:
        child, job, results = self.start(self.SQUARE)
        results.close()
        with job:
            job.send(1)
            self.assertEqual(child.wait(30), 0)

    def test_jobs_and_results_may_hold_descriptors(self) -> None:
        child, job, results = self.start(
            """
            import io
            from typing import Tuple

            def copy(job: Tuple[io.BufferedReader, wormhole_ipc.Sender[int]]) -> wormhole_ipc.Blob:
                job[1].send(1)
                return wormhole_ipc.Blob.from_bytes(job[0].read())

            wormhole_ipc.work(copy)
            """
        )
        with job, results:
            tx, rx = wormhole.channel(int)
            with open(__file__, "rb") as file:
                job.send((file, tx))
                tx.close()
                message, fds = results.recv_with_fds()
                self.assertEqual(message, {"Ok": 0})
                self.assertEqual(list(rx), [1])  # and the job is closed
                file.seek(0)  # the worker has read it through the same open file
                with wormhole.Blob(fds[0]) as blob:
                    self.assertEqual(bytes(blob), file.read())
            rx.close()
            job.close()
            self.assertEqual(child.wait(30), 0)


if __name__ == "__main__":
    unittest.main()
