"""The reply of a handler, and its form on the wire."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from operator import methodcaller
from typing import Literal

import orjson
from pydantic import BaseModel

JSON = "application/json"
NDJSON = "application/x-ndjson"
CSV = "text/csv"
EVENT_STREAM = "text/event-stream"
MAIL = "message/rfc822"
OCTETS = "application/octet-stream"
# The value of `format` in a query, for those that cannot set `Accept`.
TableFormat = Literal["json", "ndjson", "csv"]

# Serializes a model within plain data.
_PLAIN = methodcaller("model_dump", mode="json", by_alias=True)

Body = bytes | AsyncIterator[bytes] | None


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An answer: a body ready to be sent, and the parts that differ between answers of the route.

    `etag` is quoted. `cache` replaces the route's own `Cache-Control`. `recorded` is stored for
    repetitions in place of a body that contains a secret. `later` returns the answer to send in place of this
    one, once the body of the request has been let go; it ends within the deadline of the call.
    """

    body: Body
    status: int | None = None
    media_type: str = JSON
    etag: str | None = None
    location: str | None = None
    is_repeat: bool = False
    cache: str | None = None
    recorded: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    later: Callable[[], Awaitable[HttpReply]] | None = None


def document(value: object) -> bytes:
    """Return `value` as JSON with a final newline: a model, plain data, or bytes that are JSON already."""
    if isinstance(value, bytes):
        return value if value.endswith(b"\n") else value + b"\n"
    if isinstance(value, BaseModel):
        return value.model_dump_json(by_alias=True).encode() + b"\n"
    return orjson.dumps(value, default=_PLAIN, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


def entity_tag(body: bytes, revision: object = None) -> str:
    """Return the quoted entity tag of an answer: the revision of its object, if any, and a hash."""
    prefix = "" if revision is None else f"{revision}."
    return f'"{prefix}{hashlib.sha256(body).hexdigest()[:16]}"'


def of(value: object, *, is_tagged: bool = False) -> HttpReply:
    """Return the `value` of a handler as a reply, with an entity tag of its content if `is_tagged`."""
    if isinstance(value, HttpReply):
        return value
    body = None if value is None else document(value)
    return HttpReply(body, etag=entity_tag(body) if is_tagged and body is not None else None)
