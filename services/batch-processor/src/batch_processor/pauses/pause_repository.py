"""Pauses, by statement. Every function works on the caller's connection."""

from __future__ import annotations

from chassis import queries
from chassis.postgres import Connection
from contracts.pauses import Pause, PauseWork, ResumeWork

_SQL = queries.of("batch_processor")


async def list_all(connection: Connection) -> list[Pause]:
    """Return all pauses."""
    return [Pause(**row) for row in await connection.fetch(_SQL["list_pauses"])]


async def add(connection: Connection, wanted: PauseWork) -> None:
    """Pause an operation or an owner; an existing pause stays as it is."""
    await connection.execute(_SQL["add_pause"], wanted.kind, wanted.name, wanted.reason, wanted.paused_by)


async def remove(connection: Connection, wanted: ResumeWork) -> bool:
    """Resume an operation or an owner; return whether it was paused."""
    return await connection.fetchval(_SQL["remove_pause"], wanted.kind, wanted.name) is not None


async def measure(connection: Connection) -> tuple[int, int, float]:
    """Return how many operations and owners are paused, and the age of the oldest pause in seconds."""
    row = await connection.fetchrow(_SQL["measure_pauses"])
    assert row is not None
    return row["operations"], row["owners"], row["longest_s"]
