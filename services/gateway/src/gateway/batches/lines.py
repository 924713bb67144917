"""The lines of an upload: parsed together in the common case, and one by one where a line may be invalid."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import orjson

from contracts.items import is_wrapped, require_custom_id
from contracts.json_values import DEEPEST
from gateway.batches.payload_checks import PayloadCheck
from gateway.http import strict_json as documents

# Separates lines that are parsed together. It is random, so that no caller can write lines that are invalid
# alone but valid together. It has no digits, so that it does not look like a number.
_MARK = "".join(secrets.choice("ghijklmnopqrstuv") for _ in range(32))
_BETWEEN = b',"%s",' % _MARK.encode()
_MOST_BYTES = 64 * 1024

_PAYLOAD_FIRST = b'{"payload":'
_BEGIN = len(_PAYLOAD_FIRST)
# JSON writers put nothing or a space after a comma and a colon.
_SPACES = (b"", b" ")


def read_together(lines: Sequence[bytes], check: PayloadCheck | None) -> list[dict[str, Any]] | None:
    """Return the items of some lines; None if a line may be invalid and each must be parsed by itself."""
    document = b"[" + _BETWEEN.join(lines) + b"]"
    if len(document) > _MOST_BYTES or b"\\u0000" in document:
        return None
    try:
        found = orjson.loads(document)
    except orjson.JSONDecodeError:
        return None
    items: list[dict[str, Any]] = found[::2]
    marks = found[1::2]
    # With fewer separators an item starts on one line and ends on another.
    if len(found) != 2 * len(lines) - 1 or marks.count(_MARK) != len(marks):
        return None
    # The list around the items is one more level.
    if not documents.is_as_written(document, found, levels=DEEPEST + 1) or not all(map(is_wrapped, items)):
        return None
    try:
        for item in items:
            if len(item) > 1:
                require_custom_id(item["custom_id"])
    except ValueError:
        return None
    if check is not None and any(check.find(item["payload"]) is not None for item in items):
        return None
    return items


def read_alone(line: bytes, check: PayloadCheck | None) -> dict[str, Any] | tuple[str, str]:
    """Return the item in a line; of one that is no valid item a pointer into it and the reason."""
    try:
        item = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return "", f"is not JSON: {error.msg}"
    if not is_wrapped(item):
        return "", "must be an object with 'payload' and optionally 'custom_id'"
    refused = documents.refusal(line, item)
    if refused is not None:
        return refused.pointer, f"is not accepted: {refused.detail[:-1]}"
    try:
        require_custom_id(item.get("custom_id"))
    except ValueError as error:
        return "/custom_id", f"is not accepted: {error}"
    misfit = check.find(item["payload"]) if check is not None else None
    if misfit is not None:
        return f"/payload{misfit.pointer}", f"does not fit the operation: {misfit.detail}"
    found: dict[str, Any] = item
    return found


def places_of_payloads(
    lines: Sequence[bytes], items: Sequence[dict[str, Any]], *, start: int
) -> list[int] | None:
    """Return the start and end of each payload in `lines` joined by commas, which follow `start` other bytes.

    Spaces around a payload may be included. Return None if a line is written in an unusual way.
    """
    places: list[int] = []
    for line, item in zip(lines, items, strict=True):
        if len(item) > 1:
            place = _place_beside_name(line, item)
        else:
            place = (_BEGIN, len(line) - 1) if line.startswith(_PAYLOAD_FIRST) else None
        if place is None:
            return None
        begin, end = place
        places += (start + begin, start + end)
        start += len(line) + 1
    return places


def _place_beside_name(line: bytes, item: dict[str, Any]) -> tuple[int, int] | None:
    name: Any = item["custom_id"]
    if isinstance(name, str) and '"' not in name and "\\" not in name:
        # Nearly always the first of those below.
        head = f'{{"custom_id":"{name}","payload":'.encode()
        if line.startswith(head):
            return len(head), len(line) - 1
    name = orjson.dumps(name)
    for space in _SPACES:
        head = b'{"custom_id":%s%s,%s"payload":' % (space, name, space)
        if line.startswith(head):
            return len(head), len(line) - 1
        tail = b',%s"custom_id":%s%s}' % (space, space, name)
        if line.startswith(_PAYLOAD_FIRST) and line.endswith(tail):
            return _BEGIN, len(line) - len(tail)
    return None
