"""Upkeep of API keys: those that ended long ago are removed."""

from __future__ import annotations

from chassis import metrics
from chassis.postgres import Postgres
from gateway.identity import key_repository

_STEP = 1000


class KeyUpkeep:
    """Maintains API keys in the background, in short transactions."""

    def __init__(self, postgres: Postgres, *, retention_days: int) -> None:
        self._postgres = postgres
        self._retention_days = retention_days

    async def remove_old(self) -> None:
        """Remove keys that ended before the retention, generation by generation, the youngest first.

        The audit trail still says who made and revoked them.
        """
        removed = 1
        while removed:
            async with self._postgres.connection() as connection:
                removed = await key_repository.remove_ended(
                    connection, keep_days=self._retention_days, most=_STEP
                )
            metrics.REMOVED.labels("key").inc(removed)
