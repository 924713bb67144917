"""Batches or schedules on which a background pass failed are set aside for a while, and delay no others."""

from __future__ import annotations

import time
from uuid import UUID

from chassis import logging, metrics
from chassis.errors import DatabaseUnavailable
from chassis.postgres import Postgres

log = logging.get(__name__)

_MOST_KNOWN = 10_000


class Backoff:
    """The batches, or schedules, on which one pass has failed; each is tried again after a pause.

    The pause grows from `first_s` to `most_s` seconds with each consecutive failure.
    """

    def __init__(self, postgres: Postgres, what: str, *, first_s: float, most_s: float) -> None:
        self._postgres = postgres
        self._what = what
        self._first_s = first_s
        self._most_s = most_s
        self._tries: dict[UUID, int] = {}
        self._until: dict[UUID, float] = {}

    def ids(self) -> list[UUID]:
        """Return the ids that are set aside now."""
        now = time.monotonic()
        self._until = {id_: until for id_, until in self._until.items() if until > now}
        return list(self._until)

    def tries(self, id_: UUID) -> int:
        """Return how often the pass has failed on `id_` since it last succeeded."""
        return self._tries.get(id_, 0)

    def succeeded(self, id_: UUID) -> None:
        """Forget the failures on `id_`."""
        self._tries.pop(id_, None)
        self._until.pop(id_, None)

    async def is_outage(self, error: Exception) -> bool:
        """Return whether the database is unavailable, so that no single batch or schedule is to blame."""
        return isinstance(error, DatabaseUnavailable) and not await self._postgres.ping()

    async def failed(self, id_: UUID | None, error: Exception) -> None:
        """Set `id_` aside. Raise `error` when no single batch or schedule is to blame."""
        if id_ is None or await self.is_outage(error):
            raise error
        # The newest failure comes last, so that the oldest is forgotten first.
        tries = self._tries[id_] = self._tries.pop(id_, 0) + 1
        if len(self._tries) > _MOST_KNOWN:
            del self._tries[next(iter(self._tries))]
        pause_s = min(self._most_s, self._first_s * 2 ** min(tries - 1, 16))
        self._until[id_] = time.monotonic() + pause_s
        metrics.TASK_FAILURES.labels(self._what).inc()
        log.error(
            "background step failed, retrying it later",
            what=self._what,
            id=str(id_),
            tries=tries,
            after_s=pause_s,
            exc_info=error,
        )
