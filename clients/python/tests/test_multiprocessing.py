"""Ends in `multiprocessing`, in every way of starting, and under gevent."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import textwrap
import unittest
from dataclasses import dataclass
from typing import Any

import wormhole_ipc as wormhole
from wormhole_ipc import Blob, Fd, Receiver, Sender, aio

from .support import PACKAGE, Case


@dataclass
class Job:
    number: int


def answer(jobs: Receiver[Job], answers: Sender[int], blob: Blob, fd: Fd) -> None:
    # One job: a forked process has a copy of the sender too, so it would never see the end.
    job = jobs.recv()
    answers.send(job.number + len(blob) + len(os.read(fd.fileno(), 100)))


def take_from_queue(queue: Any) -> None:
    answers = queue.get(timeout=30)
    answers.send(7)
    answers.close()


PROGRAM = """
    import multiprocessing, os, sys
    import wormhole_ipc as wormhole
    from tests.test_multiprocessing import Job, answer, take_from_queue

    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[1])
        tx, jobs = wormhole.channel(Job)
        reply, answers = wormhole.channel(int, max_message_len=1000)
        blob = wormhole.Blob.from_bytes(b"four")
        read, write = os.pipe()
        os.write(write, b"six by")
        process = context.Process(target=answer, args=(jobs, reply, blob, wormhole.Fd(read)))
        process.start()
        jobs.close()
        reply.close()
        tx.send(Job(100))
        assert answers.recv() == 110
        tx.close()
        process.join(30)
        assert process.exitcode == 0
        if sys.argv[1] != "fork":
            try:
                answers.recv()
            except wormhole.Disconnected:
                pass
        reply, answers = wormhole.channel(int)
        queue = context.Queue()
        process = context.Process(target=take_from_queue, args=(queue,))
        process.start()
        queue.put(reply)
        assert answers.recv() == 7
        reply.close()
        process.join(30)
        assert process.exitcode == 0
        print("done")
"""


class Multiprocessing(Case):
    def test_ends_are_arguments_and_go_through_queues(self) -> None:
        for method in ("fork", "spawn", "forkserver"):
            with self.subTest(method):
                ended = run(PROGRAM, method)
                self.assertEqual((ended.stdout, ended.returncode), ("done\n", 0), ended.stderr)

    def test_a_type_that_another_process_cannot_find_is_named(self) -> None:
        @dataclass
        class Local:
            number: int

        tx, rx = wormhole.channel(Local)
        with tx, rx:
            with self.assertRaisesRegex(pickle.PicklingError, "Local.*module's level"):
                pickle.dumps(tx)

    def test_asyncs_ends_as_well(self) -> None:
        tx, rx = aio.channel(int)
        with tx, rx:
            kind, arguments = tx.__reduce__()
            self.assertIs(kind, aio.Sender)
            self.assertEqual(arguments, (tx.sync,))


def run(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    # `spawn` imports the main program again, so it has to be a file.
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(textwrap.dedent(code))
        file.flush()
        return subprocess.run(
            [sys.executable, file.name, *arguments],
            env={**os.environ, "PYTHONPATH": str(PACKAGE)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=50,
        )


GEVENT = """
    import sys
    if sys.argv[1] == "late":
        import wormhole_ipc as wormhole
    import gevent.monkey
    gevent.monkey.patch_all()
    import wormhole_ipc as wormhole
    import fcntl, gevent, os, tempfile, time

    tx, rx = wormhole.channel(int)
    for end in (tx, rx):
        assert not fcntl.fcntl(end.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
    try:
        rx.try_recv()
        assert False
    except wormhole.Empty:
        pass
    try:
        while True:
            tx.try_send(0)
    except wormhole.Full:
        pass
    list(rx.try_iter())
    # A call that waits lets the other greenlets go on.
    got = []
    waits = gevent.spawn(lambda: got.append(rx.recv()))
    gevent.sleep(0)
    tx.send(5)
    waits.join(20)
    assert got == [5], got
    try:
        rx.recv_timeout(0.01)
        assert False
    except wormhole.TimedOut:
        pass
    raised = []
    def receive():
        try:
            rx.recv()
        except ValueError:
            raised.append(True)
    waits = gevent.spawn(receive)
    gevent.sleep(0)
    rx.close()
    waits.join(20)
    assert raised == [True]
    try:
        tx.send(1)
        assert False
    except wormhole.Disconnected:
        pass
    with tempfile.TemporaryDirectory() as folder:
        listener = wormhole.Listener.bind(folder + "/x", int)
        client = wormhole.connect(folder + "/x", int)
        assert not fcntl.fcntl(client.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
        accepted, _ = listener.accept()
        client.send(1)
        assert accepted.recv() == 1
        # The end of a channel whose last message has just been taken.
        client.close()
        assert list(accepted) == []
        listener.close()
    print("done")
"""


class Gevent(Case):
    def test_a_patched_program_works(self) -> None:
        try:
            import gevent  # type: ignore[import-not-found,import-untyped,unused-ignore] # noqa: F401
        except ImportError:
            self.skipTest("gevent is not installed")
        for when in ("early", "late"):
            ended = run(GEVENT, when)
            self.assertEqual((ended.stdout, ended.returncode), ("done\n", 0), ended.stderr)


if __name__ == "__main__":
    unittest.main()
