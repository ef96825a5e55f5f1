"""The text of a message: JSON as strict as the protocol has it. Pure: nothing of descriptors or sockets here."""

from __future__ import annotations

import json
import math
import re
import sys
from array import array
from itertools import accumulate
from json import encoder as _encoder
from typing import Any, Callable, Dict, List, Tuple

from ._errors import Mismatch, shown

#: How deep lists and objects may be nested.
MAX_DEPTH = 127

_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b'[]{}"\\')
# As signed bytes: one level down, one up.
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_STEPS = bytes.maketrans(b"[]", b"\x01\xff")
_STRINGS = re.compile(rb'"[^"]*"?')

# The pair of a high and a low surrogate; a surrogate that is in none; any other escape.
_ESCAPES = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u([dD][89a-fA-F])|.)", re.DOTALL
)


def is_too_deep(text: bytes) -> bool:
    """Whether brackets are nested deeper than `MAX_DEPTH`, or do not match. Takes time in proportion to the
    length, whatever the text is."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    brackets = text.translate(None, _NOT_BRACKETS)
    if b"\\" in brackets:
        # Escapes from left to right, so that `\\"` is a backslash and the end of a string.
        brackets = text.replace(b"\\\\", b"").replace(b'\\"', b"")
        brackets = brackets.translate(None, _NOT_BRACKETS)
    brackets = brackets.replace(b'""', b"")  # most strings have no brackets in them
    if b'"' in brackets:
        brackets = _STRINGS.sub(b"", brackets)
    brackets = brackets.translate(_ONE_KIND, b"\\")
    levels = 0
    while brackets:
        before = len(brackets)
        brackets = brackets.replace(b"[]", b"")  # the innermost level, everywhere
        levels += 1
        if len(brackets) * 4 > before * 3:
            break  # to go on like this would take the square of the length
    depth = 0
    for start in range(0, len(brackets), 1 << 16):
        steps = array("b", brackets[start : start + (1 << 16)].translate(_STEPS))
        depths = list(accumulate(steps, initial=depth))
        if max(depths) + levels > MAX_DEPTH or min(depths) < 0:
            return True
        depth = depths[-1]
    return depth != 0


def is_finite(text: str) -> float:
    """Reads a number with a point or an exponent."""
    number = float(text)
    if math.isinf(number):
        raise Mismatch("number out of range")
    return number


def _no_constant(name: str) -> Any:
    raise Mismatch(f"{name} is not JSON")


def _decoder(**hooks: Any) -> Callable[[str, int], Tuple[Any, int]]:
    # Newer versions limit the digits of an integer themselves: reading takes the square of their number.
    if not hasattr(sys, "get_int_max_str_digits"):
        hooks["parse_int"] = _limited_int
    decoder = json.JSONDecoder(parse_float=is_finite, parse_constant=_no_constant, **hooks)
    return decoder.scan_once  # type: ignore[attr-defined, no-any-return]


def _limited_int(digits: str) -> int:
    if len(digits) > 4300:
        raise Mismatch("an integer of more than 4300 digits")
    return int(digits)


# A key that was a number, a boolean or None. Or text that looks like one.
_ODD_KEY = re.compile(r'"(?:-?[0-9][^"\\]*|true|false|null)":')


def _distinct(pairs: List[Tuple[str, Any]]) -> None:
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise Mismatch(f"two keys that are both written {shown(name)}")
        seen.add(name)


_scan_keys = _decoder(object_pairs_hook=_distinct)


def check_keys(text: str) -> None:
    """Raises `Mismatch` if two keys of one dict are written alike, which those that are text never are."""
    if _ODD_KEY.search(text):
        _scan_keys(text, 0)


_scan_dicts = _decoder()
_scan_pairs = _decoder(object_pairs_hook=tuple)


def parse(data: bytes, pairs: bool) -> Any:
    """The plain value of a text. Raises `Mismatch`."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Mismatch(f"not UTF-8: {error.reason} at byte {error.start}") from None
    if len(data) > MAX_DEPTH and is_too_deep(data):
        raise Mismatch(f"nested deeper than {MAX_DEPTH} levels, or brackets that do not match")
    if "\\u" in text and any(match[1] for match in _ESCAPES.finditer(text)):
        raise Mismatch("a lone surrogate in an escape")
    scan = _scan_pairs if pairs else _scan_dicts
    try:
        value, end = scan(text, 0)
    except StopIteration:
        # White space around a value is rare. Python's own idea of it has more than four characters.
        stripped = text.lstrip(" \t\r\n")
        if stripped == text:
            raise Mismatch("expected a value at character 0") from None
        value, end = _scan(scan, stripped)
        text = stripped
    except (ValueError, RecursionError) as error:
        raise Mismatch(str(error)) from None
    if end != len(text) and text[end:].strip(" \t\r\n"):
        raise Mismatch(f"trailing characters at character {end}")
    return value


def _scan(scan: Callable[[str, int], Tuple[Any, int]], text: str) -> Tuple[Any, int]:
    try:
        return scan(text, 0)
    except StopIteration:
        raise Mismatch("expected a value") from None
    except (ValueError, RecursionError) as error:
        raise Mismatch(str(error)) from None


def writer(default: Callable[[Any], Any]) -> Callable[[Any], str]:
    """A function that writes plain values, without white space. It asks `default` about what json does not know.
    May raise `TypeError`, `ValueError` and `RecursionError`."""
    options: Dict[str, Any] = {
        "ensure_ascii": False,
        "check_circular": False,
        "allow_nan": False,
        "separators": (",", ":"),
        "default": default,
    }
    encode = json.JSONEncoder(**options).encode
    make = getattr(_encoder, "c_make_encoder", None)
    escape = getattr(_encoder, "c_encode_basestring", None)
    if make is None or escape is None:
        return encode
    try:
        # What `encode` makes anew for each message.
        chunks = make(None, default, escape, None, ":", ",", False, False, False)
        if "".join(chunks({"a": [1, None]}, 0)) != '{"a":[1,null]}':
            return encode
    except (TypeError, ValueError):
        return encode

    def write(value: Any) -> str:
        parts: List[str] = chunks(value, 0)
        return "".join(parts)

    return write
