"""Handing a value to another program, and connecting to one that listens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import unittest
from typing import Any, Dict, Tuple

import wormhole_ipc as wormhole
from wormhole_ipc import Receiver

from .support import PACKAGE, Case, raw


def program(code: str) -> Tuple[str, ...]:
    """A Python program that can import the package."""
    return (
        sys.executable,
        "-c",
        "import wormhole_ipc as wormhole, os, sys\n" + textwrap.dedent(code),
    )


ENVIRONMENT: Dict[str, str] = {**os.environ, "PYTHONPATH": str(PACKAGE)}


class Spawn(Case):
    def spawn(self, code: str, value: Any, **options: Any) -> "subprocess.Popen[Any]":
        child = wormhole.spawn(program(code), value, env=ENVIRONMENT, **options)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        return child

    def test_a_program_takes_a_value_with_ends_and_files(self) -> None:
        tx, requests = wormhole.channel(str)
        answer, answers = wormhole.channel(str)
        with tx, answers:
            child = self.spawn(
                """
                from typing import *
                Value = Tuple[str, wormhole.Receiver[str], wormhole.Sender[str]]
                name, requests, answer = wormhole.inherit(Value)
                for request in requests:
                    answer.send(name + " " + request)
                """,
                ("child", requests, answer),
            )
            # No copy stays behind.
            self.assertRaises(ValueError, requests.fileno)
            self.assertRaises(ValueError, answer.fileno)
            tx.send("one")
            self.assertEqual(answers.recv(), "child one")
            tx.close()
            self.assertRaises(wormhole.Disconnected, answers.recv)
            self.assertEqual(child.wait(), 0)

    def test_the_end_of_the_program_is_the_end_of_its_channels(self) -> None:
        answer, answers = wormhole.channel(int)
        with answers:
            child = self.spawn("wormhole.inherit(); sys.stdin.read()", answer, stdin=-1)
            self.assertRaises(wormhole.TimedOut, answers.recv_timeout, 0.01)
            child.kill()
            self.assertRaises(wormhole.Disconnected, answers.recv)
            assert child.stdin is not None
            child.stdin.close()

    def test_a_long_value_arrives(self) -> None:
        answer, answers = wormhole.channel(int)
        with answers:
            self.spawn(
                """
                from typing import *
                text, answer = wormhole.inherit(Tuple[str, wormhole.Sender[int]])
                answer.send(len(text))
                """,
                ("x" * 3_000_000, answer),
            )
            self.assertEqual(answers.recv(), 3_000_000)

    def test_the_program_inherits_one_descriptor_and_its_children_none(self) -> None:
        answer, answers = wormhole.channel(Dict[str, Any])
        with answers:
            self.spawn(
                """
                import subprocess
                from typing import *
                fds = lambda: set(map(int, os.listdir("/proc/self/fd")))
                before = fds()
                answer = wormhole.inherit(wormhole.Sender[Any])
                listing = subprocess.run(["ls", "/proc/self/fd"], capture_output=True,
                    text=True, close_fds=False)
                answer.send({"before": len(before), "grandchild": len(listing.stdout.split())})
                """,
                answer,
            )
            # The standard streams, the one that is inherited and the one that lists the folder.
            self.assertEqual(answers.recv(), {"before": 5, "grandchild": 4})

    def test_it_can_be_taken_once(self) -> None:
        child = self.spawn(
            """
            assert wormhole.inherit(int) == 5
            try:
                wormhole.inherit(int)
            except wormhole.NotInherited as error:
                assert "taken before" in str(error)
                sys.exit(3)
            """,
            5,
        )
        self.assertEqual(child.wait(), 3)

    def test_what_was_not_handed_on_is_left_alone(self) -> None:
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        null = os.open("/dev/null", os.O_RDONLY)
        inheritable = os.dup(null)
        os.set_inheritable(inheritable, True)
        stream, _other = socket.socketpair()
        stream.set_inheritable(True)
        tx, own = wormhole.channel(int)
        tx.send(5)
        tx.close()
        os.set_inheritable(own.fileno(), True)
        saved = os.environ.get("WORMHOLE_FD")
        try:
            for value, reason in (
                (None, "is not set"),
                ("", "is no descriptor"),
                ("x", "is no descriptor"),
                ("2", "is no descriptor"),
                ("-1", "is no descriptor"),
                ("9999999999999999999", "is no descriptor"),
                ("999999", "closed"),
                (str(a.fileno()), "close-on-exec"),
                (str(inheritable), "non-socket"),
                (str(stream.fileno()), "not SOCK_SEQPACKET"),
                (str(own.fileno()), "made itself"),
            ):
                if value is None:
                    os.environ.pop("WORMHOLE_FD", None)
                else:
                    os.environ["WORMHOLE_FD"] = value
                with self.assertRaisesRegex(wormhole.NotInherited, reason):
                    wormhole.inherit()
            os.fstat(a.fileno())
            os.fstat(inheritable)
            os.fstat(stream.fileno())
            self.assertEqual(own.recv(), 5)
        finally:
            os.environ.pop("WORMHOLE_FD", None)
            if saved is not None:
                os.environ["WORMHOLE_FD"] = saved
            for fd in (null, inheritable):
                os.close(fd)
            for each in (a, b, stream, _other, own):
                each.close()

    def test_a_program_that_cannot_be_started_costs_nothing(self) -> None:
        answer, answers = wormhole.channel(int)
        with answers:
            with self.assertRaises(wormhole.Io) as caught:
                wormhole.spawn(["/missing"], answer)
            self.assertIsInstance(caught.exception.__cause__, FileNotFoundError)
            self.assertRaises(wormhole.Disconnected, answers.recv)
        with self.assertRaises(wormhole.Encode):
            wormhole.spawn(["true"], float("nan"))


class Connect(Case):
    def listen(self, name: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(name)
        listener.listen(1)
        return listener

    def test_a_path_and_an_abstract_name(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name in (f"{folder}/server", f"\0wormhole {folder}"):
                with self.listen(name) as listener:
                    with wormhole.connect(name, str) as tx:
                        tx.send("hello")  # before it is accepted
                    accepted, _ = listener.accept()
                    with Receiver(accepted.detach(), str) as rx:
                        self.assertEqual(list(rx), ["hello"])

    def test_what_can_go_wrong_has_a_cause(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            causes = {
                f"{folder}/missing": FileNotFoundError,
                "\0wormhole: nobody": ConnectionRefusedError,
                "": ValueError,
                "\0": ValueError,
                "x" * 108: ValueError,
                "a\0b": ValueError,
            }
            for name, cause in causes.items():
                with self.assertRaises(wormhole.Address) as caught:
                    wormhole.connect(name)
                self.assertIsInstance(caught.exception.__cause__, cause, name)

    def test_a_full_queue_times_out(self) -> None:
        name = f"\0wormhole {os.getpid()} full"
        waiting = []
        with self.listen(name):
            with self.assertRaises(wormhole.TimedOut):
                for _ in range(10):
                    waiting.append(wormhole.connect(name, timeout=0.01))
            self.assertTrue(waiting)
            for tx in waiting:
                with raw(tx) as plain:
                    left = plain.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16)
                    self.assertEqual(left, bytes(16))  # no process that shares it has it
            for tx in waiting:
                tx.close()


if __name__ == "__main__":
    unittest.main()
