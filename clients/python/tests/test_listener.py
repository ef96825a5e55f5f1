"""Listening at a name: the file, the clients, and the flags of others."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import stat
import tempfile
import threading
import unittest
from typing import Any
from unittest import mock

import wormhole_ipc as wormhole
from wormhole_ipc import Listener, _packets

from .support import Case, fork, packet, raw_send


class Listening(Case):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = f"{folder.name}/server"

    def test_clients_are_accepted_and_known(self) -> None:
        for name in (self.path, f"\0wormhole {self.path}"):
            with Listener.bind(name, str) as listener:
                self.assertRaises(wormhole.Empty, listener.try_accept)
                self.assertRaises(wormhole.TimedOut, listener.accept_timeout, 0.01)
                with wormhole.connect(name, str) as tx:
                    tx.send("hello")
                    rx, peer = listener.accept()
                    with rx:
                        self.assertEqual(peer, (os.getpid(), os.getuid(), os.getgid()))
                        self.assertEqual(rx.recv(), "hello")
                        self.assertRaises(BrokenPipeError, raw_send, rx, b"backwards")
                with wormhole.connect(name, str) as tx:
                    tx.send("again")
                for rx, _ in listener:
                    with rx:
                        self.assertEqual(list(rx), ["again"])
                    break
            with self.assertRaises(wormhole.Address):
                wormhole.connect(name, str)

    def test_the_file_is_the_owners_alone_and_goes_with_the_listener(self) -> None:
        with Listener.bind(self.path, int):
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual(os.listdir(os.path.dirname(self.path)), [])
        listener = Listener.bind(self.path, int)
        del listener
        self.assertFalse(os.path.exists(self.path))

    def test_a_stale_file_is_replaced_and_a_live_one_is_not(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
            stale.bind(self.path)
            with self.assertRaises(wormhole.Address) as caught:
                Listener.bind(self.path, int)  # bound, if it does not listen yet
            self.assertIn("in use", str(caught.exception.__cause__))
        with Listener.bind(self.path, int) as first:
            self.assertRaises(wormhole.Address, Listener.bind, self.path, int)
            with wormhole.connect(self.path, int) as tx:
                tx.send(1)
            with first.accept()[0] as rx:
                self.assertEqual(list(rx), [1])
        with open(self.path, "w") as file:
            file.write("important")
        with self.assertRaises(wormhole.Address) as caught:
            Listener.bind(self.path, int)
        self.assertIsInstance(caught.exception.__cause__, FileExistsError)
        with open(self.path) as file:
            self.assertEqual(file.read(), "important")
        self.assertEqual(os.listdir(os.path.dirname(self.path)), ["server"])

    def test_a_held_lock_is_in_use(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
            stale.bind(self.path)
        with open(self.path + ".wormhole-lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.assertRaises(wormhole.Address, Listener.bind, self.path, int)
        Listener.bind(self.path, int).close()

    def test_a_lock_that_cannot_be_removed_is_given_back(self) -> None:
        unlink = os.unlink

        def denied(path: Any) -> None:
            if os.fsencode(path).endswith(b"-lock"):
                raise PermissionError(1, "denied")
            unlink(path)

        for _ in range(2):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
                stale.bind(self.path)
            with mock.patch("os.unlink", denied):
                Listener.bind(self.path, int).close()
            self.assertFalse(os.path.exists(self.path))
            with open(self.path + ".wormhole-lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_a_stale_file_may_go_meanwhile(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
            stale.bind(self.path)
        unlink = os.unlink

        def again(path: Any) -> None:
            unlink(path)
            if os.fsencode(path) == os.fsencode(self.path):
                unlink(path)

        with mock.patch("os.unlink", again):
            listener = Listener.bind(self.path, int)
        listener.close()

    def test_a_forked_process_does_not_remove_the_file(self) -> None:
        with Listener.bind(self.path, int) as listener:
            child = fork()
            if child == 0:
                listener.close()
                os._exit(0)
            os.waitpid(child, 0)
            self.assertTrue(os.path.exists(self.path))

    def test_the_file_is_removed_while_it_is_listened_at(self) -> None:
        unlink = os.unlink
        live = []

        def look(path: Any) -> None:
            with wormhole.connect(path, int):
                live.append(path)
            unlink(path)

        for leave in ("close", "forget"):
            listener = Listener.bind(self.path, int)
            with mock.patch("os.unlink", look):
                if leave == "close":
                    listener.close()
                del listener
        self.assertEqual(len(live), 2)

    def test_the_file_is_removed_once(self) -> None:
        first = Listener.bind(self.path, int)
        first.close()
        with Listener.bind(self.path, int) as second:
            # Another file may get its inode number as soon as it is closed.
            assert first._file is not None and second._file is not None
            first._file.identity = second._file.identity
            first.close()
            del first
            self.assertTrue(os.path.exists(self.path))

    def test_a_listener_that_is_given_away_keeps_its_file(self) -> None:
        tx, rx = wormhole.channel(Listener[int])
        with tx, rx:
            tx.send(Listener.bind(self.path, int), move=True)
            with rx.recv() as listener, wormhole.connect(self.path, int) as client:
                client.send(5)
                with listener.accept()[0] as clients:
                    self.assertEqual(clients.recv(), 5)
            self.assertTrue(os.path.exists(self.path))

    def test_one_whose_giving_away_failed_does_not(self) -> None:
        tx, rx = wormhole.channel(Listener[int])
        rx.close()
        with tx, self.assertRaises(wormhole.Disconnected):
            tx.send(Listener.bind(self.path, int), move=True)
        self.assertFalse(os.path.exists(self.path))
        with self.assertRaisesRegex(wormhole.Io, "`/missing`"):
            wormhole.spawn(["/missing"], Listener.bind(self.path, int))
        self.assertFalse(os.path.exists(self.path))

    def test_what_does_not_listen_is_refused(self) -> None:
        tx, rx = wormhole.channel(Listener[int])
        blocking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        blocking.bind(self.path)
        blocking.listen(1)
        with tx, rx, blocking:
            for number in (0, tx.fileno()):
                raw_send(tx, packet(b"0"), [number])
                self.assertRaises(wormhole.Decode, rx.recv)
            # One that blocks is one: in a message, and as systemd hands it over.
            raw_send(tx, packet(b"0"), [blocking.fileno()])
            for listener in (rx.recv(), Listener(blocking.dup(), int)):
                with listener:
                    self.assertRaises(wormhole.Empty, listener.try_accept)
                    self.assertRaises(wormhole.TimedOut, listener.accept_timeout, 0.01)
                    blocking.setblocking(True)
            reader, writer = os.pipe()
            self.assertRaises(wormhole.NotAChannel, Listener, os.dup(reader), int)
            self.assertTrue(os.get_blocking(reader))  # what is refused is left as it was
            os.close(reader)
            os.close(writer)

    def test_a_flag_that_another_process_clears_does_not_block(self) -> None:
        with Listener.bind(self.path, int) as listener:
            os.set_blocking(listener.fileno(), True)
            self.assertRaises(wormhole.Empty, listener.try_accept)
            os.set_blocking(listener.fileno(), True)
            self.assertRaises(wormhole.TimedOut, listener.accept_timeout, 0.01)
            # Not if it is cleared at any other moment, nor if another process takes the client.
            os.set_blocking(listener.fileno(), True)
            with mock.patch("os.set_blocking"):
                self.assertRaises(wormhole.Empty, listener.try_accept)
            with mock.patch.object(_packets, "events_of", return_value=select.POLLIN):
                self.assertRaises(wormhole.Empty, listener.try_accept)

    def test_an_accept_that_waits_goes_on_with_the_client(self) -> None:
        with Listener.bind(self.path, int) as listener:
            accepted: Any = []
            thread = threading.Thread(target=lambda: accepted.append(listener.accept()))
            thread.start()
            while not listener._waiters.wakers:
                pass
            with wormhole.connect(self.path, int):
                thread.join(30)
            ((rx, _),) = accepted
            rx.close()


if __name__ == "__main__":
    unittest.main()
