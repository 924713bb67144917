"""Bars as JSON, as CSV, or as one JSON document per line."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any

from gateway.http.replies import CSV, JSON, HttpReply

# About the memory that a bar takes while a page is written as a table: its JSON as bytes and as text, and its
# line twice.
BYTES_OF_A_BAR = 500
# The limits of tables that are written at once, and the part of the memory that only they use.
MOST_BYTES = 40 * 1024 * 1024
PART_BYTES = 9 * 1024 * 1024
MOST_BYTES_OF_OWNER = 10 * 1024 * 1024
_COLUMNS = ("t", "o", "h", "l", "c", "v", "factor")

_decode = json.JSONDecoder().raw_decode


def reply(media_type: str, page: bytes) -> HttpReply:
    """Return a page of bars, which is JSON, in `media_type`; in other formats the next cursor is a header."""
    tag = hashlib.blake2b(media_type.encode() + page, digest_size=12).hexdigest()
    if media_type == JSON:
        return HttpReply(page + b"\n", etag=f'"{tag}"')
    table, others = io.StringIO(), dict[str, Any]()
    bars = _bars(page.decode(), others)
    if media_type == CSV:
        writer = csv.writer(table, lineterminator="\r\n")
        writer.writerow(_COLUMNS)
        writer.writerows([bar.get(column) for column in _COLUMNS] for bar, _ in bars)
    else:
        table.writelines(f"{text}\n" for _, text in bars)
    following = others["next_cursor"]
    return HttpReply(
        table.getvalue().encode(),
        media_type=media_type,
        etag=f'"{tag}"',
        headers={"x-next-cursor": following} if following else {},
    )


def _bars(page: str, others: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each bar of a page with its text, and put the page's other values into `others`.

    The page is JSON without white space, as services write it. It is read bar by bar: read at once, its
    values take twenty times the memory of its text.
    """
    position = 1
    while page[position] != "}":
        name, position = _decode(page, position)
        position += 1
        if name == "data":
            position += 1
            while page[position] != "]":
                bar, end = _decode(page, position)
                yield bar, page[position:end]
                position = end + (page[end] == ",")
            position += 1
        else:
            others[name], position = _decode(page, position)
        position += page[position] == ","
