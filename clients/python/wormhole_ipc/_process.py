"""A value for another program: handing it over, and taking it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
from typing import Any, Optional, Sequence, Type, TypeVar, Union, overload

from . import _packets
from ._channel import Receiver, Sender
from ._errors import Disconnected, Empty, Io, NotAChannel, NotInherited, excerpt
from ._fd import Fd, opened
from ._fields import plan_of
from ._packets import Socket

T = TypeVar("T")

#: The environment variable that names the descriptor.
VARIABLE = "WORMHOLE_FD"

_lock = threading.Lock()
_taken = False


@overload
def inherit(type: Type[T]) -> T: ...


@overload
def inherit(type: Any = ...) -> Any: ...


def inherit(type: Any = Any) -> Any:
    """Takes what `spawn`, or Rust's ``spawn_command``, handed to this program.

    Can be done once. Never blocks. Call it first thing: until then programs that this one starts inherit the
    descriptor. Raises `NotInherited` if there is nothing, and nothing is changed then; and what `Receiver.recv`
    raises, when the value is lost.
    """
    global _taken
    plan_of(type)
    with _lock:
        if _taken:
            raise NotInherited("it was taken before")
        number = _number()
        end = _check(number)
        _taken = True
    # For the programs that other threads start before it is closed again.
    os.set_inheritable(number, False)
    receiver: Receiver[Any] = Receiver._of(end, type)
    with receiver:
        try:
            return receiver.try_recv()
        except (Empty, Disconnected):
            raise NotInherited("the channel is empty") from None


def _number() -> int:
    value = os.environ.get(VARIABLE)
    if value is None:
        raise NotInherited(f"the environment variable {VARIABLE} is not set")
    if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value) >= 3):
        raise NotInherited(f"{VARIABLE}={value} is no descriptor that can be inherited")
    return int(value)


def _check(number: int) -> Socket:
    """Checks that a descriptor is what is handed on, and leaves it alone if it is not."""
    try:
        flags = fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError as error:
        if error.errno is None:
            raise
        raise NotInherited(f"{VARIABLE}={number} names a closed descriptor") from None
    # Whatever this program has opened itself by that number.
    if flags & fcntl.FD_CLOEXEC:
        raise NotInherited(f"{VARIABLE}={number} names a foreign descriptor: it is close-on-exec")
    try:
        end = _packets.wrap(number)
        try:
            _packets.check(end, True)
            if _packets.credentials(end)[0] == os.getpid():
                raise NotInherited(
                    f"{VARIABLE}={number} names a descriptor that this process has made itself"
                )
        except BaseException:
            end.detach()
            raise
    except NotAChannel as error:
        raise NotInherited(f"{VARIABLE}={number} names a foreign descriptor: {error}") from None
    except OSError as error:
        if error.errno is None:
            raise
        raise Io("look up which process has made an inherited descriptor") from error
    return end


def spawn(
    command: Union[str, Sequence[str]],
    value: Any = None,
    *,
    type: Any = Any,
    **options: Any,
) -> subprocess.Popen[Any]:
    """Starts a program and hands it a value, which may hold ends of channels, files and blobs. There, `inherit`
    takes it, in Rust ``wormhole::inherit``.

    `command` and `options` are those of `subprocess.Popen`. What the value holds is closed in this process,
    as by ``send(value, move=True)``, so no copy of an end stays behind. The program gets one descriptor more, which its own
    children do not inherit once it has taken the value.

    Blocks until the program is executed. Raises `Encode`, `TooLarge`, `TooManyFds` or `TooManyFdsInFlight` if the
    value cannot be sent, and `Io` if the program cannot be executed.
    """
    # A channel of this function's own: one packet fits it at once, however long the message.
    plan_of(type)
    sending, receiving = _packets.pair()
    sender: Sender[Any] = Sender._of(sending, type)
    receiver: Receiver[Any] = Receiver._of(receiving, type)
    with receiver:
        with sender:
            files = sender._send(value, (), None, True, True)
        number = receiver.fileno()
        higher: Optional[Fd] = None
        try:
            if number < 3:  # a standard stream, which Popen sets up itself
                higher = opened(fcntl.fcntl, number, fcntl.F_DUPFD_CLOEXEC, 3)
                number = higher.fileno()
            environment = dict(os.environ if options.get("env") is None else options["env"])
            environment[VARIABLE] = str(number)
            options["env"] = environment
            options["pass_fds"] = (*options.get("pass_fds", ()), number)
            return subprocess.Popen(command, **options)
        except BaseException as error:
            for file in files:
                if file is not None:  # of a listener that nobody has any more
                    file.given = False
                    file.remove()
            if not isinstance(error, OSError) or error.errno is None:
                raise
            program = command if isinstance(command, str) else next(iter(command), "")
            raise Io(f"start the program `{excerpt(os.fsdecode(program))}`") from error
        finally:
            if higher is not None:
                higher.close()
