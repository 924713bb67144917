"""The age of the last complete backup, for Prometheus; what has made one records it in the database."""

from __future__ import annotations

from chassis import metrics
from chassis.postgres import Postgres
from gateway.administration import repository


class BackupWatch:
    """Measures when the last complete backup began."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def look(self) -> None:
        """Set the metric to the time at which the newest complete backup began."""
        async with self._postgres.connection() as connection:
            metrics.LAST_BACKUP.set(await repository.find_last_backup(connection))
