"""NDJSON uploads that come in at a time: how many, and whose bytes are looked at next."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from chassis.errors import Overloaded

# Each holds up to some two megabytes: a run of items that the broker has not confirmed, and the next one.
MOST_AT_ONCE = 48
MOST_OF_AN_OWNER = 12


class UploadTurns:
    """The uploads of one gateway. Owners take turns, however many uploads each of them sends."""

    def __init__(self) -> None:
        self._at_work: Counter[str] = Counter()
        self._turn = asyncio.Lock()
        self._of_owner: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def at_work(self) -> int:
        """The number of uploads that come in now."""
        return self._at_work.total()

    @contextmanager
    def room(self, owner_id: str) -> Iterator[None]:
        """Hold a place for an upload of the owner during the block. Raise `Overloaded` when all are taken."""
        if self.at_work >= MOST_AT_ONCE or self._at_work[owner_id] >= MOST_OF_AN_OWNER:
            raise Overloaded(
                f"At most {MOST_OF_AN_OWNER} uploads of yours come in at a time, and {MOST_AT_ONCE} in all; "
                "wait for one to end.",
                retry_after_s=2,
            )
        self._at_work[owner_id] += 1
        try:
            yield
        finally:
            self._at_work[owner_id] -= 1
            if not self._at_work[owner_id]:
                del self._at_work[owner_id]
                self._of_owner.pop(owner_id, None)

    @asynccontextmanager
    async def turn(self, owner_id: str) -> AsyncIterator[None]:
        """Look at some bytes of an upload of the owner during the block, while no other upload does."""
        # One upload of each owner waits at the second lock, which is taken in the order of coming.
        async with self._of_owner[owner_id], self._turn:
            yield
