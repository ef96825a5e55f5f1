"""Files in memory: the part of a long message that its packet does not hold, and what a blob is made of."""

from __future__ import annotations

import fcntl
import os
from typing import Union

from ._errors import Io, Malformed
from ._fd import Fd, opened


def create(operation: str, flags: int = 0) -> Fd:
    try:
        return opened(os.memfd_create, "wormhole", os.MFD_CLOEXEC | flags)
    except OSError as error:
        if error.errno is None:
            raise
        raise Io(operation) from error


def write(memfd: int, content: Union[bytes, bytearray, memoryview]) -> None:
    """Writes all of it, from offset 0. Raises `OSError`."""
    left = memoryview(content).cast("B")
    offset = 0
    while offset < len(left):
        offset += os.pwrite(memfd, left[offset:], offset)


def filled(
    content: Union[bytes, bytearray, memoryview], create_it: str, fill_it: str, seals: int = 0
) -> Fd:
    """A fresh memfd with this content and these seals. `Io` says which of the two could not be done."""
    memfd = create(create_it, os.MFD_ALLOW_SEALING if seals else 0)
    try:
        write(memfd.fileno(), content)
        if seals:
            fcntl.fcntl(memfd.fileno(), fcntl.F_ADD_SEALS, seals)
    except OSError as error:
        memfd.close()
        if error.errno is None:
            raise
        raise Io(fill_it) from error
    except BaseException:
        memfd.close()
        raise
    return memfd


def spill(rest: memoryview) -> Fd:
    """Puts the end of a long message into a fresh memfd."""
    create_it = "create the memfd (memfd_create) that a long message needs"
    return filled(rest, create_it, "put a long message into a memfd")


def gather(inline: Union[bytes, memoryview], memfd: int, missing: int) -> bytes:
    """The text of a long message: what its packet had, and what is in the memfd, which is checked first."""
    try:
        # A file of another kind could make the read wait for ever.
        fcntl.fcntl(memfd, fcntl.F_GET_SEALS)
    except OSError as error:
        if error.errno is None:
            raise
        raise Malformed(
            f"the descriptor for the {missing} bytes that the packet lacks is not a memfd"
        ) from None
    try:
        size = os.fstat(memfd).st_size
    except OSError as error:
        if error.errno is None:
            raise
        raise Malformed("the memfd of a long message cannot be looked at") from error
    if size != missing:
        raise Malformed(
            f"the packet lacks {missing} bytes and the memfd that came with it has {size}"
        )
    parts = [bytes(inline)]
    offset = 0
    while offset < missing:
        try:
            part = os.pread(memfd, missing - offset, offset)
        except (OSError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno is None:
                raise
            raise Malformed("the memfd of a long message cannot be read") from error
        if not part:
            raise Malformed("the memfd of a long message was cut while it was read")
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
