"""Turns: due schedules are handled by owner in turn, in small groups; those that fail are handled alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from uuid import UUID

from batch_processor.background.backoff import Backoff
from chassis.postgres import Connection, Postgres

# The most schedules that one transaction handles: it is short, and a failure affects few others.
TOGETHER = 20
# Turns are looked up again after so many, so that new ones do not wait for the end of a long list.
LISTED = 500
# A schedule that has failed alone is tried again after this time.
_PAUSE_S = 60.0

# Returns up to `most` ids, except those in `but`: the first of each owner, then the second, and so on.
Find = Callable[[Connection, Collection[UUID], int], Awaitable[Sequence[UUID]]]
# Handles schedules in the caller's transaction; returns how many still had to be handled.
Handle = Callable[[Connection, Sequence[UUID]], Awaitable[int]]


class ScheduleTurns:
    """Handles schedules; `what` names those that fail in the log, and `done` is called after each commit."""

    def __init__(self, postgres: Postgres, what: str, *, done: Callable[[], None]) -> None:
        self._postgres = postgres
        self._done = done
        self._backoff = Backoff(postgres, what, first_s=_PAUSE_S, most_s=_PAUSE_S)

    async def take(self, find: Find, handle: Handle) -> None:
        """Handle everything that `find` returns. Raise `DatabaseUnavailable` when the database is down."""
        handled = -1
        while handled:
            async with self._postgres.connection() as connection:
                found = await find(connection, self._backoff.ids(), LISTED)
            handled = 0
            for start in range(0, len(found), TOGETHER):
                handled += await self._handle(found[start : start + TOGETHER], handle)

    async def _handle(self, ids: Sequence[UUID], handle: Handle) -> int:
        try:
            async with self._postgres.transaction() as connection:
                handled = await handle(connection, ids)
        except Exception as error:
            if len(ids) > 1 and not await self._backoff.is_outage(error):
                return sum([await self._handle([id_], handle) for id_ in ids])
            await self._backoff.failed(ids[0], error)
            return 0
        if handled:
            self._done()
        # Let others use the loop or a connection in between.
        await asyncio.sleep(0)
        return handled
