"""Turns: what has come is handled by owners in turn, little at a time, and what fails is handled alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from uuid import UUID

from batch_processor.aside import Aside
from chassis.postgres import Connection, Postgres

# What one transaction handles at most: it is short, and what fails takes few neighbours along.
TOGETHER = 20
# The turns are looked up anew after so many: what comes meanwhile does not wait for the end of a long list.
_LISTED = 500
# What has failed alone is tried again after so long.
_ASIDE_S = 60.0

# Returns at most `most` ids but those in `but`: the first of each owner, then the second of each, and so on.
Find = Callable[[Connection, Collection[UUID], int], Awaitable[Sequence[UUID]]]
# Handles some of them in the caller's transaction; returns how many were still there to be handled.
Handle = Callable[[Connection, Sequence[UUID]], Awaitable[int]]


class Turns:
    """Handles schedules; `what` is said of those that fail, and `done` is called after each commit."""

    def __init__(self, postgres: Postgres, what: str, *, done: Callable[[], None]) -> None:
        self._postgres = postgres
        self._done = done
        self._aside = Aside(postgres, what, first_s=_ASIDE_S, most_s=_ASIDE_S)

    async def take(self, find: Find, handle: Handle) -> None:
        """Handle all that `find` finds. Raise `DatabaseUnavailable` when the database is away."""
        handled = -1
        while handled:
            async with self._postgres.connection() as connection:
                found = await find(connection, self._aside.ids(), _LISTED)
            handled = 0
            for start in range(0, len(found), TOGETHER):
                handled += await self._handle(found[start : start + TOGETHER], handle)

    async def _handle(self, ids: Sequence[UUID], handle: Handle) -> int:
        try:
            async with self._postgres.transaction() as connection:
                handled = await handle(connection, ids)
        except Exception as error:
            if len(ids) > 1 and not await self._aside.is_outage(error):
                return sum([await self._handle([id_], handle) for id_ in ids])
            await self._aside.failed(ids[0], error)
            return 0
        if handled:
            self._done()
        # Whoever else waits for the loop or a connection gets it in between.
        await asyncio.sleep(0)
        return handled
