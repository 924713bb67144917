"""The inbox: which messages a consumer has handled, remembered in the same transaction as their effect."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from chassis import queries
from chassis.postgres import Connection, Postgres, affected_rows

_SQL = queries.of("chassis")
KEEP_DAYS = 7
_STEP = 1000


async def claim(connection: Connection, consumer: str, message_ids: Sequence[UUID]) -> set[UUID]:
    """Remember `message_ids` as handled by `consumer`; return those that were new."""
    # Sorted, so that two groups with common messages wait for each other instead of deadlocking.
    rows = await connection.fetch(_SQL["claim_messages"], sorted(set(message_ids)), consumer)
    return {row["message_id"] for row in rows}


async def clean(postgres: Postgres, *, keep_days: int = KEEP_DAYS) -> int:
    """Remove rows older than any retry or outage can be, a thousand per step; return their number."""
    removed = 0
    while True:
        async with postgres.connection() as connection:
            tag = await connection.execute(_SQL["clean_inbox"], keep_days, _STEP)
        count = affected_rows(tag)
        removed += count
        if count < _STEP:
            return removed
