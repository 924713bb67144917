"""Bars as JSON, as CSV, or as one JSON document a line."""

from __future__ import annotations

import csv
import hashlib
import io

import orjson

from gateway.http.replies import CSV, JSON, NDJSON, Reply

_COLUMNS = ("t", "o", "h", "l", "c", "v", "factor")


def reply(media_type: str, page: bytes) -> Reply:
    """Return a page of bars, given as JSON, in `media_type`; there the next cursor is a header."""
    tag = hashlib.blake2b(media_type.encode() + page, digest_size=12).hexdigest()
    if media_type == JSON:
        return Reply(page + b"\n", etag=f'"{tag}"')
    document = orjson.loads(page)
    following = document["next_cursor"]
    return Reply(
        _as_csv(document["data"]) if media_type == CSV else _as_lines(document["data"]),
        media_type=NDJSON if media_type == NDJSON else CSV,
        etag=f'"{tag}"',
        headers={"x-next-cursor": following} if following else {},
    )


def _as_lines(bars: list[dict[str, object]]) -> bytes:
    return b"".join(orjson.dumps(bar, option=orjson.OPT_APPEND_NEWLINE) for bar in bars)


def _as_csv(bars: list[dict[str, object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    writer.writerows([bar.get(column) for column in _COLUMNS] for bar in bars)
    return text.getvalue().encode()
