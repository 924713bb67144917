"""The retention of mails in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from chassis import queries
from chassis.postgres import Connection, Row, affected_rows
from contracts.retention import SetRetention

_SQL = queries.of("emailer")


async def find_periods(connection: Connection, owner_id: str) -> Row | None:
    """Return the days that an owner has chosen; None for one that never chose."""
    return await connection.fetchrow(_SQL["find_periods"], owner_id)


async def set_periods(connection: Connection, request: SetRetention) -> Row | None:
    """Set the days of an owner, and return them; None when they are of another version than `request`."""
    return await connection.fetchrow(
        _SQL["set_periods"],
        *(request.owner_id, request.content_days, request.record_days, request.version),
    )


async def remove(connection: Connection, statement: str, parameters: tuple[float, ...], *, most: int) -> int:
    """Run a statement of `retention.sql` for up to `most` rows; return how many there were."""
    return affected_rows(await connection.execute(_SQL[statement], most, *parameters))


async def removal_delay_days(connection: Connection, content_days: tuple[float, float]) -> float:
    """Return by how many days the removal of content is late; less than 0 when it is not."""
    days: float | None = await connection.fetchval(_SQL["removal_delay"], *content_days)
    return days or 0.0


async def fold_counts(connection: Connection, *, most: int) -> int:
    """Fold up to `most` changes into the stored counts; return how many there were."""
    count: int = await connection.fetchval(_SQL["fold_counts"], most)
    return count
