"""The shipped history on a real PostgreSQL: imported once, and read and replayed exactly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date
from decimal import Decimal

import asyncpg
import pytest

from chassis import migrations
from chassis.postgres import Postgres
from native.postgres import PostgresServer
from stock_data.history import dataset
from stock_data.history.shipped import ShippedHistory
from stock_data.replay import repository as replays
from stock_data.replay.ticks import ReplayBar
from support.databases import FreshDatabase


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Postgres]:
    postgres = Postgres(dsn, size=4)
    await postgres.open()
    try:
        yield postgres
    finally:
        await postgres.close()


async def migrated(dsn: str, stack: AsyncExitStack) -> Postgres:
    postgres = await stack.enter_async_context(connected(dsn))
    async with postgres.connection() as connection:
        await migrations.migrate(connection, "stock_data")
    return postgres


@pytest.fixture
async def empty(fresh_database: FreshDatabase) -> AsyncIterator[Postgres]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(connected(await fresh_database("stock_data")))


@pytest.fixture(scope="module")
async def filled(postgres_server: PostgresServer) -> AsyncIterator[Postgres]:
    """Yield a database with the history, for the tests that only read."""
    async with AsyncExitStack() as stack:
        postgres = await migrated(await postgres_server.create_database("test_stock_history"), stack)
        await ShippedHistory(postgres).import_dataset(dataset.read())
        yield postgres


@pytest.fixture
def history(filled: Postgres) -> ShippedHistory:
    return ShippedHistory(filled)


async def days(postgres: Postgres, first: date, count: int) -> list[list[ReplayBar]]:
    async with postgres.connection() as connection:
        return await replays.find_days(connection, first, count)


async def test_the_history_is_imported_once(empty: Postgres) -> None:
    history = ShippedHistory(empty)
    assert await history.import_dataset(dataset.read()) == 12_154
    assert await history.import_dataset(dataset.read()) == 0
    async with empty.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM bars") == 12_154
        assert await connection.fetchval("SELECT bars FROM imports WHERE name = $1", dataset.NAME) == 12_154


async def test_replicas_that_start_together_import_it_once(fresh_database: FreshDatabase) -> None:
    dsn = await fresh_database()
    async with AsyncExitStack() as stack:
        replicas = await asyncio.gather(*(migrated(dsn, stack) for _ in range(3)))
        counts = await asyncio.gather(
            *(ShippedHistory(each).import_dataset(dataset.read()) for each in replicas)
        )
    assert sorted(counts) == [0, 0, 12_154]


async def test_an_import_that_breaks_off_leaves_nothing(empty: Postgres) -> None:
    history, whole = ShippedHistory(empty), dataset.read()
    broken = dataset.Dataset(whole.csv + b"AAPL,2013-03-04,10,9,8,9.5,1,9\n", whole.sha256)
    with pytest.raises(asyncpg.CheckViolationError):
        await history.import_dataset(broken)
    assert await history.listings() == []
    assert await history.import_dataset(whole) == 12_154


async def test_prices_are_exact(history: ShippedHistory) -> None:
    bars = await history.bars("AAPL", date(2003, 4, 2), date(2003, 4, 2), limit=10)
    assert [str(bars[0].low), str(bars[0].adjusted_close)] == ["14.2675", "0.93815174484906"]
    assert [bars[0].open, bars[0].volume] == [Decimal("14.36"), 3_060_200]


async def test_bars_come_in_order_within_their_range(history: ShippedHistory) -> None:
    bars = await history.bars("MSFT", date(2003, 2, 14), date(2003, 2, 19), limit=10)
    assert [bar.day.isoformat() for bar in bars] == ["2003-02-14", "2003-02-18", "2003-02-19"]
    assert len(await history.bars("MSFT", date.min, date.max, limit=2)) == 2
    assert len(await history.bars("MSFT", date.min, date.max, limit=10_000)) == 3270


async def test_bars_lie_in_the_partition_of_their_year(filled: Postgres) -> None:
    async with filled.connection() as connection:
        count = await connection.fetchval("SELECT count(*) FROM bars_2005")
        elsewhere = await connection.fetchval("SELECT count(*) FROM bars_other")
    assert (count, elsewhere) == (252 * 4, 0)


async def test_listings_know_names_splits_and_newest_bars(history: ShippedHistory) -> None:
    listings = {each.symbol: each for each in await history.listings()}
    assert list(listings) == ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
    apple = listings["AAPL"]
    assert (apple.name, apple.exchange, apple.currency) == ("Apple Inc.", "NASDAQ", "USD")
    assert apple.source == "embedded"
    assert [split.day.isoformat() for split in apple.splits] == ["2000-06-21", "2005-02-28"]
    assert {split.ratio for split in apple.splits} == {2}
    assert (apple.newest.day, apple.newest.close) == (date(2013, 3, 1), Decimal("430.47"))
    assert apple.previous is not None
    assert apple.previous.day == date(2013, 2, 28)
    assert listings["FB"].first_day == date(2012, 5, 18)


async def test_the_next_days_skip_those_without_trading(filled: Postgres) -> None:
    found = await days(filled, date(2012, 5, 26), 3)
    assert [{each.bar.day for each in day} for day in found] == [
        {date(2012, 5, 29)},
        {date(2012, 5, 30)},
        {date(2012, 5, 31)},
    ]
    assert [each.symbol for each in found[0]] == ["AAPL", "FB", "GOOG", "IBM", "MSFT"]


async def test_a_replayed_day_knows_the_close_before_in_its_own_shares(filled: Postgres) -> None:
    found = {each.symbol: each for each in (await days(filled, date(2005, 2, 28), 1))[0]}
    assert found["AAPL"].previous_close == Decimal("44.495")
    assert found["MSFT"].previous_close == Decimal("25.25")
    first = (await days(filled, date(2000, 1, 1), 1))[0]
    assert {each.previous_close for each in first} == {None}


async def test_no_day_follows_the_last_day_of_the_history(filled: Postgres) -> None:
    assert await days(filled, date(2013, 3, 2), 40) == []


async def test_a_bar_that_equals_the_one_before_is_marked_also_at_the_start_of_a_page(
    history: ShippedHistory,
) -> None:
    bars = await history.bars("AAPL", date(2003, 1, 27), date(2003, 1, 30), limit=10)
    assert [(bar.day.day, bar.is_repeated) for bar in bars] == [
        (27, False),
        (28, False),
        (29, True),
        (30, False),
    ]
    alone = await history.bars("AAPL", date(2003, 1, 29), date(2003, 1, 29), limit=10)
    assert [bar.is_repeated for bar in alone] == [True]
    first = await history.bars("AAPL", date.min, date.max, limit=1)
    assert [bar.is_repeated for bar in first] == [False]


async def test_a_volume_keeps_its_fraction(empty: Postgres) -> None:
    history = ShippedHistory(empty)
    await history.import_dataset(dataset.read())
    async with empty.connection() as connection:
        await connection.execute(
            "INSERT INTO bars (symbol, day, open, high, low, close, volume, volume_fraction) "
            "VALUES ('AAPL', '2013-03-04', 10, 10, 10, 10, 1000, 0.125)"
        )
    bars = await history.bars("AAPL", date(2013, 3, 4), date(2013, 3, 4), limit=1)
    assert bars[0].volume == Decimal("1000.125")


async def test_the_database_refuses_a_bar_that_contradicts_itself(filled: Postgres) -> None:
    async with filled.connection() as connection:
        for prices in ("10, 9, 8, 9", "10, 11, 10.5, 11", "10, 11, -1, 10"):
            with pytest.raises(asyncpg.CheckViolationError):
                await connection.execute(
                    "INSERT INTO bars (symbol, day, open, high, low, close, volume) "
                    f"VALUES ('AAPL', '2013-03-04', {prices}, 1)"
                )
