"""Waiting awake, as long as that pays off."""

from __future__ import annotations

import socket
import unittest
from select import POLLIN
from time import monotonic
from unittest import mock

from wormhole import TimedOut, _wait
from wormhole._wait import Spin, until_ready

from .support import Case


class Waits(Case):
    def wait(self, spin: Spin, misses: int) -> int:
        """Waits for what comes after so many more looks. Gives how many of the looks were awake."""
        looks = 0

        def attempt(may_block: bool) -> None:
            nonlocal looks, misses
            looks += not may_block
            if misses and not may_block:
                misses -= 1
                raise BlockingIOError

        a, b = socket.socketpair()
        with a, b:
            until_ready(a, POLLIN, spin, None, attempt)
        return looks

    def test_it_takes_some_quick_answers_to_wait_awake(self) -> None:
        spin = Spin()
        with mock.patch.object(_wait, "SPIN", 3600.0):
            for _ in range(4):
                self.assertEqual(self.wait(spin, 0), 0)
            for _ in range(10):
                self.assertEqual(self.wait(spin, 5), 6)

    def test_a_wait_in_vain_ends_it_for_twice_as_long_each_time(self) -> None:
        spin = Spin()
        for penalty in (8, 16, 32):
            with mock.patch.object(_wait, "SPIN", 3600.0):
                while spin.score < 4:
                    self.wait(spin, 0)
            with mock.patch.object(_wait, "SPIN", 0.0):
                self.assertEqual(self.wait(spin, 100), 1)  # and then it sleeps
            self.assertEqual(spin.score, -penalty)

    def test_slow_answers_do_not_begin_it(self) -> None:
        spin = Spin()
        with mock.patch.object(_wait, "SPIN", 0.0):
            for _ in range(20):
                self.assertEqual(self.wait(spin, 0), 0)
        self.assertEqual(spin.score, 0)

    def test_a_deadline_ends_it_as_well(self) -> None:
        def never(may_block: bool) -> None:
            raise BlockingIOError

        spin = Spin()
        spin.score = 8
        a, b = socket.socketpair()
        with a, b, mock.patch.object(_wait, "SPIN", 3600.0):
            self.assertRaises(TimedOut, until_ready, a, POLLIN, spin, monotonic() + 0.01, never)


if __name__ == "__main__":
    unittest.main()
