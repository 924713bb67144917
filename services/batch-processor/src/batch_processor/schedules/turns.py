"""Turns: what has come is handled by owners in turn, little at a time, and what fails is handled alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from uuid import UUID

from chassis import logging
from chassis.errors import DatabaseUnavailable
from chassis.postgres import Connection, Postgres

log = logging.get(__name__)

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
        self._what = what
        self._done = done
        self._aside: dict[UUID, float] = {}

    async def take(self, find: Find, handle: Handle) -> None:
        """Handle all that `find` finds. Raise `DatabaseUnavailable` when the database is away."""
        handled = -1
        while handled:
            now = time.monotonic()
            self._aside = {id_: until for id_, until in self._aside.items() if until > now}
            async with self._postgres.connection() as connection:
                found = await find(connection, self._aside, _LISTED)
            handled = 0
            for start in range(0, len(found), TOGETHER):
                handled += await self._handle(found[start : start + TOGETHER], handle)

    async def _handle(self, ids: Sequence[UUID], handle: Handle) -> int:
        try:
            async with self._postgres.transaction() as connection:
                handled = await handle(connection, ids)
        except Exception as error:
            if isinstance(error, DatabaseUnavailable) and not await self._postgres.ping():
                raise
            if len(ids) > 1:
                return sum([await self._handle([id_], handle) for id_ in ids])
            self._aside[ids[0]] = time.monotonic() + _ASIDE_S
            log.exception(
                "schedule failed, retrying later",
                what=self._what,
                schedule=str(ids[0]),
                after_s=_ASIDE_S,
            )
            return 0
        if handled:
            self._done()
        # Whoever else waits for the loop or a connection gets it in between.
        await asyncio.sleep(0)
        return handled
