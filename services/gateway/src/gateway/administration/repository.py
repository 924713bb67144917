"""Facts about the installation itself in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from chassis import queries
from chassis.postgres import Connection

_SQL = queries.of("gateway")


async def find_last_backup(connection: Connection) -> float:
    """Return when the newest complete backup began, in seconds since 1970; 0 if there is none."""
    return float(await connection.fetchval(_SQL["find_last_backup"]))
