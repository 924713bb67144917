"""The age of the last complete backup, for Prometheus; `make backup` records each backup in the database."""

from __future__ import annotations

from collections.abc import Mapping

from chassis import metrics
from chassis.postgres import Postgres


class BackupWatch:
    """Measures when the last complete backup began."""

    def __init__(self, postgres: Postgres, queries: Mapping[str, str]) -> None:
        self._postgres = postgres
        self._queries = queries

    async def look(self) -> None:
        """Measure once."""
        async with self._postgres.connection() as connection:
            metrics.LAST_BACKUP.set(await connection.fetchval(self._queries["find_last_backup"]))
