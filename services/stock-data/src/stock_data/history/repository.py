"""The shipped history in PostgreSQL: bars, instruments and splits; functions on the caller's connection."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import date
from itertools import groupby

from chassis import queries
from chassis.postgres import Connection, Row, affected_rows
from stock_data.history import dataset
from stock_data.history.bars import DailyBar, Listing, Split
from stock_data.history.dataset import Dataset

_SQL = queries.of("stock_data")

_IMPORT_TIMEOUT_S = 60


async def find_bars(
    connection: Connection, symbol: str, start: date, end: date, *, limit: int
) -> list[DailyBar]:
    """Return the first `limit` bars of the days `start` to `end`, oldest first."""
    rows = await connection.fetch(_SQL["select_bars"], symbol, start, end, limit)
    return [bar_of(row) for row in rows]


async def find_listings(connection: Connection) -> list[Listing]:
    """Return every instrument that has bars, by symbol."""
    rows = await connection.fetch(_SQL["select_listings"])
    splits = await find_splits(connection)
    found: list[Listing] = []
    for symbol, bars in groupby(rows, key=lambda row: str(row["symbol"])):
        newest, *before = bars
        found.append(
            Listing(
                symbol=symbol,
                name=newest["name"],
                exchange=newest["exchange"],
                currency=newest["currency"],
                source=newest["source"],
                first_day=newest["first_day"],
                newest=bar_of(newest),
                previous=bar_of(before[0]) if before else None,
                splits=splits.get(symbol, ()),
            )
        )
    return found


async def find_splits(connection: Connection) -> Mapping[str, tuple[Split, ...]]:
    """Return the splits of each symbol that has had some, oldest first."""
    rows = await connection.fetch(_SQL["select_splits"])
    return {
        symbol: tuple(Split(row["day"], row["ratio"]) for row in group)
        for symbol, group in groupby(rows, key=lambda row: str(row["symbol"]))
    }


async def import_dataset(connection: Connection, data: Dataset) -> int:
    """Import the embedded history in the caller's transaction; return how many bars were written.

    Waits while another transaction imports it. Nothing is written when it was imported before.
    """
    splits = [(company.symbol, split) for company in dataset.COMPANIES for split in company.splits]
    await connection.execute(_SQL["lock_imports"])
    if await connection.fetchval(_SQL["is_imported"], dataset.NAME):
        return 0
    await connection.execute(
        _SQL["insert_instruments"],
        [company.symbol for company in dataset.COMPANIES],
        [company.name for company in dataset.COMPANIES],
        [company.exchange for company in dataset.COMPANIES],
        dataset.SOURCE,
    )
    tag = await connection.copy_to_table(
        "bars",
        source=io.BytesIO(data.csv),
        columns=dataset.COLUMNS,
        format="csv",
        header=True,
        timeout=_IMPORT_TIMEOUT_S,
    )
    await connection.execute(
        _SQL["insert_splits"],
        [symbol for symbol, _ in splits],
        [split.day for _, split in splits],
        [split.ratio for _, split in splits],
    )
    count = affected_rows(tag)
    await connection.execute(_SQL["insert_import"], dataset.NAME, data.sha256, count)
    return count


def bar_of(row: Row) -> DailyBar:
    """Return a row of `bars` as a bar."""
    return DailyBar(
        row["day"],
        row["open"],
        row["high"],
        row["low"],
        row["close"],
        row["volume"],
        row["adjusted_close"],
        row["is_repeated"],
    )
