"""From a type to what stands in the text: a `Plan` writes values of the type as plain JSON values and reads them
back, strictly. Descriptors stand in the text as indices; an `Outgoing` or an `Incoming` holds them meanwhile.

Plain JSON values are as `_text` gives them: an object is a tuple of pairs, because repeated members must be
seen.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import fcntl
import io
import math
import os
import re
import socket
import sys
import threading
import types
import typing
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Union

from ._errors import Io, Mismatch, NotABlob, NotAChannel, excerpt, expected, shown
from ._fd import Fd
from ._message import NO_FDS, Incoming, Outgoing


class Range(NamedTuple):
    """In ``Annotated[int, Range(0, 9)]``: the values that are received and sent, both ends included."""

    first: int
    last: int


I8 = typing.Annotated[int, Range(-(2**7), 2**7 - 1)]
I16 = typing.Annotated[int, Range(-(2**15), 2**15 - 1)]
I32 = typing.Annotated[int, Range(-(2**31), 2**31 - 1)]
I64 = typing.Annotated[int, Range(-(2**63), 2**63 - 1)]
I128 = typing.Annotated[int, Range(-(2**127), 2**127 - 1)]
U8 = typing.Annotated[int, Range(0, 2**8 - 1)]
U16 = typing.Annotated[int, Range(0, 2**16 - 1)]
U32 = typing.Annotated[int, Range(0, 2**32 - 1)]
U64 = typing.Annotated[int, Range(0, 2**64 - 1)]
U128 = typing.Annotated[int, Range(0, 2**128 - 1)]


Write = Callable[[Any, Outgoing], Any]
Read = Callable[[Any, Incoming], Any]


class Plan(NamedTuple):
    """How values of a type are written and read. Both check them."""

    name: str
    #: `None`: every value will do, and json writes it as it is.
    write: Optional[Write]
    #: `None`: every plain value will do as it is.
    read: Optional[Read]
    #: Whether objects have to come as pairs.
    pairs: bool
    #: If not `None`, values of exactly this class need neither `write` nor `read`. For speed: code that has many of
    #: them looks at the class itself.
    exactly: Optional[type] = None
    #: Whether it leaves it to json how a part of the value is written.
    loose: bool = False


# --------------------------------------------------------------------------- plain types


def _read_any(value: Any, fds: Incoming) -> Any:
    kind = value.__class__
    if kind is list:
        return [_read_any(item, fds) for item in value]
    if kind is tuple:
        return {name: _read_any(item, fds) for name, item in value}
    return value


ANY = Plan("Any", None, None, False, loose=True)
_ANY_INSIDE = Plan("Any", None, _read_any, True, loose=True)


def _exactly(kind: type, what: str) -> Plan:
    def read(value: Any, fds: Incoming) -> Any:
        if value.__class__ is not kind:
            raise expected(what, value)
        return value

    def write(value: Any, fds: Outgoing) -> Any:
        # A bool is an int to Python. Other subclasses are written as what they are.
        if not isinstance(value, kind) or (value.__class__ is bool and kind is not bool):
            raise expected(what, value)
        return value

    return Plan(kind.__name__, write, read, False, kind)


def _read_float(value: Any, fds: Any) -> Any:
    if value.__class__ is float:
        return value
    if value.__class__ is int:
        try:
            return float(value)
        except OverflowError:
            raise Mismatch("number out of range") from None
    raise expected("a number", value)


def _write_float(value: Any, fds: Outgoing) -> Any:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Mismatch(f"{value} has no form in JSON")
        return value
    if _read_float(value, fds) != value:
        raise Mismatch(f"{shown(value)} is between two floats, and would arrive as one of them")
    return value


def _read_bytes(value: Any, fds: Incoming) -> bytes:
    if value.__class__ is list and all(item.__class__ is int for item in value):
        try:
            return bytes(value)
        except ValueError:
            raise Mismatch("a byte is a number from 0 to 255") from None
    raise expected("a list of bytes", value)


def _write_bytes(value: Any, fds: Outgoing) -> List[int]:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise expected("bytes", value)
    return list(bytes(value))


_PLAIN: Dict[Any, Plan] = {
    Any: _ANY_INSIDE,
    object: _ANY_INSIDE,
    int: _exactly(int, "an integer"),
    str: _exactly(str, "a string"),
    bool: _exactly(bool, "a boolean"),
    float: Plan("float", _write_float, _read_float, False),
    bytes: Plan("bytes", _write_bytes, _read_bytes, False),
    type(None): _exactly(type(None), "null"),
    None: _exactly(type(None), "null"),
}


def _range(limits: Range) -> Plan:
    def check(value: Any, _: Any) -> Any:
        if value.__class__ is not int:
            raise expected("an integer", value)
        if not limits.first <= value <= limits.last:
            raise Mismatch(f"{shown(value)} is not from {limits.first} to {limits.last}")
        return value

    return Plan("int", check, check, False)


# --------------------------------------------------------------------------- collections


def _list(item: Plan, accepts: Any, make: type, name: str) -> Plan:
    write_item, read_item, exactly = item.write, item.read, item.exactly
    what = "a tuple" if accepts is tuple else "a list"

    def write(value: Any, fds: Outgoing) -> Any:
        if not isinstance(value, accepts):
            raise _not(what, value)
        if exactly is not None:
            for each in value:
                if each.__class__ is not exactly:
                    write_item(each, fds)  # type: ignore[misc]
            return value
        return value if write_item is None else [write_item(each, fds) for each in value]

    def read(value: Any, fds: Incoming) -> Any:
        if value.__class__ is not list:
            raise expected("a list", value)
        items = value
        if exactly is not None:
            for each in value:
                if each.__class__ is not exactly:
                    read_item(each, fds)  # type: ignore[misc]
        elif read_item is not None:
            items = [read_item(each, fds) for each in value]
        return items if make is list else make(items)

    return Plan(name, write, read, item.pairs, loose=item.loose)


def _not(what: str, value: Any) -> Mismatch:
    """What is sent is not of its type."""
    found = shown(value) if value is None or isinstance(value, (str, int, float)) else None
    return Mismatch(f"expected {what}, got {found or 'a ' + type(value).__name__}")


def _fixed(items: List[Plan], kind: Any, make: Callable[[List[Any]], Any], name: str) -> Plan:
    """A tuple with a type for each place."""

    def write(value: Any, fds: Outgoing) -> Any:
        if not isinstance(value, kind):
            raise _not(f"a {kind.__name__}", value)
        if len(value) != len(items):
            raise Mismatch(f"expected {len(items)} values, got {len(value)}")
        return [plan.write(each, fds) if plan.write else each for plan, each in zip(items, value)]

    def read(value: Any, fds: Incoming) -> Any:
        if value.__class__ is not list or len(value) != len(items):
            raise expected(f"a list of {len(items)} values", value)
        return make(
            [plan.read(each, fds) if plan.read else each for plan, each in zip(items, value)]
        )

    loose = any(plan.loose for plan in items)
    return Plan(name, write, read, any(plan.pairs for plan in items), loose=loose)


# Smaller integers have hashes of their own, but for -1 and -2.
_HASH_MODULUS = sys.hash_info.modulus
_MOST_OF_ONE_HASH = 64


_INTEGER = re.compile("0|-?[1-9][0-9]*")


def _key(hint: Any, name: str) -> Tuple[Callable[[Any], str], Callable[[str], Any]]:
    """How a key that is no text is written as one, and read. serde_json writes them alike."""
    kind = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
    if not isinstance(kind, type) or not (kind in (int, bool) or issubclass(kind, enum.Enum)):
        raise TypeError(f"the keys of {name} must be str, int, bool or an Enum")
    plan = plan_of(hint, inside=True)
    no_fds = Outgoing()

    def write(key: Any) -> str:
        try:
            written = plan.write(key, no_fds)  # type: ignore[misc]
        except Mismatch as mismatch:
            raise Mismatch(f"a key: {mismatch}") from None
        if isinstance(written, str):
            return written
        return shown(written) if kind is bool else int.__repr__(written)

    def read(text: str) -> Any:
        value: Any = text
        if kind is bool:
            value = {"true": True, "false": False}.get(text, text)
        elif issubclass(kind, int):
            # Of so many digits as Python reads in a number: reading takes the square of them.
            if len(text) > 4300 or not _INTEGER.fullmatch(text):
                raise Mismatch(f"{excerpt(repr(text[:80]))} is no key that is an integer")
            value = int(text)
        try:
            return plan.read(value, NO_FDS)  # type: ignore[misc]
        except Mismatch as mismatch:
            raise Mismatch(f"a key: {mismatch}") from None

    return write, read


def _dict(key: Any, item: Plan, name: str) -> Plan:
    write_item = item.write
    if key is not str:
        write_key, read_key = _key(key, name)

    def write(value: Any, fds: Outgoing) -> Any:
        if not isinstance(value, collections.abc.Mapping):
            raise _not("a dict", value)
        if key is str:
            for each in value:
                if each.__class__ is not str:
                    raise Mismatch(f"expected keys of type str, got {shown(each)}")
            return {
                e: write_item(inner, fds) if write_item else inner for e, inner in value.items()
            }
        return {
            write_key(each): write_item(inner, fds) if write_item else inner
            for each, inner in value.items()
        }

    def read(value: Any, fds: Incoming) -> Any:
        if value.__class__ is not tuple:
            raise expected("an object", value)
        read_item = item.read
        if key is str:
            return {each: read_item(inner, fds) if read_item else inner for each, inner in value}
        made: Dict[Any, Any] = {}
        alike: Dict[int, int] = {}
        for text, inner in value:
            each = read_key(text)
            if each.__class__ is int and not -_HASH_MODULUS < each < _HASH_MODULUS:
                # A dict of keys with one hash takes the square of their number, and hashes of integers are known.
                code = hash(each)
                alike[code] = alike.get(code, 0) + 1
                if alike[code] > _MOST_OF_ONE_HASH:
                    raise Mismatch(f"more than {_MOST_OF_ONE_HASH} keys that have one hash")
            made[each] = read_item(inner, fds) if read_item else inner
        return made

    return Plan(name, write, read, True, loose=item.loose)


# --------------------------------------------------------------------------- descriptors


def _descriptor(
    name: str, check: Callable[[Any], Any], make: Callable[[Any, Incoming], Any]
) -> Plan:
    def write(value: Any, fds: Outgoing) -> Any:
        check(value)
        return fds.add(value)

    def read(value: Any, fds: Incoming) -> Any:
        try:
            return make(value, fds)
        except (NotAChannel, NotABlob, Io) as error:
            raise Mismatch(str(error)) from error
        except OSError as error:
            if _is_of_a_handler(error):
                raise
            raise Mismatch(f"descriptor {value} cannot be opened: {error}") from error

    return Plan(name, write, read, False)


def _has_descriptor(value: Any) -> None:
    if not hasattr(value, "fileno"):
        raise _not("something with a descriptor", value)


def _is_a(kind: Any, name: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if not isinstance(value, kind):
            raise _not(f"a {name}", value)

    return check


def _open_file(kind: type, index: Any, fds: Incoming) -> Any:
    """Opens a received descriptor as one of the classes of `io`."""
    access = fcntl.fcntl(fds.number(index), fcntl.F_GETFL) & os.O_ACCMODE
    mode = {os.O_RDONLY: "r", os.O_WRONLY: "w"}.get(access, "r+")
    file = fds.take(index, io.FileIO, None, mode)
    if kind is io.FileIO:
        return file
    if kind is io.TextIOWrapper:
        buffered = {"r": io.BufferedReader, "w": io.BufferedWriter}.get(mode, io.BufferedRandom)
        return fds.wrap(kind, fds.wrap(buffered, file), "utf-8")
    return fds.wrap(kind, file)


def _open_socket(index: Any, fds: Incoming) -> Any:
    return fds.take(index, socket.socket, -1, -1, -1, None)


# --------------------------------------------------------------------------- records and choices


def _hints(kind: Any) -> Dict[str, Any]:
    """The types of a class's fields. Names in annotations that are text are looked up where Python looks, and then
    among the local variables of the functions that are calling."""
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except NameError:
        pass
    names: Dict[str, Any] = {}
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__package__") != __package__:
            for name, value in frame.f_locals.items():
                names.setdefault(name, value)
        frame = frame.f_back
    names[kind.__name__] = kind
    try:
        return typing.get_type_hints(kind, None, names, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"the annotations of {kind.__qualname__} cannot be resolved: {error}. It is defined in a function: move "
            "what they name to the module's level, or leave out `from __future__ import annotations`"
        ) from None


def _record(kind: Any, name: str) -> Plan:
    """A dataclass: an object with a member for each field."""
    hints = _hints(kind)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    plans = [plan_of(hints[field.name], inside=True) for field in fields]
    in_text = [field.metadata.get("wormhole", field.name) for field in fields]
    attributes = [field.name for field in fields]
    writes = [(t, a, plan.exactly, plan.write) for t, a, plan in zip(in_text, attributes, plans)]
    reads = {t: (a, plan.exactly, plan.read) for t, a, plan in zip(in_text, attributes, plans)}
    # What a missing member stands for: a default of the class's own, or nothing.
    nothing = {
        field.name
        for field in fields
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and _is_optional(hints[field.name])
    }
    needed = {
        field.name
        for field in fields
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and field.name not in nothing
    }
    count = len(fields)

    def write(value: Any, fds: Outgoing) -> Any:
        if not isinstance(value, kind):
            raise _not(f"a {name}", value)
        result = {}
        attribute = ""
        try:
            for text, attribute, exactly, inner in writes:
                each = getattr(value, attribute)
                if each.__class__ is not exactly and inner is not None:
                    each = inner(each, fds)
                result[text] = each
        except Mismatch as mismatch:
            raise Mismatch(f"{name}.{attribute}: {mismatch}") from None
        return result

    def read(value: Any, fds: Incoming) -> Any:
        if value.__class__ is not tuple:
            raise expected("an object", value)
        values: Dict[str, Any] = {}
        text = ""
        try:
            for text, inner in value:
                known = reads.get(text)
                if known is None:
                    continue
                attribute, exactly, read_inner = known
                if attribute in values:
                    raise Mismatch("the member is repeated")
                if inner.__class__ is not exactly and read_inner is not None:
                    inner = read_inner(inner, fds)
                values[attribute] = inner
        except Mismatch as mismatch:
            raise Mismatch(f"{name}.{text}: {mismatch}") from None
        if len(values) != count:
            missing = needed.difference(values)
            if missing:
                raise Mismatch(f"{name}: missing member `{sorted(missing)[0]}`")
            for attribute in nothing.difference(values):
                values[attribute] = None
        return _made(kind, name, values)

    return Plan(name, write, read, True, loose=any(plan.loose for plan in plans))


def _made(kind: Any, name: str, values: Dict[str, Any], *places: Any) -> Any:
    try:
        return kind(*places, **values)
    except Exception as error:  # of a `__post_init__`, for instance
        if _is_of_a_handler(error):
            raise
        raise Mismatch(f"{name}: {error}") from error


def _is_of_a_handler(error: Exception) -> bool:
    """Whether a signal's handler has raised it, and not what was called."""
    if not isinstance(error, OSError) or isinstance(error, io.UnsupportedOperation):
        return False
    return error.errno is None


