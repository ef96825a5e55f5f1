"""Shared memory that nobody can change."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import unittest
from array import array
from dataclasses import dataclass

import wormhole_ipc as wormhole
from wormhole_ipc import Blob, Fd, Io

from .support import Case, open_fds


@dataclass
class Picture:
    width: int
    pixels: Blob


class Blobs(Case):
    def test_a_blob_is_made_once_and_sent_to_many(self) -> None:
        tx, rx = wormhole.channel(Picture)
        with tx, rx, Blob.from_bytes(b"\x7f" * 300_000) as blob:
            tx.send(Picture(1, blob))
            tx.send(Picture(2, blob))
            first, second = rx.recv(), rx.recv()
            tx.send(first)  # resent
            third = rx.recv()
            for picture in (first, second, third):
                with picture.pixels as pixels:
                    self.assertEqual(len(pixels), 300_000)
                    self.assertEqual(pixels, blob)
                    self.assertEqual(pixels[5], 127)
                    self.assertEqual(pixels[:3], b"\x7f" * 3)

    def test_a_view_needs_no_copy_and_outlives_the_blob(self) -> None:
        with Blob.from_bytes(array("i", [1, 2, 3])) as blob:  # type: ignore[arg-type]
            view = blob.view()
        self.assertTrue(view.readonly)
        self.assertEqual(list(view.cast("i")), [1, 2, 3])
        self.assertRaises(ValueError, blob.view)
        self.assertRaises(ValueError, blob.fileno)
        blob.close()

    def test_memory_that_cannot_be_filled_is_an_error_and_is_closed(self) -> None:
        tx, rx = wormhole.channel(str)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        with tx, rx:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
            try:
                for attempt, says in (
                    (lambda: Blob.from_bytes(b"x" * 1001), "fill a blob"),
                    (lambda: tx.send("x" * 500_000), "put a long message into a memfd"),
                ):
                    before = open_fds()
                    with self.assertRaisesRegex(Io, says) as caught:
                        attempt()
                    self.assertEqual(caught.exception.__cause__.errno, errno.EFBIG)  # type: ignore[union-attr]
                    self.assertEqual(open_fds(), before)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            tx.send("next")
            self.assertEqual(rx.recv(), "next")

    def test_an_empty_blob(self) -> None:
        with Blob.from_bytes(b"") as blob:
            self.assertEqual((len(blob), bytes(blob), blob[:1]), (0, b"", b""))

    def test_nobody_can_change_a_blob(self) -> None:
        with Blob.from_bytes(b"blob") as blob:
            self.assertRaises(PermissionError, os.pwrite, blob.fileno(), b"x", 0)
            self.assertRaises(PermissionError, os.ftruncate, blob.fileno(), 0)
            self.assertRaises(PermissionError, mmap.mmap, blob.fileno(), 4)

    def test_what_is_not_sealed_is_refused_and_closed(self) -> None:
        before = open_fds()
        plain = os.memfd_create("test", os.MFD_ALLOW_SEALING)
        fcntl.fcntl(plain, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self.assertRaises(wormhole.NotABlob, Blob, Fd(plain))
        self.assertRaises(wormhole.NotABlob, Blob, os.open("/dev/null", os.O_RDONLY))
        self.assertEqual(open_fds(), before)

    def test_huge_pages_are_refused(self) -> None:
        try:
            huge = os.memfd_create("test", os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
        except OSError as error:
            self.skipTest(f"no memfd of huge pages here: {error}")
        fcntl.fcntl(huge, fcntl.F_ADD_SEALS, 15)
        with self.assertRaisesRegex(wormhole.NotABlob, "huge pages"):
            Blob(huge)


if __name__ == "__main__":
    unittest.main()
