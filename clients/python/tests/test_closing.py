"""Closing an end while another thread, or a signal's handler, is in the middle of something."""

from __future__ import annotations

import _socket
import contextlib
import errno
import gc
import os
import select
import signal
import socket
import threading
import unittest
from functools import partial
from typing import Any, Callable, List, Tuple
from unittest import mock

import wormhole_ipc as wormhole
from wormhole_ipc import Listener, Receiver, Sender, _end, _packets, _wait

from .support import Case, fork, open_fds, packet, raw_send


def give_up(end: Any, numbers: List[int]) -> None:
    numbers.append(end.detach())


def state(thread: threading.Thread) -> str:
    with open(f"/proc/self/task/{thread.native_id}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


class Closing(Case):
    def closed_while(self, end: Any, call: Callable[[], Any], close: Callable[[], Any]) -> None:
        """The call waits, and raises `ValueError` as soon as another thread has closed the end."""
        waits = threading.Event()
        raised: List[BaseException] = []

        def until_ready(*arguments: Any) -> bool:
            waits.set()
            return _wait.until_ready(*arguments)

        def run() -> None:
            try:
                call()
            except BaseException as error:
                raised.append(error)

        with mock.patch.object(_end, "until_ready", until_ready):
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            self.assertTrue(waits.wait(30))
            while not end._waiters.wakers and not raised:
                pass  # it is about to sleep
            close()
            thread.join(30)
        self.assertFalse(thread.is_alive())
        with self.assertRaisesRegex(ValueError, "closed"):
            raise raised.pop()

    def test_a_waiting_receive_ends_and_the_end_is_closed(self) -> None:
        for timeout in (None, 3600.0):
            for leave in ("close", "with", "detach"):
                tx, rx = wormhole.channel(int)
                with tx:

                    def leave_with(rx: Receiver[int] = rx) -> None:
                        with rx:
                            pass

                    call: Any = rx.recv
                    if timeout is not None:
                        call = partial(rx.recv_timeout, timeout)
                    numbers: List[int] = []
                    close: Any = {
                        "close": rx.close,
                        "with": leave_with,
                        "detach": partial(give_up, rx, numbers),
                    }[leave]
                    self.closed_while(rx, call, close)
                    for number in numbers:
                        os.close(number)
                    self.assertRaises(wormhole.Disconnected, tx.send, 1)

    def test_a_waiting_send_ends_and_the_end_is_closed(self) -> None:
        tx, rx = wormhole.channel(int)
        with rx:
            with self.assertRaises(wormhole.Full):
                while True:
                    tx.try_send(0)
            self.closed_while(tx, lambda: tx.send(1), tx.close)
            self.assertEqual(set(rx), {0})

    def test_a_waiting_accept_ends_and_the_end_is_closed(self) -> None:
        name = f"\0wormhole {os.getpid()} closing"
        listener = Listener.bind(name, int)
        self.closed_while(listener, listener.accept, listener.close)
        with self.assertRaises(wormhole.Address):
            wormhole.connect(name)

    def test_all_threads_that_wait_are_woken(self) -> None:
        tx, rx = wormhole.channel(int)
        raised: List[str] = []

        def run() -> None:
            try:
                rx.recv()
            except ValueError as error:
                raised.append(str(error))

        threads = [threading.Thread(target=run, daemon=True) for _ in range(5)]
        for thread in threads:
            thread.start()
        while len(rx._waiters.wakers) < 5:
            pass
        rx.close()
        for thread in threads:
            thread.join(30)
        self.assertEqual(raised, ["the receiver is closed"] * 5)
        tx.close()

    def test_a_forked_process_that_closes_it_leaves_the_others_asleep(self) -> None:
        tx, rx = wormhole.channel(int)
        name = f"\0wormhole {os.getpid()} forked"
        listener = Listener.bind(name, int)
        got: List[Any] = []
        threads = []
        for end in (rx, listener):
            call: Any = end.recv if isinstance(end, Receiver) else end.accept
            thread = threading.Thread(target=lambda call=call: got.append(call()), daemon=True)
            thread.start()
            threads.append(thread)
            while not end._waiters.wakers or state(thread) != "S":
                pass
        child = fork()
        if child == 0:
            rx.close()
            listener.close()
            os._exit(0)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        poll = select.poll()
        for end in (rx, listener):
            for waker in end._waiters.wakers:
                poll.register(waker.fileno(), select.POLLIN)
        self.assertEqual(poll.poll(0), [])
        for thread in threads:
            while state(thread) != "S":
                pass
        tx.send(7)
        threads[0].join(30)
        self.assertEqual(got, [7])
        with wormhole.connect(name, int):
            threads[1].join(30)
        with got[1][0], tx, rx, listener:
            pass

    def test_out_of_descriptors_it_is_noticed_as_well(self) -> None:
        tx, rx = wormhole.channel(int)
        with tx, mock.patch.object(_wait, "_waker", lambda: None):
            raised: List[ValueError] = []
            waits = threading.Event()

            def run() -> None:
                try:
                    waits.set()
                    rx.recv()
                except ValueError as error:
                    raised.append(error)

            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            waits.wait(30)
            rx.close()
            thread.join(30)
            self.assertEqual(len(raised), 1)

    def test_a_signals_handler_can_close_what_its_own_thread_waits_for(self) -> None:
        # In a process of its own, without the thread that every test here has.
        child = fork()
        if child == 0:
            status = 1
            try:
                signal.alarm(30)
                tx, rx = wormhole.channel(int)
                signal.signal(signal.SIGUSR1, lambda *_: rx.close())
                parent = os.getpid()
                if os.fork() == 0:
                    signal.alarm(30)
                    while True:  # until it sleeps
                        with open(f"/proc/{parent}/stat") as file:
                            if file.read().rpartition(")")[2].split()[0] == "S":
                                break
                    os.kill(parent, signal.SIGUSR1)
                    os._exit(0)
                try:
                    rx.recv()
                except ValueError:
                    status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_an_exception_that_is_kept_keeps_no_end_open(self) -> None:
        tx, rx = wormhole.channel(int)
        kept: List[BaseException] = []
        for call in (rx.try_recv, lambda: rx.recv_timeout(0)):
            try:
                call()
            except wormhole.Error as error:
                kept.append(error)
        rx.close()
        self.assertRaises(wormhole.Disconnected, tx.send, 1)
        tx.close()
        self.assertEqual(len(kept), 2)

    def test_an_end_that_raised_closes_with_its_last_reference(self) -> None:
        class Denied(_packets.Socket):
            def recvmsg_into(self, *_: Any) -> Any:
                raise PermissionError(errno.EPERM, "denied")

        def denied(tx: Sender[Any], rx: Receiver[int]) -> None:
            rx._socket = Denied(_packets.UNIX, _packets.KIND, 0, rx.detach())
            rx.recv()

        def after(data: bytes) -> Callable[[Sender[Any], Receiver[int]], Any]:
            def call(tx: Sender[Any], rx: Receiver[int]) -> Any:
                raw_send(tx, data)
                return rx.recv()

            return call

        def fill(tx: Sender[Any], rx: Receiver[int]) -> None:
            while True:
                tx.try_send(1)

        def fill_slowly(tx: Sender[Any], rx: Receiver[int]) -> None:
            while True:
                tx.send_timeout(1, 0)

        calls: List[Tuple[Any, Callable[[Sender[Any], Receiver[int]], Any]]] = [
            (wormhole.Empty, lambda _, rx: rx.try_recv()),
            (wormhole.TimedOut, lambda _, rx: rx.recv_timeout(0)),
            (wormhole.Io, denied),
            (wormhole.Decode, after(packet(b'"x"'))),
            (wormhole.Decode, after(packet(b"["))),
            (wormhole.Malformed, after(b"x")),
            (wormhole.TooLarge, after(packet(b" " * 100))),
            (wormhole.Full, fill),
            (wormhole.TimedOut, fill_slowly),
            (wormhole.Encode, lambda tx, _: tx.send("x")),
            (wormhole.TooLarge, lambda tx, _: tx.send(10**100)),
            (wormhole.TooManyFds, lambda tx, _: tx.send_with_fds(1, [0] * 254)),
        ]
        gc.disable()
        self.addCleanup(gc.enable)
        for raises, call in calls:
            for goes in ("receiver", "sender"):
                tx, rx = wormhole.channel(int, max_message_len=20)
                with contextlib.suppress(raises):  # assertRaises would clear the frames
                    call(tx, rx)
                    self.fail()
                if goes == "sender":
                    del tx
                    if call is not denied:
                        self.assertLessEqual(set(rx), {1})
                    del rx
                else:
                    del rx
                    self.assertRaises(wormhole.Disconnected, tx.send, 1)
                    del tx
        name = f"\0wormhole {os.getpid()} closing"
        listener = Listener.bind(name, int)
        for accept in (listener.try_accept, partial(listener.accept_timeout, 0)):
            with contextlib.suppress(wormhole.Empty, wormhole.TimedOut):
                accept()
                self.fail()
        del listener, accept
        self.assertRaises(wormhole.Address, wormhole.connect, name)

    def test_no_number_is_closed_under_a_call(self) -> None:
        # Threads send and receive while others close, and the numbers that become free are taken at once by files
        # that nobody may write to or read from.
        foreign = os.memfd_create("foreign")
        over = threading.Event()

        def take_numbers() -> None:
            while not over.is_set():
                os.close(os.dup(foreign))

        taker = threading.Thread(target=take_numbers)
        taker.start()
        try:
            for _ in range(200):
                tx, rx = wormhole.channel(int)
                wrong: List[BaseException] = []

                def use(call: Callable[[], Any], wrong: List[BaseException] = wrong) -> None:
                    try:
                        while True:
                            call()
                    except (ValueError, wormhole.Disconnected):
                        pass
                    except BaseException as error:
                        wrong.append(error)

                threads = [
                    threading.Thread(target=use, args=(call,))
                    for call in (rx.recv, lambda tx=tx: tx.send(1), rx.recv)
                ]
                for thread in threads:
                    thread.start()
                rx.close()
                tx.close()
                for thread in threads:
                    thread.join(30)
                    self.assertFalse(thread.is_alive())
                self.assertEqual(wrong, [])
        finally:
            over.set()
            taker.join()
        self.assertEqual(os.fstat(foreign).st_size, 0)
        os.close(foreign)

    def test_what_is_relied_on_of_the_kernel(self) -> None:
        waker = _socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        poll = select.poll()
        poll.register(waker.fileno(), select.POLLIN)
        self.assertEqual(poll.poll(0), [])
        waker.shutdown(socket.SHUT_RDWR)
        self.assertTrue(poll.poll(0)[0][1] & select.POLLIN)
        waker.close()
        inert = _socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        poll = select.poll()
        poll.register(inert.fileno(), select.POLLIN)
        self.assertTrue(poll.poll(0)[0][1] & select.POLLHUP)
        self.assertRaises(OSError, inert.recv, 1)
        inert.close()
        self.assertEqual(open_fds(), self.before)


if __name__ == "__main__":
    unittest.main()
