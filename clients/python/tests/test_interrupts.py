"""Signals' handlers that raise, aimed at every moment of a receive."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import unittest
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Deque, Iterator, List, Tuple, Type
from unittest import mock

import wormhole_ipc as wormhole
from wormhole_ipc import Fd, Listener, Sender, _packets

from .support import Case, fork, open_fds, packet, raw_send


class Interrupt(BaseException):
    pass


class Timeout(TimeoutError):
    """An `OSError` without a number, as the handlers of alarms raise them."""


@dataclass
class Parcel:
    number: int
    file: io.BufferedReader
    reply: Sender[int]
    other: Fd


class Busy(BlockingIOError):
    def __init__(self) -> None:
        super().__init__(errno.EAGAIN, "busy")


class Interrupts(Case):
    raises: Type[BaseException] = Interrupt

    def setUp(self) -> None:
        super().setUp()
        self.armed = False
        self.raised = self.caught = 0
        for number in (signal.SIGALRM, signal.SIGUSR1):
            self.addCleanup(signal.signal, number, signal.signal(number, self.interrupt))

    def interrupt(self, *_: Any) -> None:
        if self.armed:
            self.armed = False
            self.raised += 1
            raise self.raises

    def tearDown(self) -> None:
        self.assertEqual(self.caught, self.raised)
        super().tearDown()

    def aimed(self, call: Callable[[], Any], delay: float) -> Any:
        """What the call gives, or None if it was interrupted."""
        got = None
        try:
            self.armed = True
            signal.setitimer(signal.ITIMER_REAL, delay)
            got = call()
            self.wait()
        except self.raises:
            self.caught += 1
        return got

    def wait(self) -> None:
        while self.armed:
            time.sleep(1e-4)

    def check_lost(self, lost: int, interrupted: int) -> None:
        self.assertGreater(interrupted, 20)
        if sys.version_info >= (3, 11):
            self.assertEqual(lost, 0)
        else:  # between the end of the call and the assignment
            self.assertLess(lost, interrupted / 4)

    def test_no_message_is_lost(self) -> None:
        tx, rx = wormhole.channel(int)
        lost = interrupted = 0
        with tx, rx:
            for turn in range(800):
                tx.send(turn)
                got = self.aimed(rx.recv, 1e-6 + turn % 100 * 6e-7)
                if got is None:
                    interrupted += 1
                    try:
                        got = rx.try_recv()
                    except wormhole.Empty:
                        lost += 1
                        continue
                self.assertEqual(got, turn)
        self.check_lost(lost, interrupted)

    def test_no_descriptor_is_lost(self) -> None:
        tx, rx = wormhole.channel(Parcel)
        reply, answers = wormhole.channel(int)
        lost = interrupted = 0
        with tx, rx, reply, answers, open("/dev/null", "rb") as null:
            for turn in range(600):
                before = open_fds()
                parcel: Any = Parcel(turn, null, reply, Fd(os.dup(0)))
                tx.send_with_fds(parcel, [null])
                parcel.other.close()
                got = self.aimed(rx.recv_with_fds, 1e-6 + turn % 100 * 25e-7)
                if got is None:
                    interrupted += 1
                    try:
                        got = rx._try_recv_with_fds()
                    except wormhole.Empty:
                        lost += 1
                        continue
                parcel, beside = got
                self.assertEqual((parcel.number, len(beside)), (turn, 1))
                self.assertEqual(parcel.file.read(), b"")
                parcel.reply.send(turn)
                self.assertEqual(answers.recv(), turn)
                for each in (parcel.file, parcel.reply, parcel.other, *beside):
                    each.close()
                self.assertEqual(open_fds(), before)
        self.check_lost(lost, interrupted)

    def test_a_message_that_arrives_with_the_signal_is_not_lost(self) -> None:
        tx, rx = wormhole.channel(int)
        go, turns = wormhole.channel(int)
        parent = os.getpid()
        child = fork()
        if child == 0:
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(30)
                go.close()
                for turn in turns:
                    tx.send(turn)
                    os.kill(parent, signal.SIGUSR1)
            finally:
                os._exit(0)
        lost = interrupted = 0
        with tx, rx, go:
            for turn in range(300):
                got = None
                try:
                    self.armed = True
                    go.send(turn)
                    got = rx.recv()
                    self.wait()
                except self.raises:
                    self.caught += 1
                if got is None:
                    interrupted += 1
                    try:
                        got = rx.recv_timeout(10 if sys.version_info >= (3, 11) else 0.1)
                    except wormhole.TimedOut:
                        lost += 1
                        continue
                self.assertEqual(got, turn)
        os.waitpid(child, 0)
        turns.close()
        self.check_lost(lost, interrupted)

    def test_no_client_is_lost(self) -> None:
        name = f"\0wormhole {os.getpid()} interrupts"
        lost = interrupted = 0
        with Listener.bind(name, int) as listener:
            for turn in range(400):
                with wormhole.connect(name, int) as tx:
                    got = self.aimed(listener.accept, 1e-6 + turn % 100 * 6e-7)
                    if got is None:
                        interrupted += 1
                        try:
                            got = listener.try_accept()
                        except wormhole.Empty:
                            lost += 1
                            continue
                    with got[0] as rx:
                        tx.send(turn)
                        self.assertEqual(rx.recv(), turn)
        self.check_lost(lost, interrupted)

    def test_no_message_is_sent_twice(self) -> None:
        self.check_sent_once()

    def test_nor_if_the_exception_has_a_number(self) -> None:
        self.raises = Busy
        self.check_sent_once()
        self.caught = self.raised  # but for those that were taken for the kernel's

    def check_sent_once(self) -> None:
        tx, rx = wormhole.channel(int)
        with tx, rx:
            for turn in range(2000):
                call = partial(tx.send_with_fds, turn, [0] * (turn % 2))
                with contextlib.suppress(wormhole.Io):  # of `Busy`, before the message was sent
                    self.aimed(call, 1e-6 + turn % 99 * 3e-7)
                numbers: List[int] = []
                try:
                    while True:
                        number, beside = rx._try_recv_with_fds()
                        numbers.append(number)
                        for each in beside:
                            each.close()
                except wormhole.Empty:
                    self.assertIn(numbers, ([], [turn]))

    def test_nothing_that_is_made_is_lost(self) -> None:
        tx, rx = wormhole.channel(str)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        name, path = f"\0wormhole {folder.name}", f"{folder.name}/server"

        def send_long() -> List[Any]:
            tx.send("x" * 300_000)
            return []

        def take_over(fd: Any) -> List[Any]:
            return [wormhole.Receiver(fd, int)]

        def replace() -> List[Any]:
            return [Listener.bind(path, int)]

        makes: List[Tuple[Callable[..., List[Any]], float]] = [
            (lambda: list(wormhole.channel(int)), 3e-7),
            (lambda: [wormhole.connect(name)], 5e-7),
            (lambda: [wormhole.Blob.from_bytes(b"x")], 3e-7),
            (send_long, 5e-6),
            (take_over, 3e-7),
            (replace, 1e-6),
        ]
        with tx, rx, Listener.bind(name, int) as listener:
            for make, step in makes:
                before = open_fds()
                for turn in range(300):
                    call = make
                    given: Any = None
                    if make is take_over:
                        number = os.dup(rx.fileno())
                        given = socket.socket(fileno=number) if turn % 2 else Fd(number)
                        call = partial(make, given)
                    if make is replace:
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(path)
                        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
                            stale.bind(path)
                    for each in self.aimed(call, 1e-6 + turn % 101 * step) or ():
                        each.close()
                    if given is not None:
                        given.close()
                    for _ in rx.try_iter():
                        pass
                    with contextlib.suppress(wormhole.Empty):
                        while True:
                            listener.try_accept()[0].close()
                gc.collect()
                lost = open_fds().keys() - before.keys()
                if sys.version_info >= (3, 11):
                    self.assertEqual(lost, set(), make)
                self.assertLess(len(lost), 20)  # between any two instructions
                for number in lost:
                    os.close(number)
        self.caught = self.raised  # but for those in `Fd.__del__`, which Python lets nobody catch

    def test_a_wait_ends_with_the_exception(self) -> None:
        tx, rx = wormhole.channel(int)
        name = f"\0wormhole {os.getpid()} interrupts"
        with tx, rx, Listener.bind(name, int) as listener:
            # With an end, because a signal may come just before the sleep, which it does not end then.
            for turn in range(200):
                for call in (rx.recv_timeout, listener.accept_timeout):
                    self.assertIsNone(self.aimed(partial(call, 0.02), 1e-6 + turn % 100 * 6e-7))
            try:
                while True:
                    tx.try_send(0)
            except wormhole.Full:
                pass
            for turn in range(200):
                self.aimed(partial(tx.send_timeout, 0, 0.02), 1e-6 + turn % 100 * 6e-7)
        self.assertEqual(self.raised, 600)

    def test_what_was_kept_is_closed_with_its_receiver(self) -> None:
        for leave in ("close", "forget"):
            tx, rx = wormhole.channel(Parcel)
            reply, _answers = wormhole.channel(int)
            with tx, reply, open("/dev/null", "rb") as null, Fd(os.dup(0)) as other:
                for turn in range(100):
                    tx.send(Parcel(turn, null, reply, other))
                    got = self.aimed(rx.recv, 1e-6 + turn % 100 * 25e-7)
                    if got is not None:
                        for each in (got.file, got.reply, got.other):
                            each.close()
                    if rx._kept:
                        break
                self.assertTrue(rx._kept)
                if leave == "close":
                    rx.close()
                del rx

    def test_a_forked_process_does_not_have_what_was_kept(self) -> None:
        tx, rx = wormhole.channel(int)
        with tx, rx:
            while not rx._kept:
                tx.send(7)
                self.aimed(rx.recv, 2e-5)
            child = fork()
            if child == 0:
                os._exit(len(rx._kept))
            self.assertEqual(os.waitpid(child, 0)[1], 0)
            self.assertTrue(rx._kept)
            self.assertEqual(rx.recv(), 7)


class Timeouts(Interrupts):
    raises = Timeout


class Shared(Deque[Any]):
    """What is kept, where another thread gets in after each look at it."""

    def __init__(self, between: Callable[[], None]) -> None:
        super().__init__()
        self.between = between

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        self.between()
        return found

    def __iter__(self) -> Iterator[Any]:
        found = list(super().__iter__())
        self.between()
        return iter(found)


class Kept(Case):
    def share(self, rx: Any) -> List[Any]:
        """What the other thread receives."""
        got: List[Any] = []

        def between() -> None:
            if not got:
                got.append(None)
                got[0] = rx.try_recv()

        rx._kept = Shared(between)
        return got

    def test_a_message_reaches_one_of_two_threads(self) -> None:
        tx, rx = wormhole.channel(int)
        with tx, rx:
            got = self.share(rx)
            for number in range(3):
                rx._kept.append([b"%d" % number])
            while True:
                try:
                    got.append(rx.try_recv())
                except wormhole.Empty:
                    break
            self.assertEqual(sorted(got), [0, 1, 2])

    def test_a_message_reaches_one_of_many_threads(self) -> None:
        tx, rx = wormhole.channel(int)
        got: List[int] = []

        def receive() -> None:
            got.extend(rx.try_iter())

        with tx, rx:
            rx._kept.extend([b"%d" % number] for number in range(20_000))
            threads = [threading.Thread(target=receive) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            self.assertEqual(sorted(got), list(range(20_000)))

    def test_a_packet_is_unpacked_once(self) -> None:
        tx, rx = wormhole.channel(Fd)
        unpack = _packets.unpack
        calls: List[Any] = []

        def once_more(ancillary: Any) -> Any:
            calls.append(ancillary)
            if len(calls) == 1:
                raise Interrupt
            return unpack(ancillary)

        with tx, rx, mock.patch.object(_packets, "unpack", once_more):
            got = self.share(rx)
            raw_send(tx, packet(b"0"), [0])
            self.assertRaises(Interrupt, rx.recv)
            if not got:
                got.append(rx.try_recv())
            got[0].close()
            self.assertEqual(len(calls), 2)

    def test_the_end_is_no_message(self) -> None:
        tx, rx = wormhole.channel(int)
        tx.close()
        with rx:
            with mock.patch.object(_packets, "what_nothing_means", side_effect=Interrupt):
                self.assertRaises(Interrupt, rx.recv)
            self.assertRaises(wormhole.Disconnected, rx.recv)

    def test_a_client_has_one_owner(self) -> None:
        own, made = Listener._own, Listener._made
        calls: List[Any] = []
        got: List[Any] = []

        def own_later(listener: Any, held: Any) -> Any:
            if not calls:
                calls.append(None)
                try:
                    got.append(listener.try_accept())  # as another thread may
                except wormhole.Empty:
                    pass
            return own(listener, held)

        def fail_once(listener: Any, held: Any) -> Any:
            if not calls:
                raise Interrupt
            return made(listener, held)

        name = f"\0wormhole {os.getpid()} kept"
        with Listener.bind(name, int) as listener, wormhole.connect(name, int) as tx:
            with mock.patch.object(Listener, "_own", own_later):
                with mock.patch.object(Listener, "_made", fail_once):
                    self.assertRaises(Interrupt, listener.accept)
            if not got:
                got.append(listener.try_accept())
            with got[0][0] as rx:
                tx.send(5)
                self.assertEqual(rx.recv(), 5)


if __name__ == "__main__":
    unittest.main()
