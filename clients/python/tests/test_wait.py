"""Spinning, as long as that pays off."""

from __future__ import annotations

import unittest
from select import POLLIN
from time import monotonic
from unittest import mock

from wormhole_ipc import _wait
from wormhole_ipc._packets import pair
from wormhole_ipc._wait import Spin, Waiters, until_ready

from .support import Case


class Waits(Case):
    def wait(self, spin: Spin, misses: int) -> int:
        """Waits for what comes after so many more looks. Gives how many of the looks were spinning."""
        looks = 0

        def attempt(may_block: bool) -> bool:
            nonlocal looks, misses
            looks += not may_block
            if misses and not may_block:
                misses -= 1
                return False
            return True

        a, b = pair()
        # The deadline of a test is a thread, so it would not sleep in `attempt`.
        with mock.patch.object(_wait, "_is_alone", lambda: True):
            until_ready(a, POLLIN, spin, None, attempt, Waiters(), lambda: True)
        return looks

    def test_it_takes_some_quick_answers_before_it_spins(self) -> None:
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
        def never(may_block: bool) -> bool:
            return False

        spin = Spin()
        spin.score = 8
        a, b = pair()
        with mock.patch.object(_wait, "SPIN", 3600.0):
            deadline = monotonic() + 0.01
            done = until_ready(a, POLLIN, spin, deadline, never, Waiters(), lambda: True)
        self.assertFalse(done)


if __name__ == "__main__":
    unittest.main()
