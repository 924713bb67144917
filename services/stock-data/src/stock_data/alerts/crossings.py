"""Crossings: an alert whose value has passed its threshold, and the tick that caused it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from itertools import chain

from contracts.stocks import Quote
from stock_data.alerts.watched import UNKNOWN, WatchedAlert


@dataclass(frozen=True, slots=True)
class Crossing:
    """A change of an alert's side, caused by `quote` on the trading day `day` and not yet written."""

    alert: WatchedAlert
    side: int
    quote: Quote
    day: date

    @property
    def fires(self) -> bool:
        """Whether the alert fires; false when the crossing only arms it again, or no value was known."""
        return self.alert.side != UNKNOWN and self.alert.fires_on(self.side)


class CrossingQueue:
    """Crossings that wait to be written: those of an owner in their order, and owners take turns.

    One tick may be the crossing of all alerts that an owner may have; another owner's is written with the
    first of them. There is at most one of each alert.
    """

    def __init__(self) -> None:
        # The owners in the order of their turns.
        self._of_owner: OrderedDict[str, deque[Crossing]] = OrderedDict()
        self._count = 0
        self._has_any = asyncio.Event()

    def __len__(self) -> int:
        """Return the number of crossings that wait."""
        return self._count

    def __iter__(self) -> Iterator[Crossing]:
        """Yield the crossings that wait, owner by owner."""
        return chain.from_iterable(self._of_owner.values())

    def firsts(self) -> Iterator[Crossing]:
        """Yield the crossing of each owner that is taken next."""
        return (waiting[0] for waiting in self._of_owner.values())

    def add(self, crossing: Crossing) -> None:
        """Put `crossing` behind those of its owner."""
        self._of_owner.setdefault(crossing.alert.owner_id, deque()).append(crossing)
        self._count += 1
        self._has_any.set()

    async def take(self, most: int) -> list[Crossing]:
        """Wait until there is a crossing; remove and return up to `most`, in turns of their owners."""
        await self._has_any.wait()
        taken: list[Crossing] = []
        while self._of_owner and len(taken) < most:
            owner_id, waiting = self._of_owner.popitem(last=False)
            taken.append(waiting.popleft())
            if waiting:
                self._of_owner[owner_id] = waiting
        self._count -= len(taken)
        if not self._of_owner:
            self._has_any.clear()
        return taken
