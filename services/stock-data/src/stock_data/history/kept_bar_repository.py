"""Kept bars of upstreams in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal

from chassis import queries
from chassis.postgres import Connection, Row

_SQL = queries.of("stock_data")
_COLUMNS = ("source", "symbol", "day", "open", "high", "low", "close", "volume", "is_repeated")
_COPY_TIMEOUT_S = 30

# A day, its open, high, low and close, its volume, and whether its prices repeat those of the bar before.
KeptBar = tuple[date, Decimal, Decimal, Decimal, Decimal, Decimal | None, bool]


async def find_range(connection: Connection, source: str, symbol: str) -> Row | None:
    """Return the range of days stored for a symbol of `source`, with the day of its newest bar."""
    return await connection.fetchrow(_SQL["find_kept_range"], source, symbol)


async def find_bars(
    connection: Connection, source: str, symbol: str, start: date, end: date, *, limit: int
) -> list[Row]:
    """Return the first `limit` bars, each with whether its prices repeat those of the bar before."""
    return await connection.fetch(_SQL["select_kept_bars"], source, symbol, start, end, limit)


async def count(connection: Connection, source: str, symbol: str, start: date, end: date) -> int:
    """Return the number of bars stored from `start` to `end`."""
    found: int = await connection.fetchval(_SQL["count_kept_bars"], source, symbol, start, end)
    return found


async def count_all(connection: Connection, *, owner_id: str) -> tuple[int, int]:
    """Return the number of bars stored for all owners, and for this one."""
    kept = await connection.fetchval(_SQL["sum_kept_bars"])
    return kept, await connection.fetchval(_SQL["count_bars_of_owner"], owner_id) or 0


async def lock_count(connection: Connection) -> None:
    """Let nobody else count and store bars until the end of the caller's transaction."""
    await connection.execute(_SQL["lock_sum_of_bars"])


async def store(
    connection: Connection,
    source: str,
    symbol: str,
    days: tuple[date, date],
    bars: Sequence[KeptBar],
    *,
    currency: str,
    owner_id: str,
) -> bool:
    """Store `bars`, all those from the first to the last of `days`, in the caller's transaction.

    Store nothing and return False when the days do not adjoin the stored range.
    """
    await connection.execute(_SQL["lock_kept_symbol"], source, symbol)
    await connection.execute(_SQL["drop_kept_days"], source, symbol, *days)
    records = [(source, symbol, *bar) for bar in bars]
    await connection.copy_records_to_table(
        "kept_bars", records=records, columns=_COLUMNS, timeout=_COPY_TIMEOUT_S
    )
    extended = await connection.fetchval(
        _SQL["extend_kept_range"], source, symbol, currency, *days, len(records)
    )
    if not extended:
        await connection.execute(_SQL["drop_kept_days"], source, symbol, *days)
        return False
    await connection.execute(_SQL["count_bars_for_owner"], owner_id, len(records))
    return True
