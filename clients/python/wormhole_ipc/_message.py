"""The descriptors of a message, while it is written and while it is read."""

from __future__ import annotations

import fcntl
from itertools import starmap
from typing import Any, List, Optional, Tuple

from ._errors import Mismatch, shown
from ._fd import Fd, HasFileno
from ._packets import close_all

#: How many bytes of blobs a message may hold, unless a receiver's `max_blob_len` is set.
DEFAULT_MAX_BLOB_LEN = 1 << 30


class Outgoing:
    """The descriptors of the fields of a message that is being written."""

    __slots__ = ("owners", "numbers", "sockets")

    def __init__(self) -> None:
        self.owners: List[HasFileno] = []
        self.numbers: List[int] = []
        self.sockets: List[Any] = []

    def add(self, owner: HasFileno) -> int:
        """Adds a descriptor, and gives what stands for it in the text."""
        # An end that another thread closes meanwhile keeps its number until the message is sent.
        self.sockets.append(getattr(owner, "_socket", None))
        number = owner.fileno()
        if number.__class__ is not int or number < 0:
            raise Mismatch(f"a {type(owner).__name__} without a descriptor")
        self.numbers.append(number)
        self.owners.append(owner)
        return len(self.numbers) - 1


class Incoming:
    """A message with descriptors that has come. They belong to it until its receiver has the whole message.

    A signal's handler may raise at any moment. So whatever takes a descriptor over is known here before it does, and
    `restore` gets the descriptors back for another attempt.
    """

    __slots__ = (
        "inline",
        "length",
        "lost",
        "stray",
        "numbers",
        "spilled",
        "text",
        "owners",
        "blob_left",
        "refused",
        "tries",
    )

    def __init__(
        self, inline: bytes, length: int, lost: bool, numbers: List[int], stray: List[int]
    ) -> None:
        self.inline = inline
        self.length = length
        self.lost = lost
        self.stray = stray
        self.numbers: List[Optional[int]] = list(numbers)
        #: The memfd of a long message, taken from the numbers.
        self.spilled: Optional[int] = None
        self.text: Optional[bytes] = None
        self.owners: List[Tuple[Optional[int], Any]] = []
        self.blob_left = DEFAULT_MAX_BLOB_LEN
        self.refused = False
        self.tries = 0

    def take(self, index: Any, kind: Any, *arguments: Any) -> Any:
        """Lets a new object own the descriptor that stands as `index` in the text: ``kind(*arguments)``, where a
        None among the arguments stands for its number. Raises `Mismatch`; what the constructor raises goes
        through."""
        if type(index) is not int:
            raise Mismatch(f"{shown(index)} is no index of a descriptor")
        number = self.number(index)
        owner = kind.__new__(kind)
        self.owners.append((index, owner))
        owner.__init__(*[number if each is None else each for each in arguments])
        self.numbers[index] = None
        return owner

    def number(self, index: Any) -> int:
        if type(index) is not int:
            raise Mismatch(f"{shown(index)} is no index of a descriptor")
        if not 0 <= index < len(self.numbers):
            raise Mismatch(
                f"descriptor {index} of a message that carries {len(self.numbers)} (the first is 0)"
            )
        number = self.numbers[index]
        if number is None:
            raise Mismatch(f"descriptor {index} was taken before")
        return number

    def wrap(self, kind: Any, *arguments: Any) -> Any:
        """Makes an object around one that `take` has made, which would close it if it was lost."""
        wrapper = kind.__new__(kind)
        self.owners.append((None, wrapper))
        wrapper.__init__(*arguments)
        return wrapper

    def count_blob(self, size: int) -> None:
        """Counts the bytes of a blob, before it is mapped."""
        if size > self.blob_left:
            raise Mismatch(
                f"a blob of {size} bytes where {self.blob_left} are left of the message's `max_blob_len`"
            )
        self.blob_left -= size

    def take_rest(self) -> List[Fd]:
        """The descriptors that no field has taken, in order."""
        return [self.take(index, Fd, None) for index in self.left()]

    def left(self) -> List[int]:
        return [index for index, number in enumerate(self.numbers) if number is not None]

    def restore(self) -> bool:
        """After an attempt to read it that was interrupted: the descriptors come back from what took them. False if
        one has been lost."""
        whole = True
        for place, (index, owner) in enumerate(self.owners):
            if index is None:
                continue
            number = _number_of(owner)
            if number >= 0:
                try:
                    copy = starmap(fcntl.fcntl, ((number, fcntl.F_DUPFD_CLOEXEC, 3),))
                    self.numbers[index : index + 1] = copy  # at once, from C
                except OSError as error:
                    if error.errno is None:
                        raise
                    self.numbers[index] = None
                    whole = False
            elif self.numbers[index] is None:
                whole = False
            self.owners[place] = (None, owner)
        while self.owners:
            _close(self.owners[-1][1])
            del self.owners[-1]
        return whole

    def discard(self) -> None:
        """Closes all that is left of it."""
        while self.owners:
            index, owner = self.owners[-1]
            if index is not None and _number_of(owner) >= 0:
                self.numbers[index] = None
            del self.owners[-1]
            _close(owner)
        numbers = [number for number in self.numbers if number is not None]
        self.numbers.clear()
        if self.spilled is not None:
            numbers.append(self.spilled)
            self.spilled = None
        close_all(numbers)
        close_all(self.stray)


def _number_of(owner: Any) -> int:
    """The number that an object owns, or -1: it never came to that, or it is closed."""
    try:
        number = owner.fileno()
    except (AttributeError, ValueError):
        return -1
    return number if isinstance(number, int) else -1


def _close(owner: Any) -> None:
    try:
        owner.close()
    except OSError as error:
        if error.errno is None:
            raise
    except Exception:
        pass  # it never came to own anything


#: For the messages without descriptors.
NO_FDS = Incoming(b"", 0, False, [], [])
