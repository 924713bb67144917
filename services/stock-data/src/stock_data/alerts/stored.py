"""The alerts in the database, as the watcher reads and changes them, and their removal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from uuid import UUID

from chassis.postgres import Postgres
from stock_data.alerts import repository
from stock_data.alerts.crossings import Crossing
from stock_data.alerts.repository import Horizon
from stock_data.alerts.watched import WatchedAlert

_NOBODY = UUID(int=0)
_PAGE = 5_000
_KEEP_DAYS = 30
# Rows that one transaction removes, so that each is short.
_STEP = 1_000


class StoredAlerts:
    """Reads and writes alerts on connections of its own. Every method may raise `DatabaseUnavailable`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def watched(self) -> tuple[Horizon, list[WatchedAlert]]:
        """Return every alert that can fire, and the horizon after which changes must still be read."""
        found: list[WatchedAlert] = []
        async with self._postgres.connection() as connection:
            horizon = await repository.read_horizon(connection)
            last, is_more = _NOBODY, True
            while is_more:
                page = await repository.find_watched(connection, after=last, limit=_PAGE)
                found += page
                last, is_more = (page[-1].id if page else last), len(page) == _PAGE
        return horizon, found

    async def changed(self, horizon: Horizon) -> tuple[Horizon, list[WatchedAlert], list[UUID]]:
        """Return the next horizon, the alerts created since `horizon`, and the ids of those ended since."""
        async with self._postgres.connection() as connection:
            return await repository.find_changed(connection, horizon)

    async def read(self, ids: Sequence[UUID]) -> list[WatchedAlert]:
        """Return those of `ids` that can still fire, as they are now."""
        async with self._postgres.connection() as connection:
            return await repository.find_current(connection, ids)

    async def record(self, term: int, crossings: Sequence[Crossing]) -> set[UUID] | None:
        """Write the new sides, the firings and their events in one transaction.

        Return the ids of the changed alerts, except those that others had changed before, or that had ended
        or expired. Return None, and write nothing, when a term later than `term` has begun.
        """
        async with self._postgres.transaction() as connection:
            return await repository.record(connection, term, crossings)

    async def clean(self) -> None:
        """Remove alerts that ended a month ago or were deleted, and request keys a day old."""
        for remove in (
            partial(repository.remove_ended, keep_days=_KEEP_DAYS, most=_STEP),
            partial(repository.remove_firings, keep_days=_KEEP_DAYS, most=_STEP),
            partial(repository.forget_requests, most=_STEP),
        ):
            removed = _STEP
            while removed == _STEP:
                async with self._postgres.connection() as connection:
                    removed = await remove(connection)
