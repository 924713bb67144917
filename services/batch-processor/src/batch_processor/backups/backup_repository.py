"""Requests for backups, by statement. Every function works on the caller's connection."""

from __future__ import annotations

from uuid import UUID

from chassis import queries
from chassis.postgres import Connection, Row

_SQL = queries.of("batch_processor")


async def lock(connection: Connection) -> None:
    """Let no other request be recorded until the transaction ends."""
    await connection.execute(_SQL["lock_backup_requests"])


async def end_lost(connection: Connection, *, patience_s: float, abandoned: str) -> None:
    """End the request that no agent has taken within `patience_s`, or whose agent is gone, as `abandoned`."""
    await connection.execute(_SQL["end_untaken_backup"], patience_s)
    await connection.execute(_SQL["end_abandoned_backup"], abandoned)


async def find_wanted(connection: Connection, batch_id: UUID) -> Row | None:
    """Return the backup of the batch unless it has failed, else the one of another batch that is not done."""
    return await connection.fetchrow(_SQL["find_wanted_backup"], batch_id)


async def add(connection: Connection, batch_id: UUID) -> Row | None:
    """Record a request of a batch, and tell the agents; return it."""
    return await connection.fetchrow(_SQL["add_backup_request"], batch_id)


async def find(connection: Connection, id_: UUID) -> Row | None:
    """Return a request with what came of it; None when there is none."""
    return await connection.fetchrow(_SQL["find_backup"], id_)
