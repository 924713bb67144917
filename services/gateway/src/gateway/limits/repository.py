"""The leases of limits, and their use by gateways, in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chassis import queries
from chassis.postgres import Connection
from gateway.http.rates import RateClass
from gateway.limits.leases import Question, Standing

_SQL = queries.of("gateway")


async def exchange(
    connection: Connection, rate: RateClass, window_s: int, asked: Sequence[Question]
) -> Mapping[str, Standing]:
    """Answer questions of one class and window, at most one of each caller or owner, in one statement."""
    starts_at = asked[0].starts_at
    rows = await connection.fetch(
        _SQL["exchange_tokens"],
        rate.value,
        starts_at,
        starts_at + window_s,
        [one.most for one in asked],
        [one.who for one in asked],
        [one.spent for one in asked],
        [one.back for one in asked],
        [one.need for one in asked],
        [one.wish for one in asked],
    )
    return {row["who"]: Standing(row["taken"], row["spent"], row["granted"]) for row in rows}


async def remove_old(connection: Connection, ended_before: int, most: int) -> int:
    """Remove up to `most` windows that ended before a Unix time; return the number removed."""
    status: str = await connection.execute(_SQL["remove_old_windows"], ended_before, most)
    return int(status.split()[-1])
