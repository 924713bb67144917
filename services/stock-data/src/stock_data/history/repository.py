"""The database of stock-data: its history, instruments and splits."""

from __future__ import annotations

import io
from datetime import date
from itertools import groupby

import asyncpg

from chassis import logging, metrics, queries
from chassis.postgres import Connection, Postgres, affected_rows
from stock_data import quotes
from stock_data.history import dataset
from stock_data.history.bars import DailyBar, Listing, Split
from stock_data.history.dataset import Dataset
from stock_data.replay.board import ReplayPosition
from stock_data.replay.leadership import Term
from stock_data.replay.ticks import ReplayBar

log = logging.get(__name__)

_SQL = queries.of("stock_data")

_IMPORT_TIMEOUT_S = 60


class Repository:
    """Reads bars and instruments, and imports history. Every method may raise `DatabaseUnavailable`."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def bars(self, symbol: str, start: date, end: date, *, limit: int) -> list[DailyBar]:
        """Return the first `limit` bars of the days `start` to `end`, oldest first."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(_SQL["select_bars"], symbol, start, end, limit)
        return [_bar(row) for row in rows]

    async def listings(self) -> list[Listing]:
        """Return every instrument that has bars, by symbol."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(_SQL["select_listings"])
            splits = await _splits(connection)
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
                    newest=_bar(newest),
                    previous=_bar(before[0]) if before else None,
                    splits=splits.get(symbol, ()),
                )
            )
        return found

    async def days(self, day: date, count: int) -> list[list[ReplayBar]]:
        """Return the bars of the first `count` trading days from `day` on, one list a day, by symbol."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(_SQL["select_days"], day, count)
            splits = await _splits(connection)
        bars: list[ReplayBar] = []
        for row in rows:
            closes = {row["previous_day"]: row["previous_close"]} if row["previous_day"] else {}
            before = quotes.previous_close(row["day"], closes, splits.get(row["symbol"], ()))
            bars.append(ReplayBar(row["symbol"], row["currency"], _bar(row), before))
        return [list(group) for _, group in groupby(bars, key=lambda each: each.bar.day)]

    async def last_term(self, start_day: date) -> Term | None:
        """Return the last leader's number and position, if it replayed from `start_day`."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(_SQL["select_replay"], start_day)
        if row is None:
            return None
        return Term(row["term"], ReplayPosition(row["replayed"], row["shown_at"]))

    async def import_dataset(self, data: Dataset) -> int:
        """Import the embedded history into the database once, and return how many bars were written."""
        splits = [(company.symbol, split) for company in dataset.COMPANIES for split in company.splits]
        async with self._postgres.transaction() as connection:
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
        metrics.BARS_IMPORTED.labels(dataset.SOURCE).inc(count)
        log.info("history imported", dataset=dataset.NAME, bars=count)
        return count


async def _splits(connection: Connection) -> dict[str, tuple[Split, ...]]:
    rows = await connection.fetch(_SQL["select_splits"])
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
        row["is_repeated"],
    )
