"""Concurrent NDJSON uploads: their number, and the order in which their bytes are processed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from gateway.http.byte_room import StreamRoom
from gateway.http.shared_bytes import SharedBytes

# Each holds up to about two megabytes: an unconfirmed run of items, and the next one.
UPLOAD_BYTES = 2 * 1024 * 1024
PART_BYTES = 8 * 1024 * 1024
MOST_AT_ONCE = 48
MOST_OF_AN_OWNER = 10


class UploadTurns:
    """The uploads of one gateway. Owners take turns, however many uploads each of them sends.

    Beyond their part, they use bytes that are `shared` with requests and answers.
    """

    def __init__(self, shared: SharedBytes | None = None) -> None:
        self._room = StreamRoom(
            "NDJSON uploads",
            each=UPLOAD_BYTES,
            most=MOST_AT_ONCE,
            of_owner=MOST_OF_AN_OWNER,
            part=PART_BYTES,
            shared=shared,
        )
        self._turn = asyncio.Lock()
        self._of_owner: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def at_work(self) -> int:
        """The number of uploads in progress."""
        return self._room.taken

    @contextmanager
    def room(self, owner_id: str) -> Iterator[None]:
        """Hold a place for an upload of the owner during the block. Raise `TooManyAtOnce`, `Overloaded`."""
        with self._room.hold(owner_id):
            try:
                yield
            finally:
                if self._room.taken_by(owner_id) == 1:
                    self._of_owner.pop(owner_id, None)

    @asynccontextmanager
    async def turn(self, owner_id: str) -> AsyncIterator[None]:
        """Process some bytes of an upload of the owner during the block, exclusively."""
        # At most one upload of each owner waits for the second lock, which is first come, first served.
        async with self._of_owner[owner_id], self._turn:
            yield
