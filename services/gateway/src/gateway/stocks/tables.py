"""Bars as JSON, as CSV, or as one JSON document per line."""

from __future__ import annotations

import csv
import hashlib
import io

import orjson

from gateway.http.replies import CSV, JSON, HttpReply

_COLUMNS = ("t", "o", "h", "l", "c", "v", "factor")


def reply(media_type: str, page: bytes) -> HttpReply:
    """Return a page of bars, which is JSON, in `media_type`; in other formats the next cursor is a header."""
    tag = hashlib.blake2b(media_type.encode() + page, digest_size=12).hexdigest()
    if media_type == JSON:
        return HttpReply(page + b"\n", etag=f'"{tag}"')
    document = orjson.loads(page)
    bars, following = document["data"], document["next_cursor"]
    if media_type == CSV:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow(_COLUMNS)
        writer.writerows([bar.get(column) for column in _COLUMNS] for bar in bars)
        body = text.getvalue().encode()
    else:
        body = b"".join(orjson.dumps(bar, option=orjson.OPT_APPEND_NEWLINE) for bar in bars)
    return HttpReply(
        body,
        media_type=media_type,
        etag=f'"{tag}"',
        headers={"x-next-cursor": following} if following else {},
    )
