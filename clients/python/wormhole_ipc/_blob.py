"""Bulk data in a message, without JSON and without copies: memory that nobody can change any more."""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Any, Callable, Optional, Tuple, Union

from . import _memfd
from ._errors import Io, NotABlob
from ._fd import Closing, Fd, share

_F_SEAL_SEAL, _F_SEAL_SHRINK, _F_SEAL_GROW, _F_SEAL_WRITE = 1, 2, 4, 8
_ALL_SEALS = _F_SEAL_SEAL | _F_SEAL_SHRINK | _F_SEAL_GROW | _F_SEAL_WRITE


class Blob(Closing):
    """Immutable bytes in shared memory, to send bulk data in a message: made once, sent to many.

    What is sent is a descriptor, whatever the size, and each process that receives it maps the same memory.
    ``len(blob)``, ``blob[i]``, ``blob[i:j]`` and ``bytes(blob)`` copy what they give; ``blob.view()`` gives all of
    it without a copy, for `memoryview`'s users: ``numpy.frombuffer(blob.view())``, ``file.write(blob.view())``.

    The memory is a sealed memfd. The seals are checked before it is mapped, so a hostile sender cannot change or
    cut it. `max_blob_len` of the receiver limits how long all blobs of a message are together. Reading a blob may still
    take up as much memory as it is long.
    """

    __slots__ = ("_fd", "_size", "_view")

    def __init__(self, fd: Union[int, Fd]) -> None:
        """Takes over a descriptor from elsewhere. Closes it and raises `NotABlob` unless it is a memfd that is
        sealed against writing, growing and shrinking, or `Io` if it cannot be mapped."""
        self._set_up(fd if isinstance(fd, Fd) else Fd(fd))
        try:
            self._map(None)
        except BaseException:
            self._fd.close()
            raise

    def _set_up(self, fd: Fd) -> None:
        self._fd = fd
        self._size = 0
        self._view: Optional[memoryview] = memoryview(b"")

    def _map(self, count: Optional[Callable[[int], None]]) -> None:
        fd = self._fd.fileno()
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        except OSError as error:
            if error.errno is None:
                raise
            raise NotABlob("it is not a memfd") from None
        for seal, against in (
            (_F_SEAL_WRITE, "writing"),
            (_F_SEAL_SHRINK, "shrinking"),
            (_F_SEAL_GROW, "growing"),
        ):
            if not seals & seal:
                raise NotABlob(f"it is not sealed against {against}")
        # Reading a huge page that is not there yet is SIGBUS once the machine is out of them. Python does not tell
        # the file system's type, but that of huge pages has blocks of their size.
        if os.fstatvfs(fd).f_bsize != mmap.PAGESIZE:
            raise NotABlob("it is made of huge pages")
        self._size = os.fstat(fd).st_size
        if count is not None:
            count(self._size)
        if self._size:
            try:
                # Before Linux 6.7 a shared mapping of what is sealed was refused.
                mapping = mmap.mmap(fd, self._size, mmap.MAP_PRIVATE, mmap.PROT_READ)
            except (OSError, ValueError, OverflowError) as error:
                if isinstance(error, OSError) and error.errno is None:
                    raise
                raise Io("map a blob") from error
            self._view = memoryview(mapping)

    @classmethod
    def from_bytes(cls, content: Union[bytes, bytearray, memoryview]) -> Blob:
        """Makes a blob with a copy of `content`, which is anything with the buffer protocol. Raises `Io` when this
        process is out of descriptors or memory, or its sandbox denies ``memfd_create``."""
        return cls(
            _memfd.filled(content, "create a blob (memfd_create)", "fill a blob", _ALL_SEALS)
        )

    @classmethod
    def __wormhole_fd__(cls, index: Any, arguments: Tuple[Any, ...], fds: Any) -> Blob:
        made = cls.__new__(cls)
        made._set_up(fds.take(index, Fd, None))
        made._map(fds.count_blob)
        return made

    def __reduce__(self) -> Any:
        return Blob._shared, share(self.fileno())

    @classmethod
    def _shared(cls, copy: Any) -> Blob:
        return cls(copy.detach())

    def view(self) -> memoryview:
        """All of it, without a copy. Lives on after `close`. Raises `ValueError` once the blob is closed."""
        if self._view is None:
            raise ValueError("the blob is closed")
        return self._view[:]

    def __buffer__(self, flags: int) -> memoryview:  # the buffer protocol, from Python 3.12 on
        return self.view()

    def __bytes__(self) -> bytes:
        return bytes(self.view())

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, key: Any) -> Any:
        part = self.view()[key]
        return bytes(part) if isinstance(part, memoryview) else part

    def __eq__(self, other: object) -> bool:
        return self.view() == other.view() if isinstance(other, Blob) else NotImplemented

    def __hash__(self) -> int:
        return hash(bytes(self))

    def fileno(self) -> int:
        """The descriptor of the memfd."""
        return self._fd.fileno()

    def close(self) -> None:
        """Closes the descriptor. The memory is unmapped when the last view of it is gone."""
        self._fd.close()
        self._view = None

    def __repr__(self) -> str:
        return f"<Blob of {self._size} bytes>"
