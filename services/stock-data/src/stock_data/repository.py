"""Everything stock-data asks of its database."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import date
from itertools import groupby

import asyncpg

from chassis import logging, metrics, queries
from chassis.postgres import Connection, Postgres
from stock_data import dataset
from stock_data.bars import DailyBar, Listing, Split, restated
from stock_data.dataset import Dataset
from stock_data.replay.ticks import ReplayBar

log = logging.get(__name__)

SQL = queries.load("stock_data")

_IMPORT_TIMEOUT_S = 60


class Repository:
    """Reads bars and instruments. Every method may raise `DatabaseUnavailable`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def bars(self, symbol: str, start: date, end: date, *, limit: int) -> list[DailyBar]:
        """The first `limit` bars of the days `start` to `end`, oldest first."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(SQL["select_bars"], symbol, start, end, limit)
        return [_bar(row) for row in rows]

    async def listings(self) -> list[Listing]:
        """Every instrument that has bars, by symbol."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(SQL["select_listings"])
            splits = await _splits(connection)
        grouped = groupby(rows, key=lambda row: str(row["symbol"]))
        return [_listing(list(bars), splits.get(symbol, ())) for symbol, bars in grouped]

    async def next_day(self, day: date) -> list[ReplayBar]:
        """All bars of the first trading day from `day` on, by symbol; empty after the last one."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(SQL["select_next_day"], day)
            splits = await _splits(connection)
        return [_replay_bar(row, splits.get(row["symbol"], ())) for row in rows]

    async def import_dataset(self, data: Dataset) -> int:
        """Bring the embedded history into the database, once; gives how many bars were written."""
        async with self._postgres.transaction() as connection:
            await connection.execute(SQL["lock_imports"])
            if await connection.fetchval(SQL["is_imported"], dataset.NAME):
                return 0
            return await _import(connection, data)


async def _import(connection: Connection, data: Dataset) -> int:
    companies = dataset.COMPANIES
    splits = [(company.symbol, split) for company in companies for split in company.splits]
    await connection.execute(
        SQL["insert_instruments"],
        [company.symbol for company in companies],
        [company.name for company in companies],
        [company.exchange for company in companies],
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
        SQL["insert_splits"],
        [symbol for symbol, _ in splits],
        [split.day for _, split in splits],
        [split.ratio for _, split in splits],
    )
    count = int(tag.split()[-1])
    await connection.execute(SQL["insert_import"], dataset.NAME, data.sha256, count)
    metrics.BARS_IMPORTED.labels(dataset.SOURCE).inc(count)
    log.info("history imported", dataset=dataset.NAME, bars=count)
    return count


async def _splits(connection: Connection) -> dict[str, tuple[Split, ...]]:
    rows = await connection.fetch(SQL["select_splits"])
    return {
        symbol: tuple(Split(row["day"], row["ratio"]) for row in group)
        for symbol, group in groupby(rows, key=lambda row: str(row["symbol"]))
    }


def _bar(row: asyncpg.Record) -> DailyBar:
    return DailyBar(
        row["day"],
        row["open"],
        row["high"],
        row["low"],
        row["close"],
        row["volume"],
        row["adjusted_close"],
    )


def _listing(rows: Sequence[asyncpg.Record], splits: tuple[Split, ...]) -> Listing:
    newest = rows[0]
    return Listing(
        symbol=newest["symbol"],
        name=newest["name"],
        exchange=newest["exchange"],
        currency=newest["currency"],
        source=newest["source"],
        first_day=newest["first_day"],
        newest=_bar(newest),
        previous=_bar(rows[1]) if len(rows) > 1 else None,
        splits=splits,
    )


def _replay_bar(row: asyncpg.Record, splits: tuple[Split, ...]) -> ReplayBar:
    before = row["previous_close"]
    if before is not None:
        before = restated(before, of=row["previous_day"], on=row["day"], splits=splits)
    return ReplayBar(row["symbol"], row["currency"], _bar(row), before)
