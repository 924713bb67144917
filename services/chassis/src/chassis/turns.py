"""Turns of owners: a limited number at once, fewer per owner, and waiting owners take turns."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

from chassis import shares
from chassis.errors import TooManyAtOnce

# How many turns the owner has now, when it got its last one, when it was put into the line, and its id.
_Place: TypeAlias = tuple[int, int, int, str]

# The owners whose last turn is known. All others count as having had theirs when the last one of them had.
_MOST_REMEMBERED = 1000


class OwnerTurns:
    """Admits `most` at once, `of_owner` of one owner; the owner with the fewest admitted is next.

    Among owners with equally many it is the one whose last turn began first, whether or not it had something
    waiting ever since: requests that come one at a time have no advantage over those that wait together.
    `most_waiting` of one owner may wait. If it `leaves_room`, an owner that has a turn gets another one only
    while enough are free for other owners (`shares.has_room`). A turn costs the logarithm of the number of
    owners that wait.
    """

    def __init__(self, *, most: int, of_owner: int, most_waiting: int, leaves_room: bool = False) -> None:
        self._most = most
        self._of_owner = of_owner
        self._most_waiting = most_waiting
        self._leaves_room = leaves_room
        self._at_work: Counter[str] = Counter()
        self._taken = 0
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        # In the order of the turns.
        self._last: OrderedDict[str, int] = OrderedDict()
        self._forgotten = -1
        self._numbers = itertools.count()
        # A heap of the owners that wait, with places that have been left since; `_places` has the valid ones.
        self._line: list[_Place] = []
        self._places: dict[str, _Place] = {}

    @property
    def waiting(self) -> int:
        """The number of callers that wait for a turn now."""
        return sum(map(len, self._waiting.values()))

    def taken_by(self, owner_id: str) -> int:
        """Return the number of turns that the owner has now."""
        return self._at_work[owner_id]

    def held_by(self, owner_id: str) -> int:
        """Return the number of turns that the owner has now or waits for."""
        return self._at_work[owner_id] + len(self._waiting.get(owner_id, ()))

    @asynccontextmanager
    async def turn(self, owner_id: str) -> AsyncIterator[None]:
        """Wait for a turn of the owner, and hold it while the block runs; raise as `take` does."""
        await self.take(owner_id)
        try:
            yield
        finally:
            self.give_back(owner_id)

    async def take(self, owner_id: str) -> None:
        """Wait for a turn of the owner, to be ended by `give_back`.

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
        if len(own) == 1:
            self._line_up(owner_id)
        self._admit()
        try:
            await mine
        except BaseException:
            # Cancelled while it waited, it may have got its turn all the same.
            if mine.done() and not mine.cancelled():
                self.give_back(owner_id)
            else:
                # Whoever gave a turn back since may have passed over it.
                if mine in own:
                    own.remove(mine)
                self._line_up(owner_id)
                self._admit()
            raise

    def give_back(self, owner_id: str) -> None:
        """End a turn of the owner."""
        self._taken -= 1
        self._at_work[owner_id] -= 1
        self._line_up(owner_id)
        self._admit()

    def _admit(self) -> None:
        while self._line:
            place = self._line[0]
            owner_id = place[-1]
            if self._places.get(owner_id) is not place:
                heapq.heappop(self._line)
                continue
            # No other owner has fewer: if this one may not begin, none may.
            if not self._may_begin(self._at_work[owner_id]):
                break
            first = self._waiting[owner_id].popleft()
            if not first.cancelled():
                self._taken += 1
                self._at_work[owner_id] += 1
                self._last[owner_id] = next(self._numbers)
                self._last.move_to_end(owner_id)
                if len(self._last) > _MOST_REMEMBERED:
                    _, self._forgotten = self._last.popitem(last=False)
                first.set_result(None)
            self._line_up(owner_id)

    def _may_begin(self, own: int) -> bool:
        if self._leaves_room and not shares.has_room(own, held=self._taken, most=self._most):
            return False
        return self._taken < self._most and own < self._of_owner

    def _line_up(self, owner_id: str) -> None:
        """Put the owner where it belongs in the line, or remove it when nothing of it waits."""
        at_work, last = self._at_work[owner_id], self._last.get(owner_id, self._forgotten)
        if self._waiting.get(owner_id):
            before = self._places.get(owner_id)
            # A caller that stops waiting does not send its owner back.
            if before is not None and before[:2] == (at_work, last):
                return
            place = (at_work, last, next(self._numbers), owner_id)
            self._places[owner_id] = place
            heapq.heappush(self._line, place)
            if len(self._line) > 2 * len(self._places) + 100:
                self._line = sorted(self._places.values())
            return
        self._waiting.pop(owner_id, None)
        self._places.pop(owner_id, None)
        if not at_work:
            del self._at_work[owner_id]
