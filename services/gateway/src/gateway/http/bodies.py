"""The bodies of requests: how much may come, and how fast."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from chassis.errors import PayloadTooLarge

Message = MutableMapping[str, Any]

BODY = "tickwire.body"
_BUFFERED_BYTES = 1 << 20


class Body:
    """The body of a request, bounded in size and in speed.

    `limit` is the most bytes in all. When a handler has opened the body as a stream, the next part is
    taken from the client only while less than 1 MiB waits to be read: that is the back-pressure.

    Parts come before the handler has opened it: the key may still be looked up. Of a body that
    `may_be_stream`, what is over the limit of others waits for that.
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
        """Take a body of up to `limit` bytes, no faster than it is read."""
        self.limit = limit
        self._is_stream = True
        self._is_wanted.set()
        self._update()

    def has_read(self, count: int) -> None:
        """Note that the handler has read `count` more bytes."""
        self._read += count
        self._update()

    async def take(self, message: Message) -> None:
        """Count a part that came, and wait while too much is unread. Raises `PayloadTooLarge`."""
        self.received += len(message.get("body", b""))
        self._update()
        if self._may_be_stream and self.received > self.limit:
            await self._is_wanted.wait()
        if self._is_stream:
            await self._room.wait()

    def require_within(self, declared: str | None) -> None:
        """Raise `PayloadTooLarge` when the declared or received length is over the limit."""
        self._is_wanted.set()
        length = int(declared) if declared is not None and declared.isdecimal() else 0
        if max(length, self.received) > self.limit:
            raise PayloadTooLarge(
                f"The body may have at most {self.limit} bytes; send less, or many items as NDJSON."
            )

    def _update(self) -> None:
        if self.received - self._read < _BUFFERED_BYTES:
            self._room.set()
        else:
            self._room.clear()
