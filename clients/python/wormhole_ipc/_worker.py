"""A program as a worker of a pool in Rust."""

from __future__ import annotations

import inspect
import sys
import traceback
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, List, NamedTuple, Optional, Tuple, TypeVar, Union

from ._channel import Receiver, Sender
from ._errors import Disconnected, Error, Io
from ._fields import _hints
from ._process import inherit

J = TypeVar("J")
R = TypeVar("R")

#: How much of a traceback is sent.
_MOST_TEXT = 64 * 1024


@dataclass
class Err:
    """What a job's failure is on the wire."""

    message: str
    place: Optional[str]
    backtrace: Optional[str]


def work(function: Callable[[J], R]) -> None:
    """Makes this program a worker of the pool that has started it: runs the function for each job and sends back what
    it returns, until there are no more jobs.

    The types are those of the function's annotations: of its parameter and of what it returns; without them any JSON.
    An exception fails the job and not the worker: its message, place and traceback are the job's error in the pool.
    A job that cannot be decoded, and a result that cannot be sent, fails likewise. `SystemExit` and
    `KeyboardInterrupt` end the worker, and so fail the job.

        def count(job: Job) -> int:
            return len(job.input.readall())

        wormhole_ipc.work(count)

    Returns when the pool has no more jobs, or is gone. Raises what `inherit` raises.
    """
    job_type, result_type = _types_of(function)
    make: Any = NamedTuple
    ok: Any = make("Ok", [("value", result_type)])
    jobs, results = inherit(Tuple[Receiver[job_type], Sender[Union[ok, Err]]])  # type: ignore[valid-type]
    with jobs, results:
        try:
            while True:
                outcome: Any
                try:
                    job = jobs.recv()
                except Disconnected:
                    return
                except Io:
                    raise  # of the system, not of a job
                except Error:
                    outcome = _failure()
                else:
                    try:
                        outcome = ok(function(job))
                    except Exception:
                        outcome = _failure()
                    del job  # and close what it holds
                sent: List[int] = []
                try:
                    results._send(outcome, (), None, True, False, _done=sent)
                except Disconnected:
                    return  # the pool is gone
                except Exception:
                    if sent:
                        raise  # of a signal's handler
                    results.send(_failure())
                del outcome
        except Disconnected:
            return  # the pool is gone


def _types_of(function: Any) -> Tuple[Any, Any]:
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some that are written in C
        return Any, Any
    # Whose annotations these are.
    while not inspect.isfunction(function) or hasattr(function, "__wrapped__"):
        call: Any = getattr(function, "__call__", None)  # noqa: B004
        if hasattr(function, "__wrapped__"):  # by a decorator
            function = function.__wrapped__
        elif isinstance(function, partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif inspect.ismethod(call):
            function = call.__func__
        else:
            return Any, Any
    hints = _hints(function)
    return (hints.get(names[0], Any) if names else Any), hints.get("return", Any)


def _failure() -> Err:
    """The exception that is being handled."""
    error = sys.exc_info()[1]
    assert error is not None
    place = None
    frames = traceback.extract_tb(error.__traceback__)
    if frames:
        last = frames[-1]
        column = getattr(last, "colno", None)
        place = f"{last.filename}:{last.lineno}:{1 if column is None else column + 1}"
    message = "".join(traceback.format_exception_only(type(error), error)).strip()
    return Err(_text(message), place and _text(place), _text(traceback.format_exc()))


def _text(text: str) -> str:
    """Text that can be sent: names of files may not be Unicode."""
    shown = text.encode(errors="backslashreplace").decode()
    return shown if len(shown) <= _MOST_TEXT else shown[:_MOST_TEXT] + " [...]"
