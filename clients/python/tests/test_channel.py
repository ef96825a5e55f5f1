"""Sending and receiving: what blocks, what is raised, what stays open."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import selectors
import signal
import socket
import struct
import threading
import time
import unittest
from typing import Any, List
from unittest import mock

import wormhole_ipc as wormhole
from wormhole_ipc import Receiver, Sender, _packets, _wait

from .support import Case, fork, open_fds, packet, raw_recv, raw_send


class Channel(Case):
    def test_messages_arrive_in_order_and_outlive_their_sender(self) -> None:
        tx, rx = wormhole.channel(int)
        with rx:
            for number in range(100):
                tx.send(number)
            tx.close()
            self.assertEqual(list(rx), list(range(100)))
            self.assertRaises(wormhole.Disconnected, rx.recv)
            self.assertRaises(wormhole.Disconnected, rx.try_recv)
            self.assertRaises(wormhole.Disconnected, rx.recv_timeout, 10)

    def test_an_empty_channel_is_empty_and_not_disconnected(self) -> None:
        tx, rx = wormhole.channel()
        with tx, rx:
            self.assertRaises(wormhole.Empty, rx.try_recv)
            self.assertRaises(wormhole.TimedOut, rx.recv_timeout, 0)
            start = time.monotonic()
            self.assertRaises(wormhole.TimedOut, rx.recv_timeout, 0.05)
            self.assertGreaterEqual(time.monotonic() - start, 0.05)

    def test_a_socket_may_take_less_than_it_says(self) -> None:
        tx, rx = wormhole.channel(str)
        most = attempts = 0

        class Refuses(_packets.Socket):
            def sendmsg(self, buffers: Any, *rest: Any) -> int:
                nonlocal attempts
                attempts += 1
                if len(buffers[0]) > most:
                    raise OSError(errno.EMSGSIZE, "too long")
                return super().sendmsg(buffers, *rest)

        with tx, rx, mock.patch.object(_packets.Sends, "plainly", False):
            tx._socket = Refuses(_packets.UNIX, _packets.KIND, 0, tx.detach())
            for length in (5, 5_000, 500_000):
                most = 7
                for call in (tx.send, tx.try_send, lambda text: tx.send_timeout(text, 0)):
                    attempts = 0
                    with self.assertRaises(wormhole.Io) as caught:
                        call("x" * length)
                    self.assertIn("too long", str(caught.exception.__cause__))
                    self.assertLess(attempts, 40)
                for enough in (16, 100, 1_000_000):
                    most = enough
                    tx.send("x" * length)
                    self.assertEqual(rx.recv(), "x" * length)

    def test_a_receive_that_fails_itself_consumes_nothing(self) -> None:
        class Denied(_packets.Socket):
            def recvmsg_into(self, *_: Any) -> Any:
                raise OSError(errno.ENOMEM, "no memory")

        tx, rx = wormhole.channel(int)
        with tx, rx:
            tx.send(5)
            denied = Denied(_packets.UNIX, _packets.KIND, 0, rx.detach())
            rx._socket = denied
            for call in (rx.recv, rx.try_recv, lambda: rx.recv_timeout(0)):
                with self.assertRaises(wormhole.Io) as caught:
                    call()
                self.assertIn("no memory", str(caught.exception.__cause__))
            rx._socket = _packets.wrap(denied.detach())
            self.assertEqual(rx.recv(), 5)

    def test_a_full_channel_is_full_and_what_it_accepted_arrives(self) -> None:
        tx, rx = wormhole.channel(int)
        with tx, rx:
            sent = 0
            with self.assertRaises(wormhole.Full):
                while True:
                    tx.try_send(sent)
                    sent += 1
            self.assertGreater(sent, 200)
            self.assertRaises(wormhole.TimedOut, tx.send_timeout, 0, 0.01)
            self.assertEqual(list(rx.try_iter()), list(range(sent)))
            tx.try_send(5)
            self.assertEqual(rx.recv(), 5)

    def test_a_blocked_sender_goes_on_as_soon_as_there_is_room(self) -> None:
        # The kernel would not wake it before three quarters of the buffer are free.
        tx, rx = wormhole.channel(int)
        with tx, rx:
            try:
                while True:
                    tx.try_send(0)
            except wormhole.Full:
                pass
            waits = threading.Event()

            def until_ready(*arguments: Any) -> bool:
                waits.set()
                return _wait.until_ready(*arguments)

            with mock.patch("wormhole_ipc._end.until_ready", until_ready):
                thread = threading.Thread(target=tx.send, args=(1,))
                thread.start()
                waits.wait(30)
                rx.recv()
                thread.join(30)
            self.assertFalse(thread.is_alive())
            rx.close()  # frees it if it still waits

    def test_senders_see_that_every_receiver_is_gone(self) -> None:
        tx, rx = wormhole.channel(int)
        with tx:
            tx.send(1)  # dies with its receiver
            rx.close()
            for _ in range(3):
                self.assertRaises(wormhole.Disconnected, tx.send, 2)
                self.assertRaises(wormhole.Disconnected, tx.try_send, 2)
                self.assertRaises(wormhole.Disconnected, tx.send_timeout, 2, 10)
                self.assertRaises(wormhole.Disconnected, tx.send_with_fds, 2, [tx])

    def test_a_receiver_wakes_up_when_the_last_sender_is_closed(self) -> None:
        tx, rx = wormhole.channel(int)
        with rx:
            ended: List[bool] = []

            def receive() -> None:
                try:
                    rx.recv()
                except wormhole.Disconnected:
                    ended.append(True)

            thread = threading.Thread(target=receive)
            thread.start()
            tx.close()
            thread.join(30)
            self.assertEqual(ended, [True])

    def test_a_closed_end_says_so(self) -> None:
        tx, rx = wormhole.channel(int)
        tx.close()
        rx.close()
        rx.close()
        for use in (tx.fileno, rx.fileno, rx.recv, rx.try_recv, lambda: tx.send(1), tx.detach):
            with self.assertRaisesRegex(ValueError, "closed"):
                use()

    def test_ends_close_when_nobody_refers_to_them(self) -> None:
        tx, rx = wormhole.channel(int)
        with tx:
            del rx
            self.assertRaises(wormhole.Disconnected, tx.send, 1)

    def test_receivers_share_the_work(self) -> None:
        tx, rx = wormhole.channel(int)
        seen: List[int] = []
        with rx, tx:
            threads = [threading.Thread(target=lambda: seen.extend(rx)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for number in range(2000):
                tx.send(number)
            tx.close()
            for thread in threads:
                thread.join(30)
        self.assertEqual(sorted(seen), list(range(2000)))

    def test_an_iteration_goes_on_after_an_error(self) -> None:
        tx, rx = wormhole.channel(int)
        with rx:
            tx.send(1)
            raw_send(tx, packet(b'"no integer"'))
            tx.send(2)
            tx.close()
            seen: List[int] = []
            with self.assertRaises(wormhole.Decode):
                for number in rx:
                    seen.append(number)
            seen.extend(rx)
            self.assertEqual(seen, [1, 2])

    def test_signals_neither_end_a_wait_nor_prolong_it(self) -> None:
        tx, rx = wormhole.channel(int)
        seen: List[int] = []

        def on_alarm(*_: Any) -> None:
            seen.append(1)
            if len(seen) == 5:
                tx.send(len(seen))

        old = signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        try:
            self.assertEqual(rx.recv(), 5)
            seen[:] = [0] * 10
            self.assertRaises(wormhole.TimedOut, rx.recv_timeout, 0.1)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
        tx.close()
        rx.close()

    def test_an_exception_of_a_signal_handler_ends_a_wait_and_loses_nothing(self) -> None:
        tx, rx = wormhole.channel(int)

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        old = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            self.assertRaises(KeyboardInterrupt, rx.recv)
        finally:
            signal.signal(signal.SIGALRM, old)
        tx.send(1)
        self.assertEqual(rx.recv(), 1)
        tx.close()
        rx.close()


class Sharing(Case):
    def test_no_flag_is_set_on_a_socket(self) -> None:
        default = socket.getdefaulttimeout()
        socket.setdefaulttimeout(5)
        try:
            tx, rx = wormhole.channel(int)
            copy = Receiver(rx.detach(), int)
            with tx, copy:
                tx.send(1)
                self.assertEqual(copy.recv(), 1)
                self.assertRaises(wormhole.TimedOut, copy.recv_timeout, 0.01)
                for end in (tx, copy):
                    flags = fcntl.fcntl(end.fileno(), fcntl.F_GETFL)
                    self.assertFalse(flags & os.O_NONBLOCK)
        finally:
            socket.setdefaulttimeout(default)

    def test_a_flag_that_another_process_set_does_no_harm(self) -> None:
        tx, rx = wormhole.channel(int)
        with tx, rx:
            os.set_blocking(rx.fileno(), False)
            thread = threading.Timer(0.05, tx.send, (1,))
            thread.start()
            self.assertEqual(rx.recv(), 1)
            thread.join()

    def test_the_channel_is_one_way(self) -> None:
        tx, rx = wormhole.channel(int)
        with tx, rx:
            self.assertRaises(BrokenPipeError, raw_send, rx, b"backwards")

    def test_a_receiver_that_wrote_backwards_costs_nothing(self) -> None:
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        tx, rx = Sender[int](a), Receiver[int](b)
        with rx:
            for number in range(10):
                tx.send(number)
            raw_send(rx, b"garbage")
            tx.close()
            self.assertEqual(list(rx), list(range(10)))

    def test_empty_packets_do_not_look_like_the_end(self) -> None:
        tx, rx = wormhole.channel(int)
        with rx:
            raw_send(tx, b"")
            raw_send(tx, b"")
            tx.send(1)
            self.assertRaises(wormhole.Malformed, rx.recv)
            self.assertRaises(wormhole.Malformed, rx.recv)
            self.assertEqual(rx.recv(), 1)
            raw_send(tx, b"")
            tx.send(2)
            raw_send(tx, b"")
            tx.close()
            self.assertEqual(list(rx), [2])

    def test_forked_processes_do_not_share_buffers(self) -> None:
        buffer = _packets.fresh_slot()[0][0][0]
        child = fork()
        if child == 0:
            buffer[0] = 1
            os._exit(0)
        os.waitpid(child, 0)
        self.assertEqual(buffer[0], 0)

    def test_two_processes_echo(self) -> None:
        tx, rx = wormhole.channel(str)
        answer, answers = wormhole.channel(str)
        with tx, rx, answer, answers:
            tx.send("x" * 1000)
            rx.recv()  # now there is a buffer
            child = fork()
            if child == 0:
                signal.alarm(30)
                status = 1
                try:
                    for _ in range(500):
                        answer.send(rx.recv())
                    status = 0
                finally:
                    os._exit(status)
            for number in range(500):
                tx.send(str(number) * 300)
                self.assertEqual(answers.recv(), str(number) * 300)
            self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_a_last_message_just_before_the_end_is_received(self) -> None:
        for _ in range(300):
            tx, rx = wormhole.channel(int)
            child = fork()
            if child == 0:
                tx.send(1)
                os._exit(0)
            tx.close()
            with rx:
                self.assertEqual(list(rx), [1])
            os.waitpid(child, 0)

    def test_selectors_say_when_a_message_waits_and_when_there_is_an_end(self) -> None:
        tx, rx = wormhole.channel(int)
        with rx, selectors.DefaultSelector() as selector:
            selector.register(rx, selectors.EVENT_READ)
            self.assertEqual(selector.select(0), [])
            tx.send(1)
            self.assertEqual(len(selector.select(10)), 1)
            self.assertEqual(rx.try_recv(), 1)
            tx.close()
            self.assertEqual(len(selector.select(10)), 1)
            self.assertRaises(wormhole.Disconnected, rx.try_recv)


class Lengths(Case):
    def test_messages_of_any_length_arrive(self) -> None:
        tx, rx = wormhole.channel(str)
        with tx, rx:
            for length in (0, 1, 212_940, 212_950, 212_951, 212_960, 262_134, 300_000, 5_000_000):
                message = "x" * (length - 1) + "é" if length else ""
                tx.send(message)
                self.assertEqual(rx.recv(), message)

    def test_a_long_message_is_a_packet_and_a_memfd(self) -> None:
        tx, rx = wormhole.channel(str, buffer=1)
        with tx, rx:
            tx.send("ab" * 2400)
            data, fds = raw_recv(rx)
            self.assertEqual(len(data), 4576)
            self.assertEqual(struct.unpack_from("<Q", data)[0], 4802)
            (memfd,) = fds
            text = data[8:] + os.pread(memfd, 10_000, 0)
            os.close(memfd)
            self.assertEqual(text, b'"' + b"ab" * 2400 + b'"')

    def test_a_long_message_holds_its_sender_back(self) -> None:
        tx, rx = wormhole.channel(str)
        with tx, rx:
            tx.send("x" * 1_000_000)
            self.assertRaises(wormhole.Full, tx.try_send, "x" * 1_000_000)
            rx.recv()

    def test_limits_hold_on_both_sides(self) -> None:
        tx, rx = wormhole.channel(str)
        with tx, rx:
            tx.max_message_len = 8
            tx.send("123456")
            with self.assertRaises(wormhole.TooLarge) as caught:
                tx.send("1234567")
            self.assertEqual((caught.exception.size, caught.exception.limit), (9, 8))
            rx.max_message_len = 7
            self.assertRaises(wormhole.TooLarge, rx.recv)
            tx.send("12345")
            self.assertEqual(rx.recv(), "12345")

    def test_a_packet_longer_than_the_protocols_is_called_so(self) -> None:
        tx, rx = wormhole.channel(str, buffer=212_992)
        with tx, rx:
            raw_send(tx, packet(b" " * 262_144))
            with self.assertRaisesRegex(wormhole.Malformed, "262152 bytes is longer"):
                rx.recv()

    def test_a_file_in_place_of_the_memfd_is_refused(self) -> None:
        # Of the right size: reading another such file could wait for ever, on a remote host.
        tx, rx = wormhole.channel(str)
        with tx, rx, open(__file__, "rb") as file:
            try:
                fcntl.fcntl(file, fcntl.F_GET_SEALS)
            except OSError:
                pass
            else:
                self.skipTest("this file is in memory")
            raw_send(tx, struct.pack("<Q", os.fstat(file.fileno()).st_size), [file.fileno()])
            with self.assertRaisesRegex(wormhole.Malformed, "not a memfd"):
                rx.recv()

    def test_a_memfd_that_changes_while_it_is_read_is_an_error_at_worst(self) -> None:
        tx, rx = wormhole.channel(str)
        text = b'"' + b"x" * 1_000_000 + b'"'
        memfd = os.memfd_create("test")
        os.write(memfd, text)
        over = threading.Event()

        def change() -> None:
            while not over.is_set():
                for length in (0, 500_000, 2_000_000, len(text)):
                    os.ftruncate(memfd, length)

        thread = threading.Thread(target=change)
        thread.start()
        try:
            for _ in range(200):
                raw_send(tx, struct.pack("<Q", len(text)), [memfd])
                try:
                    rx.recv()
                except (wormhole.Malformed, wormhole.Decode):
                    pass
        finally:
            over.set()
            thread.join()
        os.close(memfd)
        tx.close()
        rx.close()


class Descriptors(Case):
    def test_descriptors_beside_a_message(self) -> None:
        tx, rx = wormhole.channel(int)
        with tx, rx, open("/dev/null") as null:
            tx.send_with_fds(1, [null, null.fileno()])
            tx.send_with_fds(2, [null])
            message, fds = rx.recv_with_fds()
            self.assertEqual((message, len(fds)), (1, 2))
            for fd in fds:
                self.assertFalse(os.get_inheritable(fd.fileno()))
                fd.close()
            with self.assertRaises(wormhole.UnexpectedFds) as caught:
                rx.recv()
            self.assertEqual(caught.exception.count, 1)

    def test_too_many_descriptors(self) -> None:
        tx, rx = wormhole.channel(str)
        with tx, rx:
            self.assertRaises(wormhole.TooManyFds, tx.send_with_fds, "", [tx] * 254)
            with self.assertRaises(wormhole.TooManyFds) as caught:
                tx.send_with_fds("x" * 300_000, [tx] * 253)  # one more for the memfd
            self.assertEqual((caught.exception.count, caught.exception.limit), (254, 253))
            tx.send_with_fds("x", [tx] * 253)
            self.assertEqual(len(rx.recv_with_fds()[1]), 253)

    def test_lost_descriptors_are_an_error(self) -> None:
        tx, rx = wormhole.channel(int)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with tx, rx:
            for room in (0, 1, 9):
                tx.send_with_fds(1, [tx] * 10)
                tx.send(2)
                before = open_fds()
                resource.setrlimit(resource.RLIMIT_NOFILE, (max(before) + 1 + room, hard))
                holes: List[int] = []  # the numbers below the highest one that are free
                try:
                    while len(holes) < max(before) + 1 - len(before):
                        holes.append(os.open("/dev/null", os.O_RDONLY))
                    self.assertRaises(wormhole.FdsLost, rx.recv_with_fds)
                    self.assertEqual(rx.recv(), 2)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                    for hole in holes:
                        os.close(hole)
                self.assertEqual(open_fds(), before)

    def test_what_a_foreign_holder_asks_the_kernel_for_costs_no_descriptor(self) -> None:
        for options in ([socket.SO_PASSCRED], [34], [76], [socket.SO_PASSCRED, 34, 76]):
            tx, rx = wormhole.channel(int)
            with tx, rx, open("/dev/null") as null:
                with socket.socket(fileno=os.dup(rx.fileno())) as plain:
                    for option in options:
                        try:
                            plain.setsockopt(socket.SOL_SOCKET, option, 1)
                        except OSError:
                            pass  # this kernel does not know it
                for count in (0, 1, 253):
                    tx.send_with_fds(1, [null] * count)
                    before = len(open_fds())
                    _, fds = rx.recv_with_fds()
                    self.assertEqual(len(fds), count)
                    self.assertEqual(len(open_fds()), before + count)
                    del fds
                tx.close()
                self.assertRaises(wormhole.Disconnected, rx.recv)

    def test_control_messages_of_all_kinds_are_walked_over(self) -> None:
        def numbers(*found: int) -> bytes:
            return struct.pack(f"{len(found)}i", *found)

        everything = [
            (socket.SOL_SOCKET, socket.SCM_RIGHTS, b""),  # an empty one does not end it
            (socket.SOL_SOCKET, 2, numbers(1, 2, 3)),
            (socket.SOL_SOCKET, 3, b"label\0"),
            (socket.SOL_SOCKET, 4, numbers(4)),
            (socket.SOL_SOCKET, 4, numbers(-3)),  # why there is no pidfd
            (41, socket.SCM_RIGHTS, numbers(5)),
            (socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers(6, 7) + b"cut"),
            (socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers(8)),
        ]
        self.assertEqual(_packets.unpack(everything), ([6, 7, 8], [4]))

    def test_ends_are_checked_when_made_from_descriptors(self) -> None:
        stream, _other = socket.socketpair()
        with _other:
            for fd in (
                os.open("/dev/null", os.O_RDONLY),
                stream.detach(),
                socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach(),
                socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach(),
            ):
                self.assertRaises(wormhole.NotAChannel, Sender, fd)
                self.assertRaises(OSError, os.fstat, fd)


if __name__ == "__main__":
    unittest.main()
