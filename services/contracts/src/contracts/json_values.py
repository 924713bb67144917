"""The JSON that every service and database returns exactly: limits on its depth and its numbers."""

from __future__ import annotations

import math
import re
import sys
from decimal import Decimal

from contracts.message import Json

DEEPEST = 64
LARGEST_INTEGER = 2**53

# Brackets of both kinds become one kind; all but these and quotes is left out.
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b'[]{}"'))
# More digits than any double needs: longer literals are not worth the time that exact arithmetic takes.
_MOST_DIGITS = 800
# A double keeps every decimal number of so many digits, unless its exponent is out of the usual range.
_KEPT_DIGITS = sys.float_info.dig
_LEAST_USUAL = 1e-300
_NO_CHARACTER = re.compile("[\0\ud800-\udfff]")


def is_too_deep(document: bytes) -> bool:
    """Return whether a valid JSON document is nested deeper than `DEEPEST` levels.

    To build its values would take longer, in one piece in which no other thread gets on.
    """
    if document.count(b"[") + document.count(b"{") <= DEEPEST:
        return False
    brackets = _brackets(document)
    for _ in range(DEEPEST):
        # The innermost level of each branch.
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def has_more_containers(document: bytes, most: int) -> bool:
    """Return whether a JSON document has more than `most` lists and objects."""
    if document.count(b"[") + document.count(b"{") <= most:
        return False
    return _brackets(document).count(b"[") > most


def _brackets(document: bytes) -> bytes:
    """Return the brackets outside of texts, those of objects as those of lists."""
    marks = document.replace(b"\\\\", b"").replace(b'\\"', b"").translate(_BRACKETS, _OTHERS)
    # Two quotes in a row are an empty text, or the end of one and the beginning of the next; every second
    # part between the others is a text.
    return b"".join(marks.replace(b'""', b"").split(b'"')[::2])


def is_exact_number(literal: str) -> bool:
    """Return whether every reader keeps a number, given as in a JSON document, exactly.

    Integers within ±2^53 are kept; fractions and exponents are kept if a double has enough digits for them.
    """
    if len(literal) > _MOST_DIGITS:
        return False
    if literal.lstrip("-").isdecimal():
        return abs(int(literal)) <= LARGEST_INTEGER
    number = float(literal)
    if len(literal) <= _KEPT_DIGITS and _LEAST_USUAL < abs(number) < math.inf:
        return True
    return math.isfinite(number) and Decimal(literal) == Decimal(repr(number))


def exact(value: Json) -> Json:
    """Return `value`, which was read from JSON, if it can be stored and read back exactly.

    Raise `ValueError` for nesting beyond `DEEPEST`, integers beyond ±2^53, U+0000, and what is not JSON.
    """
    pending: list[tuple[Json, int]] = [(value, 1)]
    while pending:
        item, level = pending.pop()
        if isinstance(item, dict | list):
            if level > DEEPEST:
                raise ValueError(f"must be nested at most {DEEPEST} levels deep")
            pending.extend((child, level + 1) for child in item)
            if isinstance(item, dict):
                pending.extend((child, level + 1) for child in item.values())
        elif isinstance(item, str):
            if _NO_CHARACTER.search(item):
                raise ValueError("must not contain U+0000 or surrogates")
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise ValueError("must not contain NaN or Infinity")
        elif isinstance(item, int):
            if abs(item) > LARGEST_INTEGER:
                raise ValueError("must not contain integers beyond ±2^53")
        elif item is not None:
            raise ValueError("must be JSON")
    return value
