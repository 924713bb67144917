"""Strict JSON: exactly RFC 8259, without values that a database or another service would refuse."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from chassis.errors import InvalidInput, MalformedInput, PayloadTooLarge
from chassis.problems import pointer
from contracts.json_values import DEEPEST, has_more_containers, is_exact_number, is_too_deep
from contracts.message import FieldError

MOST_ID = 2**63 - 1
# Objects and lists take most of the time to parse a document and to forget it, in which no thread gets on:
# half a million of them, in a megabyte, take a tenth of a second. Where larger bodies are allowed, they may
# have one in so many bytes.
MOST_CONTAINERS = 131_072
_BYTES_OF_CONTAINER = 8

# About the memory of a value beside its text, of an empty list, and of an object with one name.
_VALUE_BYTES, _LIST_BYTES, _OBJECT_BYTES = 64, 64, 240

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_LONG_INTEGER = re.compile(rb"(?<![.0-9])[0-9]{16}")
_DIGITS = bytes(ord("0") if byte in b"0123456789" else ord(" ") for byte in range(256))
_LONG_RUN = b"0" * 16
# Digits and points become zeros, both signs one, and both letters of exponents one.
_NUMBERS = bytes.maketrans(b"123456789.-E", b"0000000000+e")
_LONG_NUMBERS = (_LONG_RUN, b"0e000", b"0e+000")
# The writer accepts so many levels.
_MOST_WRITTEN = 254
_SPACE_BEFORE_COLON = re.compile(rb'"[ \t\r\n]+:')
# A quote, colon or backslash that is written as an escape.
_HIDDEN_END_OF_NAME = re.compile(rb"\\u00(?:22|3[aA]|5[cC])")


def load(data: bytes) -> Any:
    """Return `data` as JSON that can be stored.

    Raise `MalformedInput`, `InvalidInput`, or `PayloadTooLarge` for more lists and objects than are parsed.
    """
    most = _most_containers(data)
    if has_more_containers(data, most):
        raise PayloadTooLarge(
            f"JSON of this size may have {most} objects and lists; send less at once, or items as NDJSON."
        )
    document = read(data)
    require_keepable(data, document)
    return document


def weigh(data: bytes) -> int:
    """Return about how many bytes of memory `data` takes, with its text, once it is read as JSON."""
    # One that has more is not read.
    most = _most_containers(data)
    lists, objects = min(data.count(b"["), most), min(data.count(b"{"), most)
    values = data.count(b",")
    return 2 * len(data) + values * _VALUE_BYTES + lists * _LIST_BYTES + objects * _OBJECT_BYTES


def _most_containers(data: bytes) -> int:
    return max(MOST_CONTAINERS, len(data) // _BYTES_OF_CONTAINER)


def read(data: bytes) -> Any:
    """Return `data` as JSON: no NaN, no Infinity, no number beyond a double. Raise `MalformedInput`."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise MalformedInput(f"Not JSON: {error}.") from None


def require_keepable(data: bytes, document: Any) -> None:
    """Raise `InvalidInput` if `document`, parsed from `data`, cannot be stored.

    PostgreSQL does not store U+0000, and every parser has a limit of nesting: such a document is refused
    here, because it would fail later if it were accepted.
    """
    refused = refusal(data, document)
    if refused is not None:
        raise InvalidInput(refused.detail, errors=[refused])


def refusal(data: bytes, document: Any) -> FieldError | None:
    """Return why `document`, parsed from `data`, cannot be stored or returned exactly; None if it can."""
    is_written = is_as_written(data, document)
    # Asked of the text, as the second value of a repeated name hides what the first one contains.
    if not is_written and is_too_deep(data):
        return FieldError(pointer="", detail=f"JSON may be nested {DEEPEST} levels deep at most.")
    if b"\\u0000" in data and _NUL.search(data):
        pointer, _ = _find(document, _has_nul) or ("", None)
        return FieldError(pointer=pointer, detail="The character U+0000 cannot be stored.")
    return None if is_written else _difference(data)


def is_as_written(data: bytes, document: Any, *, levels: int = DEEPEST) -> bool:
    """Return whether `document`, parsed from `data`, certainly has all its names and exact numbers.

    A document that is nested deeper than `levels` does not count as such. The check is cheap. True is always
    right; False may be wrong.
    """
    around = 0
    if data.count(b"[") + data.count(b"{") > levels:
        around = _MOST_WRITTEN - levels
    for _ in range(around):
        document = [document]
    try:
        written = orjson.dumps(document)
    except orjson.JSONEncodeError:
        return False
    written = written[around : len(written) - around]
    # The same text, but for what most writers put behind commas and colons. A name that occurs twice would be
    # missing, and a number that has changed would be another.
    if written == data or _without_spaces(written) == _without_spaces(data):
        # Searching for digits first takes a twentieth of the time of the whole expression.
        return _LONG_RUN not in data.translate(_DIGITS) or _LONG_INTEGER.search(data) is None
    # Formatted differently: a name is repeated only if the text has more ends of names than what was written,
    # and only a number of many digits, or with a large exponent, can be inexact.
    numbers = data.translate(_NUMBERS)
    return not (
        any(run in numbers for run in _LONG_NUMBERS)
        or _SPACE_BEFORE_COLON.search(data)
        or _HIDDEN_END_OF_NAME.search(data)
        or data.count(b'":') != written.count(b'":')
    )


def _without_spaces(data: bytes) -> bytes:
    return data.replace(b", ", b",").replace(b": ", b":")


@dataclass(frozen=True, slots=True)
class _Marker:
    """Marks a value in a parsed document that could not be returned as sent."""

    detail: str


_INEXACT = _Marker("The number is beyond ±2^53 or has more digits than a double keeps: send it as a string.")
_REPEATED = _Marker("The name occurs twice in one object.")


def _difference(data: bytes) -> FieldError | None:
    """Return the first value of a document that could not be returned as sent."""
    marked: list[_Marker] = []

    def read_names(pairs: list[tuple[str, Any]]) -> Any:
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        times = Counter(name for name, _ in pairs)
        marked.append(_REPEATED)
        return {**found, next(name for name in found if times[name] > 1): _REPEATED}

    def read_number(text: str) -> Any:
        if is_exact_number(text):
            return 0
        marked.append(_INEXACT)
        return _INEXACT

    document = json.loads(data, object_pairs_hook=read_names, parse_int=read_number, parse_float=read_number)
    # Nearly always there is none, and finding it costs as much as reading the document.
    found = _find(document, lambda value: isinstance(value, _Marker)) if marked else None
    return None if found is None else FieldError(pointer=found[0], detail=found[1].detail)


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    return isinstance(value, dict) and any("\0" in name for name in value)


def _find(value: Any, is_wanted: Callable[[Any], bool]) -> tuple[str, Any] | None:
    """Return the JSON pointer to the first wanted value, and the value."""
    if is_wanted(value):
        return "", value
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for name, child in children:
        found = _find(child, is_wanted)
        if found is not None:
            return f"{pointer((name,))}{found[0]}", found[1]
    return None
