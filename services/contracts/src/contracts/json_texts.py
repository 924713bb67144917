"""JSON as it was written: the source text of values within a document, to return them byte for byte.

`1.10` and `1.1` are the same number to every parser, but not the same text. These functions require valid
JSON: they locate the start and the end of values, and check nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from json import JSONDecoder
from typing import Any, AnyStr

from pydantic_core import from_json

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODE = JSONDecoder().raw_decode
_AFTER_A_MEMBER = {",", "}", b",", b"}"}
_PAYLOAD = b'"payload":'
_ITEMS = b'"items":['
# The first place of a payload without a name before it; a brace and a comma follow the payload.
_ITEM_BEGIN = len(b'{"payload":')


def members(document: str) -> dict[str, str]:
    """Return the texts of an object's values by name."""
    return dict(_members(document))


def elements(document: str) -> Iterator[str]:
    """Yield the texts of an array's elements."""
    place = _skip(document, _skip(document, 0) + 1)
    while document[place] != "]":
        end = _DECODE(document, place)[1]
        yield document[place:end]
        place = _next(document, end)


def member(document: bytes, name: str, compact: bytes) -> bytes:
    """Return the text of the value of `name` in an object.

    `compact` is the value without spaces: if it is written like that, as it usually is, it is not parsed.
    """
    begin = document.find(b'"%s":' % name.encode()) + len(name) + 3
    # The values before it may have a member of that name, too.
    if document.count(b"{", 0, begin) == 1 and _is_at(document, begin, compact):
        return compact
    for found, text in _members(document.decode(), name, compact.decode()):
        if found == name:
            return text.encode()
    return b"null"


def payloads(command: bytes, compact: Sequence[bytes]) -> list[bytes]:
    """Return the texts of the payloads of the items in `command`.

    `compact` are the payloads without spaces: if the document contains all of these texts, nothing is parsed.
    """
    place = command.find(_ITEMS)
    for text in compact:
        begin = command.find(_PAYLOAD, place) + len(_PAYLOAD)
        place = begin + len(text)
        if not _is_at(command, begin, text):
            items = elements(members(command.decode())["items"])
            return [members(item).get("payload", "null").encode() for item in items]
    return list(compact)


def before_placed_items(command: bytes) -> bytes | None:
    """Return `command` up to its items, without a brace; None if it does not say where payloads are."""
    # Within a string the quotes would be escaped, and no other list has one of these names.
    head, _, _ = command.partition(b"," + _ITEMS)
    return head if b',"payloads_at":[' in head else None


def payloads_at(command: bytes, places: Sequence[int]) -> list[bytes]:
    """Return the texts of the payloads of the items in `command`.

    `places` has the start and the end of each, in bytes after the opening bracket of the items.
    """
    items = command[command.index(_ITEMS) + len(_ITEMS) :]
    return [items[begin:end].strip() for begin, end in zip(places[::2], places[1::2], strict=True)]


def names_at(command: bytes, places: Sequence[int]) -> list[str | None] | None:
    """Return the custom ids of the items in `command`, whose payloads have these places; None without any.

    Only what is around the payloads is parsed. Raise `ValueError` if the items do not have these places.
    """
    start = command.index(_ITEMS) + len(_ITEMS)
    gaps = zip(places[1::2], places[2::2], strict=False)
    if (
        places[:1] == [_ITEM_BEGIN]
        and all(begin - end == _ITEM_BEGIN + 2 for end, begin in gaps)
        and command.startswith(b"}]", start + places[-1])
    ):
        return None
    cuts = [0, *(start + place for place in places), len(command)]
    around = [command[end:begin] for end, begin in zip(cuts[::2], cuts[1::2], strict=True)]
    items: list[dict[str, Any]] = from_json(b"0".join(around))["items"]
    if 2 * len(items) != len(places) or any(item.get("payload") != 0 for item in items):
        raise ValueError("The payloads are not where the message says.")
    return [item.get("custom_id") for item in items]


def _members(document: str, known: str = "", compact: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name of each member of an object and the text of its value.

    The value of the `known` one is not parsed if it is written as `compact`.
    """
    place = _skip(document, _skip(document, 0) + 1)
    while document[place] != "}":
        name, place = _DECODE(document, place)
        place = _skip(document, _skip(document, place) + 1)
        is_known = name == known and _is_at(document, place, compact)
        end = place + len(compact) if is_known else _DECODE(document, place)[1]
        yield name, document[place:end]
        place = _next(document, end)


def _is_at(document: AnyStr, begin: int, value: AnyStr) -> bool:
    """Return whether the member whose value begins at `begin` is written as `value`."""
    end = begin + len(value)
    return document.startswith(value, begin) and document[end : end + 1] in _AFTER_A_MEMBER


def _skip(document: str, place: int) -> int:
    found = _SPACE.match(document, place)
    assert found is not None, "the pattern also matches the empty string"
    return found.end()


def _next(document: str, end: int) -> int:
    """Return the start of the next value or name after a value, or the end of its container."""
    place = _skip(document, end)
    return _skip(document, place + 1) if document[place] == "," else place
