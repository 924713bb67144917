"""JSON as it was written: the source text of values within a document, to return them byte for byte.

`1.10` and `1.1` are the same number to every parser, but not the same text. These functions require valid
JSON: they locate the start and the end of values, and check nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from json import JSONDecoder

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODE = JSONDecoder().raw_decode
_PAYLOAD = b'"payload":'


def members(document: str) -> dict[str, str]:
    """Return the texts of an object's values by name."""
    found = {}
    place = _skip(document, _skip(document, 0) + 1)
    while document[place] != "}":
        name, place = _DECODE(document, place)
        place = _skip(document, _skip(document, place) + 1)
        end = _DECODE(document, place)[1]
        found[name] = document[place:end]
        place = _next(document, end)
    return found


def elements(document: str) -> Iterator[str]:
    """Yield the texts of an array's elements."""
    place = _skip(document, _skip(document, 0) + 1)
    while document[place] != "]":
        end = _DECODE(document, place)[1]
        yield document[place:end]
        place = _next(document, end)


def member(document: bytes, name: str, compact: bytes) -> bytes:
    """Return the text of the value of `name` in an object.

    `compact` is the value without spaces: if the document contains that text, as it usually does, nothing is
    parsed.
    """
    begin = document.find(b'"%s":' % name.encode()) + len(name) + 3
    end = begin + len(compact)
    if document[begin:end] == compact and document[end : end + 1] in (b",", b"}"):
        return compact
    return members(document.decode()).get(name, "null").encode()


def payloads(command: bytes, compact: Sequence[bytes]) -> list[bytes]:
    """Return the texts of the payloads of the items in `command`.

    `compact` are the payloads without spaces: if the document contains all of these texts, nothing is parsed.
    """
    place = 0
    for text in compact:
        begin = command.find(_PAYLOAD, place) + len(_PAYLOAD)
        place = begin + len(text)
        if command[begin:place] != text or command[place : place + 1] not in (b",", b"}"):
            items = elements(members(command.decode())["items"])
            return [members(item).get("payload", "null").encode() for item in items]
    return list(compact)


def payloads_at(command: bytes, places: Sequence[int]) -> list[bytes]:
    """Return the texts of the payloads of the items in `command`.

    `places` has the start and the end of each, in bytes after the opening bracket of the items.
    """
    items = command[command.index(b'"items":[') + len(b'"items":[') :]
    return [items[begin:end].strip() for begin, end in zip(places[::2], places[1::2], strict=True)]


def _skip(document: str, place: int) -> int:
    found = _SPACE.match(document, place)
    assert found is not None, "the pattern also matches the empty string"
    return found.end()


def _next(document: str, end: int) -> int:
    """Return the start of the next value or name after a value, or the end of its container."""
    place = _skip(document, end)
    return _skip(document, place + 1) if document[place] == "," else place