def _is_optional(hint: Any) -> bool:
    return _is_union(hint) and type(None) in typing.get_args(hint)


def _is_union(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    return origin is Union or origin is getattr(types, "UnionType", Union)


def _is_named_tuple(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def _named_tuple(kind: Any, name: str) -> Plan:
    """A list with a place for each field; a single field stands for itself."""
    hints = _hints(kind)
    plans = [plan_of(hints[field], inside=True) for field in kind._fields]
    if len(plans) != 1:
        return _fixed(plans, kind, kind._make, name)
    (only,) = plans

    def write(value: Any, fds: Outgoing) -> Any:
        if not isinstance(value, kind):
            raise _not(f"a {name}", value)
        return only.write(value[0], fds) if only.write else value[0]

    def read(value: Any, fds: Incoming) -> Any:
        return _made(kind, name, {}, only.read(value, fds) if only.read else value)

    return Plan(name, write, read, only.pairs, loose=only.loose)


def _enum(kind: Any, name: str) -> Plan:
    """The name of a member. One that is an int or a str as well is written as such, as json writes it everywhere."""
    plain: Any = int if issubclass(kind, int) else str if issubclass(kind, str) else None
    by_value = plain is not None
    members = {plain(each) if by_value else each.name: each for each in kind}
    if by_value and issubclass(kind, str):
        members = {str.__str__(each): each for each in kind}

    def write(value: Any, fds: Outgoing) -> Any:
        if not isinstance(value, kind):
            raise _not(f"a {name}", value)
        if by_value:
            return int.__int__(value) if plain is int else str.__str__(value)
        if value.name not in members:
            raise Mismatch(f"{value!r} is not one member of {name}")
        return value.name

    def read(value: Any, fds: Incoming) -> Any:
        if value.__class__ is (plain or str):
            if value in members:
                return members[value]
            if issubclass(kind, enum.Flag):  # several at once
                try:
                    return kind(value)
                except Exception as error:
                    if _is_of_a_handler(error):
                        raise
        raise Mismatch(f"{shown(value)} is no {name}")

    return Plan(name, write, read, False)


def _literal(values: Tuple[Any, ...], name: str) -> Plan:
    def read(value: Any, _: Any) -> Any:
        for each in values:
            if value == each and value.__class__ is each.__class__:
                return each
        raise Mismatch(f"{shown(value)} is none of {name}")

    return Plan(name, read, read, False)


def _choice(kinds: List[Any], name: str) -> Plan:
    """Several classes: the name of the one it is, around its fields if it has any. A Rust enum."""
    plans: Dict[str, Tuple[Any, Plan]] = {}
    bare: Dict[str, Any] = {}
    for kind in kinds:
        if dataclasses.is_dataclass(kind):
            has_fields = bool(dataclasses.fields(kind))
        elif _is_named_tuple(kind):
            has_fields = True
        else:
            raise TypeError(f"{name}: only dataclasses and NamedTuples can be told apart")
        assert isinstance(kind, type)
        if has_fields:
            plans[kind.__name__] = (kind, plan_of(kind, inside=True))
        else:
            bare[kind.__name__] = kind
    if len(plans) + len(bare) != len(kinds):
        raise TypeError(f"{name}: two classes of one name")

    def write(value: Any, fds: Outgoing) -> Any:
        variant = type(value).__name__
        if variant in plans and plans[variant][0] is type(value):
            write_inner = plans[variant][1].write
            return {variant: write_inner(value, fds) if write_inner else value}
        if bare.get(variant) is type(value):
            return variant
        raise _not(f"a {name}", value)

    def read(value: Any, fds: Incoming) -> Any:
        if value.__class__ is str and value in bare:
            return _made(bare[value], value, {})
        if value.__class__ is tuple and len(value) == 1:
            ((variant, inner),) = value
            if variant in plans:
                read_inner = plans[variant][1].read
                return read_inner(inner, fds) if read_inner else inner
            if variant in bare and inner is None:
                return _made(bare[variant], variant, {})
        raise Mismatch(f"{shown(value)} is no {name}")

    loose = any(plan.loose for _, plan in plans.values())
    return Plan(name, write, read, True, loose=loose)


# --------------------------------------------------------------------------- the plan of a type

_FILES = (io.FileIO, io.BufferedReader, io.BufferedWriter, io.TextIOWrapper)
_plans: Dict[Any, Plan] = {}
#: Those that the thread which has the lock is making. They may refer to one another, so they are known to the others
#: together, or not at all.
_unfinished: Dict[Any, Plan] = {}
_making = threading.RLock()


def _after_fork() -> None:
    global _making
    _making = threading.RLock()
    _unfinished.clear()


os.register_at_fork(after_in_child=_after_fork)


def plan_of(hint: Any, inside: bool = False) -> Plan:
    """The plan of a type. Raises `TypeError` for types that have none."""
    if hint is Any and not inside:
        return ANY
    try:
        known = _plans.get(hint)
    except TypeError:  # not hashable
        return _make(hint)
    return _fresh_plan(hint) if known is None else known


def _fresh_plan(hint: Any) -> Plan:
    with _making:
        known = _plans.get(hint) or _unfinished.get(hint)
        if known is not None:
            return known
        is_outermost = not _unfinished
        made: List[Plan] = []
        # For the types that contain themselves: by the time that it is used it is made.
        _unfinished[hint] = Plan(
            name_of(hint),
            lambda value, fds: made[0].write(value, fds),  # type: ignore[misc]
            lambda value, fds: made[0].read(value, fds),  # type: ignore[misc]
            True,
            loose=True,
        )
        try:
            known = _unfinished[hint] = _make(hint)
            made.append(known)
            if is_outermost:
                _plans.update(_unfinished)
        finally:
            if is_outermost:
                _unfinished.clear()
        return known


def name_of(hint: Any) -> str:
    """A type as people write it."""
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__qualname__
    return str(hint).replace("typing.", "")


def _range_of(arguments: Tuple[Any, ...]) -> Optional[Range]:
    found = [each for each in arguments[1:] if isinstance(each, Range)]
    return found[0] if found else None


def _make(hint: Any) -> Plan:
    name = name_of(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is None:
        if hint in _PLAIN:
            return _PLAIN[hint]
        if hint in (list, List):
            return _list(_ANY_INSIDE, list, list, name)
        if hint in (dict, Dict):
            return _dict(str, _ANY_INSIDE, name)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return _record(hint, name)
        if _is_named_tuple(hint):
            return _named_tuple(hint, name)
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return _enum(hint, name)
        if hint in _FILES:
            return _descriptor(name, _has_descriptor, lambda at, fds: _open_file(hint, at, fds))
        if hint is socket.socket:
            return _descriptor(name, _has_descriptor, _open_socket)
    elif origin is typing.Annotated:
        limits = _range_of(arguments)
        return _range(limits) if limits else plan_of(arguments[0], inside=True)
    elif origin is list:
        return _list(plan_of(arguments[0], inside=True), list, list, name)
    elif origin is collections.abc.Sequence:
        return _list(plan_of(arguments[0], inside=True), (list, tuple), list, name)
    elif origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _list(plan_of(arguments[0], inside=True), tuple, tuple, name)
    elif origin is tuple:
        items = [plan_of(each, inside=True) for each in arguments if each != ()]
        return _fixed(items, tuple, tuple, name)
    elif origin in (dict, collections.abc.Mapping):
        return _dict(arguments[0], plan_of(arguments[1], inside=True), name)
    elif origin is typing.Literal:
        return _literal(arguments, name)
    elif _is_union(hint):
        return _union(arguments, name)
    kind = origin or hint
    make = getattr(kind, "__wormhole_fd__", None)
    if make is not None:
        check = _has_descriptor if kind is Fd else _is_a(kind, name)
        return _descriptor(name, check, lambda index, fds: make(index, arguments, fds))
    raise TypeError(f"wormhole cannot receive a {name}")


def _union(arguments: Tuple[Any, ...], name: str) -> Plan:
    kinds = [each for each in arguments if each is not type(None)]
    if len(kinds) != 1:
        plan = _choice(kinds, name)
    else:
        plan = plan_of(kinds[0], inside=True)
    if len(kinds) == len(arguments):
        return plan
    inner_write, inner_read = plan.write, plan.read

    def write(value: Any, fds: Outgoing) -> Any:
        if value is None or inner_write is None:
            return value
        written = inner_write(value, fds)
        if written is None:  # of a NamedTuple with one field
            raise Mismatch(f"a {type(value).__name__} that is written as null would arrive as None")
        return written

    def read(value: Any, fds: Incoming) -> Any:
        return value if value is None or inner_read is None else inner_read(value, fds)

    return Plan(name, write if inner_write else None, read, plan.pairs, loose=plan.loose)


def write_unknown(value: Any, fds: Outgoing) -> Any:
    """Writes what json knows no form of, in a message whose type does not say."""
    if hasattr(value, "fileno"):
        return fds.add(value)
    if isinstance(value, enum.Enum):
        return plan_of(type(value)).write(value, fds)  # type: ignore[misc]
    if dataclasses.is_dataclass(value) or isinstance(value, (bytes, bytearray)):
        write = plan_of(bytes if isinstance(value, (bytes, bytearray)) else type(value)).write
        return write(value, fds) if write else value
    raise Mismatch(f"a {type(value).__name__} has no form in JSON")
