"""The examples, run as their users run them."""

from __future__ import annotations

import os
import subprocess
import sys
import unittest

from .support import DEADLINE, PACKAGE, Case


class Examples(Case):
    def test_asyncio(self) -> None:
        ended = subprocess.run(
            [sys.executable, "-W", "error", str(PACKAGE / "examples" / "asyncio_sum.py")],
            env={**os.environ, "PYTHONPATH": str(PACKAGE)},
            capture_output=True,
            text=True,
            timeout=DEADLINE / 2,
        )
        self.assertEqual((ended.stdout, ended.stderr), ("[45, 499500, 0]\n", ""))


if __name__ == "__main__":
    unittest.main()
