"""Turns of owners: a limited number at a time, fewer per owner, and waiting owners take turns."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.errors import Overloaded

_MOST_WAITING = 100


class OwnerTurns:
    """Admits `most` at a time, `of_owner` of one owner; the owner with the fewest at work is next."""

    def __init__(self, *, most: int, of_owner: int) -> None:
        self._most = most
        self._of_owner = of_owner
        self._at_work: Counter[str] = Counter()
        self._waiting: defaultdict[str, deque[asyncio.Future[None]]] = defaultdict(deque)
        self._last: dict[str, int] = {}
        self._numbers = itertools.count()

    @asynccontextmanager
    async def turn(self, owner_id: str) -> AsyncIterator[None]:
        """Wait for a turn of the owner, and hold it while the block runs.

        Raise `Overloaded` when too many requests of the owner are waiting.
        """
        if len(self._waiting[owner_id]) >= _MOST_WAITING:
            raise Overloaded(
                f"{_MOST_WAITING} of your requests are waiting already; try again.", retry_after_s=5
            )
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[owner_id].append(mine)
        self._admit()
        try:
            await mine
            yield
        finally:
            # Cancelled while it waited, it may have got its turn all the same.
            if mine.done() and not mine.cancelled():
                self._at_work -= Counter([owner_id])
            self._admit()

    def _admit(self) -> None:
        for owner_id, waiting in list(self._waiting.items()):
            self._waiting[owner_id] = deque(one for one in waiting if not one.cancelled())
        while self._at_work.total() < self._most:
            following = min(
                (id_ for id_ in self._waiting if self._waiting[id_] and self._at_work[id_] < self._of_owner),
                key=lambda id_: (self._at_work[id_], self._last.get(id_, -1)),
                default=None,
            )
            if following is None:
                break
            self._at_work[following] += 1
            self._last[following] = next(self._numbers)
            self._waiting[following].popleft().set_result(None)
        for owner_id in [id_ for id_, waiting in self._waiting.items() if not waiting]:
            del self._waiting[owner_id]
            if not self._at_work[owner_id]:
                self._last.pop(owner_id, None)
