"""The age of the last complete backup, for Prometheus; `make backup` records each in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from chassis import logging, metrics
from chassis.errors import DatabaseUnavailable
from chassis.postgres import Postgres

log = logging.get(__name__)

_LOOK_EVERY_S = 60


class BackupWatch:
    """Measures when the last complete backup began."""

    def __init__(self, postgres: Postgres, queries: Mapping[str, str]) -> None:
        self._postgres = postgres
        self._queries = queries

    async def watch(self) -> None:
        """Measure every minute, until cancelled."""
        while True:
            try:
                await self.look()
            except DatabaseUnavailable as error:
                log.debug("age of the last backup could not be read", reason=error.detail)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Measure once."""
        async with self._postgres.connection() as connection:
            metrics.LAST_BACKUP.set(await connection.fetchval(self._queries["find_last_backup"]))
