"""Upkeep of chat rooms: old messages are removed."""

from __future__ import annotations

from chassis import metrics
from chassis.postgres import Postgres
from gateway.chat import repository


class ChatUpkeep:
    """Maintains rooms in the background, in short transactions."""

    def __init__(self, postgres: Postgres, *, retention_days: int) -> None:
        self._postgres = postgres
        self._retention_days = retention_days

    async def remove_old(self) -> None:
        """Remove messages that are older than the retention; rooms and their offsets stay."""
        after: str | None = ""
        while after is not None:
            async with self._postgres.connection() as connection:
                last, removed = await repository.remove_old_messages(
                    connection, after=after, keep_days=self._retention_days
                )
            metrics.REMOVED.labels("message").inc(removed)
            # The same rooms again while they have old messages.
            after = after if removed else last
