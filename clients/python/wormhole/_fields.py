"""From a type to what stands in the text: a `Plan` writes values of the type as plain JSON values and reads them
back, strictly. Descriptors stand in the text as indices; an `Outgoing` or an `Incoming` holds them meanwhile.

Plain JSON values are as `_text` gives them: an object is a tuple of pairs, because repeated members must be
seen.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import io
import math
import socket
import types
import typing
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Union

from ._fd import HasFileno, open_file, open_socket


class Mismatch(Exception):
    """A value is not of its type. Becomes `Encode` or `Decode`."""


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


class Outgoing:
    """The descriptors of the fields of a message that is being written."""

    __slots__ = ("owners", "numbers")

    def __init__(self) -> None:
        self.owners: List[HasFileno] = []
        self.numbers: List[int] = []

    def add(self, owner: HasFileno) -> int:
        """Adds a descriptor, and gives what stands for it in the text."""
        self.numbers.append(owner.fileno())
        self.owners.append(owner)
        return len(self.numbers) - 1


class Incoming:
    """The descriptors of a message that is being read. They belong to it until a field takes them."""

    __slots__ = ("numbers", "made")

    def __init__(self, numbers: List[int]) -> None:
        self.numbers: List[Optional[int]] = list(numbers)
        self.made: List[Any] = []

    def take(self, index: Any, make: Callable[[int], Any]) -> Any:
        """Makes what a field wants of the descriptor that stands as `index` in the text. `make` takes it over, and
        closes it if it fails."""
        if type(index) is not int:
            raise Mismatch(f"{shown(index)} is no index of a descriptor")
        if not 0 <= index < len(self.numbers):
            raise Mismatch(
                f"descriptor {index} of a message that carries {len(self.numbers)} (the first is 0)"
            )
        number = self.numbers[index]
        if number is None:
            raise Mismatch(f"descriptor {index} was taken before")
        self.numbers[index] = None
        made = make(number)
        self.made.append(made)
        return made

    def left(self) -> List[int]:
        """The descriptors that no field has taken, in order."""
        return [number for number in self.numbers if number is not None]


Write = Callable[[Any, Outgoing], Any]
Read = Callable[[Any, Incoming], Any]


class Plan(NamedTuple):
    """How values of a type are written and read."""

    name: str
    #: `None`: they are plain already.
    write: Optional[Write]
    #: `None`: every plain value will do as it is.
    read: Optional[Read]
    #: Whether objects have to come as pairs.
    pairs: bool
    #: If not `None`, `read` only checks that a value is of this class. For speed: who reads many can do it himself.
    exactly: Optional[type] = None


def shown(value: Any) -> str:
    """A plain value, for the text of an error."""
    if isinstance(value, tuple):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)) and abs(value) < 1e30:
        return f"the number {value}"
    return repr(value)[:80] if isinstance(value, str) else "a number"


def expected(what: str, value: Any) -> Mismatch:
    return Mismatch(f"expected {what}, got {shown(value)}")


# --------------------------------------------------------------------------- plain types


def _read_any(value: Any, fds: Incoming) -> Any:
    kind = value.__class__
    if kind is list:
        return [_read_any(item, fds) for item in value]
    if kind is tuple:
        return {name: _read_any(item, fds) for name, item in value}
    return value


ANY = Plan("Any", None, None, False)
_ANY_INSIDE = Plan("Any", None, _read_any, True)


def _exactly(kind: type, what: str) -> Plan:
    def read(value: Any, fds: Incoming) -> Any:
        if value.__class__ is not kind:
            raise expected(what, value)
        return value

    return Plan(kind.__name__, None, read, False, kind)


def _read_float(value: Any, fds: Incoming) -> float:
    if value.__class__ is float:
        return value
    if value.__class__ is int:
        try:
            return float(value)
        except OverflowError:
            raise Mismatch("number out of range") from None
    raise expected("a number", value)


def _read_bytes(value: Any, fds: Incoming) -> bytes:
    if value.__class__ is list and all(item.__class__ is int for item in value):
        try:
            return bytes(value)
        except ValueError:
            raise Mismatch("a byte is a number from 0 to 255") from None
    raise expected("a list of bytes", value)


def _write_bytes(value: Any, fds: Outgoing) -> List[int]:
    return list(value)


_PLAIN: Dict[Any, Plan] = {
    Any: _ANY_INSIDE,
    object: _ANY_INSIDE,
    int: _exactly(int, "an integer"),
    str: _exactly(str, "a string"),
    bool: _exactly(bool, "a boolean"),
    float: Plan("float", None, _read_float, False),
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


def _list(item: Plan, make: type, name: str) -> Plan:
    write_item, read_item, exactly = item.write, item.read, item.exactly

    def write(value: Any, fds: Outgoing) -> Any:
        assert write_item is not None
        return [write_item(each, fds) for each in value]

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

    return Plan(name, write if write_item else None, read, item.pairs)


def _fixed(items: List[Plan], make: Callable[[List[Any]], Any], name: str) -> Plan:
    """A tuple with a type for each place."""

    def write(value: Any, fds: Outgoing) -> Any:
        if len(value) != len(items):
            raise Mismatch(f"expected {len(items)} values, got {len(value)}")
        return [plan.write(each, fds) if plan.write else each for plan, each in zip(items, value)]

    def read(value: Any, fds: Incoming) -> Any:
        if value.__class__ is not list or len(value) != len(items):
            raise expected(f"a list of {len(items)} values", value)
        return make(
            [plan.read(each, fds) if plan.read else each for plan, each in zip(items, value)]
        )

    return Plan(name, write, read, any(plan.pairs for plan in items))


def _dict(key: Any, item: Plan, name: str) -> Plan:
    limits = None
    if typing.get_origin(key) is typing.Annotated:
        limits = _range_of(typing.get_args(key))
        key = int
    if key not in (str, int):
        raise TypeError(f"the keys of {name} must be str or int")

    def write(value: Any, fds: Outgoing) -> Any:
        if any(each.__class__ is not key for each in value):
            raise Mismatch(f"expected keys of type {key.__name__}")
        return {
            str(each): item.write(inner, fds) if item.write else inner
            for each, inner in value.items()
        }

    def read_key(text: str) -> Any:
        if key is str:
            return text
        digits = text[1:] if text.startswith("-") else text
        if not (digits.isascii() and digits.isdigit() and len(digits) < 50):
            raise Mismatch(f"{text[:80]!r} is no key that is an integer")
        number = int(text)
        if limits and not limits.first <= number <= limits.last:
            raise Mismatch(f"the key {number} is not from {limits.first} to {limits.last}")
        return number

    def read(value: Any, fds: Incoming) -> Any:
        if value.__class__ is not tuple:
            raise expected("an object", value)
        return {
            read_key(each): item.read(inner, fds) if item.read else inner for each, inner in value
        }

    return Plan(name, write, read, True)


# --------------------------------------------------------------------------- descriptors


def _descriptor(name: str, make: Callable[[int], Any]) -> Plan:
    def write(value: Any, fds: Outgoing) -> Any:
        return fds.add(value)

    def read(value: Any, fds: Incoming) -> Any:
        return fds.take(value, make)

    return Plan(name, write, read, False)


# --------------------------------------------------------------------------- records and choices


def _record(kind: Any, name: str) -> Plan:
    """A dataclass: an object with a member for each field."""
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    plans = [plan_of(hints[field.name], inside=True) for field in fields]
    in_text = [field.metadata.get("wormhole", field.name) for field in fields]
    attributes = [field.name for field in fields]
    writes = [(t, a, plan.write) for t, a, plan in zip(in_text, attributes, plans)]
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
            raise Mismatch(f"expected a {name}, got a {type(value).__name__}")
        return {
            text: getattr(value, attribute)
            if inner is None
            else inner(getattr(value, attribute), fds)
            for text, attribute, inner in writes
        }

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
        return kind(**values)

    return Plan(name, write, read, True)


def _is_optional(hint: Any) -> bool:
    return _is_union(hint) and type(None) in typing.get_args(hint)


def _is_union(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    return origin is Union or origin is getattr(types, "UnionType", Union)


def _is_named_tuple(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def _named_tuple(kind: Any, name: str) -> Plan:
    """A list with a place for each field; a single field stands for itself."""
    hints = typing.get_type_hints(kind, include_extras=True)
    plans = [plan_of(hints[field], inside=True) for field in kind._fields]
    if len(plans) != 1:
        return _fixed(plans, kind._make, name)
    (only,) = plans

    def write(value: Any, fds: Outgoing) -> Any:
        return only.write(value[0], fds) if only.write else value[0]

    def read(value: Any, fds: Incoming) -> Any:
        return kind(only.read(value, fds) if only.read else value)

    return Plan(name, write, read, only.pairs)


def _enum(kind: Any, name: str) -> Plan:
    members = dict(kind.__members__)

    def write(value: Any, fds: Outgoing) -> Any:
        if not isinstance(value, kind):
            raise Mismatch(f"expected a {name}, got a {type(value).__name__}")
        return value.name

    def read(value: Any, fds: Incoming) -> Any:
        if value.__class__ is not str or value not in members:
            raise Mismatch(f"{shown(value)} is no {name}")
        return members[value]

    return Plan(name, write, read, False)


def _literal(values: Tuple[Any, ...], name: str) -> Plan:
    def read(value: Any, fds: Incoming) -> Any:
        for each in values:
            if value == each and value.__class__ is each.__class__:
                return each
        raise Mismatch(f"{shown(value)} is none of {name}")

    return Plan(name, None, read, False)


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
        raise Mismatch(f"expected a {name}, got a {variant}")

    def read(value: Any, fds: Incoming) -> Any:
        if value.__class__ is str and value in bare:
            return bare[value]()
        if value.__class__ is tuple and len(value) == 1:
            ((variant, inner),) = value
            if variant in plans:
                read_inner = plans[variant][1].read
                return read_inner(inner, fds) if read_inner else inner
            if variant in bare and inner is None:
                return bare[variant]()
        raise Mismatch(f"{shown(value)} is no {name}")

    return Plan(name, write, read, True)


# --------------------------------------------------------------------------- the plan of a type

_FILES = (io.FileIO, io.BufferedReader, io.BufferedWriter, io.TextIOWrapper)
_plans: Dict[Any, Plan] = {}


def plan_of(hint: Any, inside: bool = False) -> Plan:
    """The plan of a type. Raises `TypeError` for types that have none."""
    if hint is Any and not inside:
        return ANY
    try:
        known = _plans.get(hint)
    except TypeError:  # not hashable
        return _make(hint)
    if known is None:
        # For the types that contain themselves: by the time that it is used it is known.
        _plans[hint] = Plan(
            name_of(hint),
            lambda value, fds: _later(hint).write(value, fds),  # type: ignore[misc]
            lambda value, fds: _later(hint).read(value, fds),  # type: ignore[misc]
            True,
        )
        try:
            known = _plans[hint] = _make(hint)
        except BaseException:
            del _plans[hint]
            raise
    return known


def _later(hint: Any) -> Plan:
    return _plans[hint]


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
            return _list(_ANY_INSIDE, list, name)
        if hint in (dict, Dict):
            return _dict(str, _ANY_INSIDE, name)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return _record(hint, name)
        if _is_named_tuple(hint):
            return _named_tuple(hint, name)
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return _enum(hint, name)
        if hint in _FILES:
            return _descriptor(name, lambda number: open_file(hint, number))
        if hint is socket.socket:
            return _descriptor(name, open_socket)
    elif origin is typing.Annotated:
        limits = _range_of(arguments)
        return _range(limits) if limits else plan_of(arguments[0], inside=True)
    elif origin in (list, collections.abc.Sequence):
        return _list(plan_of(arguments[0], inside=True), list, name)
    elif origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _list(plan_of(arguments[0], inside=True), tuple, name)
    elif origin is tuple:
        items = [plan_of(each, inside=True) for each in arguments if each != ()]
        return _fixed(items, tuple, name)
    elif origin in (dict, collections.abc.Mapping):
        return _dict(arguments[0], plan_of(arguments[1], inside=True), name)
    elif origin is typing.Literal:
        return _literal(arguments, name)
    elif _is_union(hint):
        return _union(arguments, name)
    make = getattr(origin or hint, "__wormhole_fd__", None)
    if make is not None:
        return _descriptor(name, lambda number: make(number, arguments))
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
        return None if value is None or inner_write is None else inner_write(value, fds)

    def read(value: Any, fds: Incoming) -> Any:
        return value if value is None or inner_read is None else inner_read(value, fds)

    return Plan(name, write if inner_write else None, read, plan.pairs)


def write_unknown(value: Any, fds: Outgoing) -> Any:
    """Writes what json knows no form of, in a message whose type does not say."""
    if hasattr(value, "fileno"):
        return fds.add(value)
    if isinstance(value, enum.Enum):
        return value.name
    if dataclasses.is_dataclass(value) or isinstance(value, (bytes, bytearray)):
        write = plan_of(bytes if isinstance(value, (bytes, bytearray)) else type(value)).write
        return write(value, fds) if write else value
    raise Mismatch(f"a {type(value).__name__} has no form in JSON")


def is_finite(text: str) -> float:
    """Reads a number with a point or an exponent."""
    number = float(text)
    if math.isinf(number):
        raise Mismatch("number out of range")
    return number
