"""Turns of owners: a limited number at once, fewer per owner, and waiting owners take turns."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.errors import TooManyAtOnce


class OwnerTurns:
    """Admits `most` at once, `of_owner` of one owner; the owner with the fewest admitted is next.

    `most_waiting` of one owner may wait.
    """

    def __init__(self, *, most: int, of_owner: int, most_waiting: int) -> None:
        self._most = most
        self._of_owner = of_owner
        self._most_waiting = most_waiting
        self._at_work: Counter[str] = Counter()
        self._taken = 0
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._last: dict[str, int] = {}
        self._numbers = itertools.count()

    @property
    def waiting(self) -> int:
        """The number of callers that wait for a turn now."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def turn(self, owner_id: str) -> AsyncIterator[None]:
        """Wait for a turn of the owner, and hold it while the block runs.

        Raise `TooManyAtOnce` when too many requests of the owner are waiting.
        """
        own = self._waiting.setdefault(owner_id, deque())
        if len(own) >= self._most_waiting:
            raise TooManyAtOnce(
                f"{self._most_waiting} of your requests are waiting already; wait for some of them to end.",
                retry_after_s=2,
            )
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        own.append(mine)
        self._admit()
        try:
            await mine
            yield
        finally:
            # Cancelled while it waited, it may have got its turn all the same.
            if mine.done() and not mine.cancelled():
                self._taken -= 1
                self._at_work[owner_id] -= 1
            elif mine in own:
                own.remove(mine)
            self._forget_idle(owner_id)
            self._admit()

    def _admit(self) -> None:
        while self._taken < self._most:
            following = min(
                (id_ for id_ in self._waiting if self._at_work[id_] < self._of_owner),
                key=lambda id_: (self._at_work[id_], self._last.get(id_, -1)),
                default=None,
            )
            if following is None:
                break
            first = self._waiting[following].popleft()
            if not first.cancelled():
                self._taken += 1
                self._at_work[following] += 1
                self._last[following] = next(self._numbers)
                first.set_result(None)
            self._forget_idle(following)

    def _forget_idle(self, owner_id: str) -> None:
        if not self._waiting.get(owner_id, True):
            del self._waiting[owner_id]
        if not self._at_work[owner_id]:
            del self._at_work[owner_id]
            if owner_id not in self._waiting:
                self._last.pop(owner_id, None)
