"""Strict JSON: exactly RFC 8259, without values that a database or another service would refuse."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from chassis.errors import InvalidInput, MalformedInput
from contracts.json_values import DEEPEST, is_exact_number, is_too_deep
from contracts.message import FieldError

MOST_ID = 2**63 - 1

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_LONG_INTEGER = re.compile(rb"(?<![.0-9])[0-9]{16}")
_DIGITS = bytes(ord("0") if byte in b"0123456789" else ord(" ") for byte in range(256))
_LONG_RUN = b"0" * 16
_LONG_NUMBER = re.compile(rb"[0-9.]{16}|[0-9][eE]")
_SPACE_BEFORE_COLON = re.compile(rb'"[ \t\r\n]+:')


def load(data: bytes) -> Any:
    """Return `data` as JSON that can be stored. Raise `MalformedInput` or `InvalidInput`."""
    document = read(data)
    require_keepable(data, document)
    return document


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
    if is_too_deep(data):
        return FieldError(pointer="", detail=f"JSON may be nested {DEEPEST} levels deep at most.")
    if b"\\u0000" in data and _NUL.search(data):
        return FieldError(
            pointer=next(_with_nul(document), ""), detail="The character U+0000 cannot be stored."
        )
    if is_as_written(data, document):
        return None
    return next(_differences(json.loads(data, **_MARKING)), None)


def is_as_written(data: bytes, document: Any) -> bool:
    """Return whether `document`, parsed from `data`, certainly has all its names and exact numbers.

    The check is cheap. True is always right; False may be wrong.
    """
    written = orjson.dumps(document)
    # The same text, but for what most writers put behind commas and colons. A name that occurs twice would be
    # missing, and a number that has changed would be another.
    if written == data or _without_spaces(written) == _without_spaces(data):
        # Searching for digits first takes a twentieth of the time of the whole expression.
        return _LONG_RUN not in data.translate(_DIGITS) or _LONG_INTEGER.search(data) is None
    # Formatted differently: a name is repeated only if the text has more names than the document, and only a
    # long number can be inexact.
    return not (
        _LONG_NUMBER.search(data)
        or _SPACE_BEFORE_COLON.search(data)
        or data.count(b'":') != _count_names(document)
    )


def _without_spaces(data: bytes) -> bytes:
    return data.replace(b", ", b",").replace(b": ", b":")


def _count_names(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(_count_names(child) for child in value.values())
    if isinstance(value, list):
        return sum(_count_names(child) for child in value)
    return 0


@dataclass(frozen=True, slots=True)
class _Marker:
    """Marks a value in a parsed document that could not be returned as sent."""

    detail: str


def _mark_repeated_names(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    times = Counter(name for name, _ in pairs)
    repeated = next(name for name in found if times[name] > 1)
    return {**found, repeated: _Marker("The name occurs twice in one object.")}


def _mark_inexact(text: str) -> Any:
    if is_exact_number(text):
        return 0
    return _Marker("The number is beyond ±2^53 or has more digits than a double keeps: send it as a string.")


_MARKING: Mapping[str, Any] = {
    "object_pairs_hook": _mark_repeated_names,
    "parse_int": _mark_inexact,
    "parse_float": _mark_inexact,
}


def _differences(value: Any, pointer: str = "") -> Iterator[FieldError]:
    if isinstance(value, _Marker):
        yield FieldError(pointer=pointer, detail=value.detail)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _differences(child, f"{pointer}/{index}")
    elif isinstance(value, dict):
        for name, child in value.items():
            yield from _differences(child, f"{pointer}/{escaped(name)}")


def escaped(name: str) -> str:
    """Return `name` as a part of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _with_nul(value: Any, pointer: str = "") -> Iterator[str]:
    if isinstance(value, str):
        if "\0" in value:
            yield pointer
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _with_nul(child, f"{pointer}/{index}")
    elif isinstance(value, dict):
        for name, child in value.items():
            if "\0" in name:
                yield pointer
            yield from _with_nul(child, f"{pointer}/{escaped(name)}")
