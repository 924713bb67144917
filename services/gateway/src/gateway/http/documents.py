"""What JSON may come in: RFC 8259 to the letter, and nothing that a store or a service behind must refuse."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, AwareDatetime
from pydantic_core import from_json

from chassis.errors import InvalidInput, MalformedInput
from contracts.message import FieldError

DEEPEST = 64
MOST_ID = 2**63 - 1

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
# The parser's own limit: with so many levels around it, a document of DEEPEST levels just fits.
_PARSER_DEEPEST = 200
_AROUND = _PARSER_DEEPEST - DEEPEST


def load(data: bytes) -> Any:
    """`data` as JSON that can be kept. Raises `MalformedInput` or `InvalidInput`."""
    document = read(data)
    require_keepable(data, document)
    return document


def read(data: bytes) -> Any:
    """`data` as JSON: no NaN, no Infinity, no number beyond a double. Raises `MalformedInput`."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise MalformedInput(f"Not JSON: {error}.") from None


def require_keepable(data: bytes, document: Any) -> None:
    """Raise `InvalidInput` when `document`, read from `data`, cannot be kept.

    Databases keep no U+0000, and every reader behind has its own limit of nesting: better refused here
    than accepted and stuck there.
    """
    refused = refusal(data, document)
    if refused is not None:
        raise InvalidInput(refused.detail, errors=[refused])


def refusal(data: bytes, document: Any) -> FieldError | None:
    """Why `document`, read from `data`, cannot be kept, and where; None when it can."""
    if data.count(b"[") + data.count(b"{") > DEEPEST and _is_deep(data):
        return FieldError(pointer="", detail=f"JSON may be nested {DEEPEST} levels deep at most.")
    if b"\\u0000" in data and _NUL.search(data):
        return FieldError(
            pointer=next(_with_nul(document), ""), detail="The character U+0000 cannot be kept."
        )
    return None


def in_utc(moment: datetime) -> datetime:
    """`moment` in UTC, if the calendar has it there."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range") from None


Instant = Annotated[AwareDatetime, AfterValidator(in_utc)]


def _is_deep(data: bytes) -> bool:
    try:
        from_json(b"[" * _AROUND + data + b"]" * _AROUND)
    except ValueError:
        return True
    return False


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
            yield from _with_nul(child, f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}")
