"""The inbox: which messages a consumer has handled, remembered in the same transaction as their effect."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from chassis.postgres import Connection, Postgres

_CLAIM = """
INSERT INTO inbox (message_id, consumer)
SELECT message_id, $2 FROM unnest($1::uuid[]) AS message_id
ON CONFLICT DO NOTHING
RETURNING message_id
"""
_CLEAN = """
DELETE FROM inbox WHERE (message_id, consumer) IN (
    SELECT message_id, consumer FROM inbox WHERE handled_at < now() - make_interval(days => $1) LIMIT $2
)
"""

KEEP_DAYS = 7
_STEP = 1000


async def claim(connection: Connection, consumer: str, message_ids: Sequence[UUID]) -> set[UUID]:
    """Remember `message_ids` as handled by `consumer`; gives those that were new."""
    # Sorted, so that two groups with common messages wait for each other instead of locking crosswise.
    rows = await connection.fetch(_CLAIM, sorted(set(message_ids)), consumer)
    return {row["message_id"] for row in rows}


async def clean(postgres: Postgres, *, keep_days: int = KEEP_DAYS) -> int:
    """Remove what is older than any retry or outage can be, a thousand rows a step; gives how many went."""
    removed = 0
    while True:
        async with postgres.connection() as connection:
            tag = await connection.execute(_CLEAN, keep_days, _STEP)
        count = int(tag.split()[-1])
        removed += count
        if count < _STEP:
            return removed
