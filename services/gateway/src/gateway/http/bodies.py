"""The bodies of requests: limits on their size and speed."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from chassis.errors import PayloadTooLarge
from gateway.http.byte_room import ByteRoom
from gateway.http.shared_bytes import SharedBytes

Message = MutableMapping[str, Any]

BODY = "tickwire.body"
# The limits of memory for bodies above `LARGE_BYTES`, in total and per owner, and for those above
# `SMALL_BYTES`. Smaller ones are bounded by the number of connections. No other kind takes the parts.
MOST_BYTES = 64 * 1024 * 1024
PART_BYTES = 6 * 1024 * 1024
MOST_BYTES_OF_OWNER = 2 * 1024 * 1024
LARGE_BYTES = 64 * 1024
MOST_SMALLER_BYTES = 32 * 1024 * 1024
SMALLER_PART_BYTES = 6 * 1024 * 1024
MOST_SMALLER_BYTES_OF_OWNER = 8 * 1024 * 1024
SMALL_BYTES = 8 * 1024
# About the memory of documents that have been read, until their requests are answered: in total, and per
# owner. A body of a megabyte may become twenty of them. One below the last limit is not worth counting.
MOST_DOCUMENT_BYTES = 64 * 1024 * 1024
DOCUMENT_PART_BYTES = 12 * 1024 * 1024
MOST_DOCUMENT_BYTES_OF_OWNER = 32 * 1024 * 1024
# What heavy documents leave of that: two owners may each fill their share.
RESERVED_DOCUMENT_BYTES = MOST_DOCUMENT_BYTES // 8
LIGHT_BYTES = 16 * 1024
# A smaller document of more values than that, or of more lists and objects, is as slow to read.
_MANY_VALUES = 1_000
_BUFFERED_BYTES = 1 << 20


def is_slow(document: bytes) -> bool:
    """Return whether reading a JSON document would hold up the event loop, so that a thread should do it."""
    if len(document) >= LARGE_BYTES or document.count(b",") > _MANY_VALUES:
        return True
    return document.count(b"[") + document.count(b"{") > _MANY_VALUES


class BodyRooms:
    """The rooms for large and for smaller bodies, and for the documents that are read from them."""

    def __init__(self, shared: SharedBytes | None) -> None:
        self.large = ByteRoom(
            "large bodies", most=MOST_BYTES, of_owner=MOST_BYTES_OF_OWNER, part=PART_BYTES, shared=shared
        )
        self.smaller = ByteRoom(
            "bodies",
            most=MOST_SMALLER_BYTES,
            of_owner=MOST_SMALLER_BYTES_OF_OWNER,
            part=SMALLER_PART_BYTES,
            shared=shared,
        )
        self.documents = ByteRoom(
            "documents in memory",
            most=MOST_DOCUMENT_BYTES,
            of_owner=MOST_DOCUMENT_BYTES_OF_OWNER,
            reserve=RESERVED_DOCUMENT_BYTES,
            part=DOCUMENT_PART_BYTES,
            shared=shared,
        )
        # The bytes that any document counts as at most.
        self.heaviest_document = MOST_DOCUMENT_BYTES_OF_OWNER


class Body:
    """The body of a request, bounded in size and in speed.

    `limit` is the most bytes in all. When a handler has opened the body as a stream, the next part is
    read from the client only while less than 1 MiB waits for the handler: that is the back-pressure.

    Parts can arrive before the handler opens the body, while the key is looked up. If the body
    `may_be_stream`, parts beyond the normal limit wait until then.
    """

    def __init__(self, limit: int, *, may_be_stream: bool = False) -> None:
        self.limit = limit
        self._may_be_stream = may_be_stream
        self.received = 0
        self._read = 0
        self._is_stream = False
        self._is_wanted = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def open_stream(self, limit: int) -> None:
        """Accept a body of up to `limit` bytes, no faster than the handler reads it."""
        self.limit = limit
        self._is_stream = True
        self._is_wanted.set()
        self._update()

    def has_read(self, count: int) -> None:
        """Note that the handler has read `count` more bytes."""
        self._read += count
        self._update()

    async def take(self, message: Message) -> None:
        """Count a part that arrived, and wait while too much is unread. Raise `PayloadTooLarge`."""
        self.received += len(message.get("body", b""))
        self._update()
        if self._may_be_stream and self.received > self.limit:
            await self._is_wanted.wait()
        if self._is_stream:
            await self._room.wait()

    def require_within(self, declared: str | None) -> None:
        """Raise `PayloadTooLarge` if the declared or received length exceeds the limit."""
        self._is_wanted.set()
        length = int(declared) if declared is not None and declared.isdecimal() else 0
        if max(length, self.received) > self.limit:
            raise PayloadTooLarge(
                f"The body may have at most {self.limit} bytes; send less, or send many items as NDJSON."
            )

    def _update(self) -> None:
        if self.received - self._read < _BUFFERED_BYTES:
            self._room.set()
        else:
            self._room.clear()
