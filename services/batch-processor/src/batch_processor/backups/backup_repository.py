"""Requests for backups in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from uuid import UUID

from chassis import queries
from chassis.postgres import Connection, Row

_SQL = queries.of("batch_processor")


async def lock(connection: Connection) -> None:
    """Lock the requests until the transaction ends, so that no other one is recorded."""
    await connection.execute(_SQL["lock_backup_requests"])


async def end_lost(connection: Connection, *, patience_s: float, abandoned: str) -> None:
    """End a request that no agent took within `patience_s`; end one whose agent is gone as `abandoned`."""
    await connection.execute(_SQL["end_untaken_backup"], patience_s)
    await connection.execute(_SQL["end_abandoned_backup"], abandoned)


async def find_wanted(connection: Connection, batch_id: UUID) -> Row | None:
    """Return the backup of the batch, if it has not failed; else the one in progress for another batch."""
    return await connection.fetchrow(_SQL["find_wanted_backup"], batch_id)


async def add(connection: Connection, batch_id: UUID) -> Row | None:
    """Record a request of a batch, notify the agents, and return it."""
    return await connection.fetchrow(_SQL["add_backup_request"], batch_id)


async def find(connection: Connection, id_: UUID) -> Row | None:
    """Return a request with its outcome, or None."""
    return await connection.fetchrow(_SQL["find_backup"], id_)
