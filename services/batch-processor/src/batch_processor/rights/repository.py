"""The rights that owners have lost, by statement. Every function works on the caller's connection."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from chassis import queries
from chassis.postgres import Connection, Row

_SQL = queries.of("batch_processor")


async def exclude_readers(connection: Connection) -> None:
    """Wait for transactions that have read losses, and let others wait until this one ends."""
    await connection.execute(_SQL["exclude_readers"])


async def note_loss(connection: Connection, owner_id: str, at: datetime, left: Sequence[str]) -> None:
    """Store that only the scopes `left` were left to an owner at a time."""
    await connection.execute(_SQL["note_loss"], owner_id, at, list(left))


async def losses_of(connection: Connection, owners: Collection[str]) -> list[Row]:
    """Return the losses of owners: the owner, the time, and the scopes that were left."""
    return await connection.fetch(_SQL["losses_of"], owners)
