"""Raw bars of an upstream that are stored: fetched once, without a gap, and answered from the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from prometheus_client import REGISTRY

from chassis import migrations
from chassis.deadlines import Deadline
from chassis.errors import DeadlineExceeded
from chassis.postgres import Postgres
from contracts.stocks import Adjustment, BackfillBars, Backfilled, Bar, Instrument
from native.postgres import PostgresServer
from stock_data import sessions
from stock_data.errors import BadData, HistoryFull, ProviderFailure, UnknownSymbol, UpstreamDown
from stock_data.history.kept_bars import KeptBars
from stock_data.instruments import InstrumentIndex
from stock_data.market import Market
from stock_data.providers.failover import Failover
from stock_data.providers.kept import KeptHistory
from stock_data.providers.provider import BarsPage, DailyBarsQuery, FoundQuotes

NOW = datetime(2024, 3, 11, 15, tzinfo=UTC)
PRICE = Decimal("101.2345")


def bars_of(start: date, end: date) -> list[Bar]:
    """Return a bar for each weekday, all with one price: each but the first repeats the one before."""
    days = [start + timedelta(days=n) for n in range((end - start).days + 1)]
    return [
        Bar(t=sessions.midnight(day), o=PRICE, h=PRICE, l=PRICE, c=PRICE, v=Decimal("7.5"))
        for day in days
        if day.weekday() < 5
    ]


class ListedUpstream:
    """An upstream that has traded since 2024, and remembers the days that were asked for."""

    name = "exchange"

    def __init__(self, *, page: int = 10_000) -> None:
        self.asked: list[tuple[str, str]] = []
        self.error: ProviderFailure | UnknownSymbol | None = None
        self.hangs = False
        self.newest = NOW.date()
        self.repeats_itself = False
        self._page = page

    async def bars(self, query: DailyBarsQuery, deadline: Deadline) -> BarsPage:
        self.asked.append((query.start.isoformat(), query.end.isoformat()))
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        first = date(2024, 1, 1) if self.repeats_itself else max(query.start, date(2024, 1, 1))
        found = bars_of(first, min(query.end, self.newest))
        page = found[: min(query.limit, self._page)]
        repeated = [bar.t for bar in page[1:]]
        return BarsPage(page, has_more=len(found) > len(page), as_of=NOW, currency="EUR", repeated=repeated)

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> FoundQuotes:
        return FoundQuotes()

    async def search(self, q: str, limit: int, deadline: Deadline) -> list[Instrument]:
        return []


@pytest.fixture(scope="module")
async def postgres(postgres_server: PostgresServer) -> AsyncIterator[Postgres]:
    async with AsyncExitStack() as stack:
        opened = Postgres(await postgres_server.create_database("test_kept_history"), size=4)
        await opened.open()
        stack.push_async_callback(opened.close)
        async with opened.connection() as connection:
            await migrations.migrate(connection, "stock_data")
        yield opened


@pytest.fixture
def exchange() -> ListedUpstream:
    return ListedUpstream()


@pytest.fixture
async def history(postgres: Postgres, exchange: ListedUpstream) -> KeptHistory:
    async with postgres.connection() as connection:
        await connection.execute("TRUNCATE kept_ranges, kept_bars, kept_owners")
    return KeptHistory(exchange, KeptBars(postgres, most=1000), clock=lambda: NOW)


async def fill(
    history: KeptHistory, start: str, end: str, *, within_s: float = 5, owner_id: str = "7"
) -> Backfilled:
    days = (date.fromisoformat(start), date.fromisoformat(end))
    return await history.backfill("AAPL", *days, Deadline.after(within_s), owner_id=owner_id)


async def read(
    history: KeptHistory, start: str, end: str, *, limit: int = 100, adjustment: Adjustment = "raw"
) -> BarsPage:
    days = (date.fromisoformat(start), date.fromisoformat(end))
    return await history.bars(DailyBarsQuery("AAPL", adjustment, limit, *days), Deadline.after(5))


async def test_bars_that_were_fetched_are_answered_from_the_database_unchanged(
    history: KeptHistory, exchange: ListedUpstream
) -> None:
    kept = await fill(history, "2024-01-01", "2024-01-31")
    assert kept == Backfilled(
        symbol="AAPL",
        source="exchange",
        currency="EUR",
        first=date(2024, 1, 1),
        last=date(2024, 1, 31),
        bars=23,
        written=23,
    )
    exchange.asked.clear()
    page = await read(history, "2024-01-02", "2024-01-12", limit=5)
    assert exchange.asked == []
    assert [bar.t.date().day for bar in page.data] == [2, 3, 4, 5, 8]
    assert (page.data[0].c, page.data[0].v, page.data[0].factor) == (PRICE, Decimal("7.5"), Decimal(1))
    assert (page.has_more, page.currency, len(page.repeated)) == (True, "EUR", 5)
    assert not (await read(history, "2024-01-08", "2024-01-12", limit=5)).has_more


@pytest.mark.parametrize(
    ("start", "end", "adjustment"),
    [
        ("2024-01-02", "2024-02-01", "raw"),
        ("2023-12-31", "2024-01-05", "raw"),
        ("2024-01-02", "2024-01-05", "split"),
    ],
)
async def test_a_range_that_is_not_stored_as_a_whole_is_fetched(
    history: KeptHistory, exchange: ListedUpstream, start: str, end: str, adjustment: Adjustment
) -> None:
    await fill(history, "2024-01-01", "2024-01-31")
    exchange.asked.clear()
    assert (await read(history, start, end, adjustment=adjustment)).data
    assert exchange.asked == [(start, end)]


async def test_only_the_missing_days_are_fetched_and_no_gap_is_left(
    history: KeptHistory, exchange: ListedUpstream
) -> None:
    await fill(history, "2024-01-10", "2024-01-20")
    exchange.asked.clear()
    assert (await fill(history, "2024-01-12", "2024-01-19")).written == 0
    assert exchange.asked == []
    kept = await fill(history, "2024-01-05", "2024-01-25")
    assert exchange.asked == [("2024-01-05", "2024-01-09"), ("2024-01-21", "2024-01-25")]
    assert (kept.first, kept.last, kept.bars, kept.written) == (date(2024, 1, 5), date(2024, 1, 25), 15, 7)
    exchange.asked.clear()
    apart = await fill(history, "2024-02-05", "2024-02-09")
    assert exchange.asked == [("2024-01-26", "2024-02-09")]
    assert (apart.last, apart.bars, apart.written) == (date(2024, 2, 9), 5, 11)


async def test_a_long_history_comes_in_pages(postgres: Postgres, history: KeptHistory) -> None:
    paged = ListedUpstream(page=7)
    kept = await fill(
        KeptHistory(paged, KeptBars(postgres, most=1000), clock=lambda: NOW), "2024-01-01", "2024-02-01"
    )
    assert (kept.written, len(paged.asked)) == (24, 4)


async def test_a_day_that_is_not_over_is_not_kept(history: KeptHistory) -> None:
    kept = await fill(history, "2024-03-01", "9999-12-31")
    assert (kept.last, kept.bars) == (date(2024, 3, 10), 6)
    nothing = await fill(history, "2024-03-11", "2024-03-12")
    assert (nothing.bars, nothing.written) == (0, 0)


async def test_two_fetches_at_the_same_time_store_every_bar_once(
    history: KeptHistory, postgres: Postgres
) -> None:
    filled = await asyncio.gather(*(fill(history, "2024-01-01", "2024-02-15") for _ in range(4)))
    assert {kept.bars for kept in filled} == {34}
    async with postgres.connection() as connection:
        assert await connection.fetchval("SELECT bars FROM kept_ranges") == 34
        assert await connection.fetchval("SELECT count(*) FROM kept_bars") == 34


async def test_a_long_page_from_the_database_is_read_in_a_thread_and_is_the_same(
    history: KeptHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(history, "2024-01-01", "2024-02-01")
    short = await read(history, "2024-01-01", "2024-02-01")
    before = REGISTRY.get_sample_value("tickwire_thread_wait_seconds_count") or 0
    monkeypatch.setattr("stock_data.history.kept_bars.INLINE_ROWS", len(short.data) - 1)
    assert await read(history, "2024-01-01", "2024-02-01") == short
    assert REGISTRY.get_sample_value("tickwire_thread_wait_seconds_count") == before + 1


async def test_no_more_bars_are_kept_than_are_allowed(postgres: Postgres, history: KeptHistory) -> None:
    await fill(history, "2024-01-01", "2024-01-31")
    full = KeptHistory(ListedUpstream(), KeptBars(postgres, most=23), clock=lambda: NOW)
    with pytest.raises(HistoryFull, match="23 bars are already stored"):
        await fill(full, "2024-01-01", "2024-02-29", owner_id="8")
    assert (await fill(full, "2024-01-01", "2024-01-31")).bars == 23


class TogetherUpstream(ListedUpstream):
    """An upstream that answers once so many have asked."""

    def __init__(self, parties: int) -> None:
        super().__init__()
        self._barrier = asyncio.Barrier(parties)

    async def bars(self, query: DailyBarsQuery, deadline: Deadline) -> BarsPage:
        await self._barrier.wait()
        return await super().bars(query, deadline)


@pytest.mark.parametrize(("owners", "most"), [(("8", "9", "10"), 60), (("8", "8"), 60)], ids=["all", "one"])
async def test_fetches_at_the_same_time_store_no_more_bars_than_are_allowed(
    postgres: Postgres, history: KeptHistory, owners: tuple[str, ...], most: int
) -> None:
    full = KeptHistory(TogetherUpstream(len(owners)), KeptBars(postgres, most=most), clock=lambda: NOW)
    days, deadline = (date(2024, 1, 1), date(2024, 1, 31)), Deadline.after(10)
    fetches = [
        full.backfill(f"SYM{number}", *days, deadline, owner_id=owner) for number, owner in enumerate(owners)
    ]
    ends = await asyncio.gather(*fetches, return_exceptions=True)
    refused = [end for end in ends if isinstance(end, HistoryFull)]
    assert (len(refused), "bars would be stored" in refused[0].detail) == (1, True)
    async with postgres.connection() as connection:
        stored = await connection.fetchval("SELECT count(*) FROM kept_bars")
        assert (
            stored == await connection.fetchval("SELECT sum(bars) FROM kept_ranges") == 23 * (len(ends) - 1)
        )


async def test_one_owner_fills_half_of_the_room_at_most(postgres: Postgres, history: KeptHistory) -> None:
    await fill(history, "2024-01-01", "2024-01-31")
    half_full = KeptHistory(ListedUpstream(), KeptBars(postgres, most=46), clock=lambda: NOW)
    with pytest.raises(HistoryFull, match="23 of them for you"):
        await fill(half_full, "2024-01-01", "2024-02-09")
    assert (await fill(half_full, "2024-01-01", "2024-02-09", owner_id="8")).written == 7


async def test_an_upstream_that_was_late_is_asked_again_for_the_days_after_its_newest_bar(
    history: KeptHistory, exchange: ListedUpstream
) -> None:
    exchange.newest = date(2024, 1, 25)
    late = await fill(history, "2024-01-22", "2024-01-31")
    assert (late.last, late.bars) == (date(2024, 1, 25), 4)
    exchange.asked.clear()
    assert (await fill(history, "2024-01-22", "2024-01-31")).last == date(2024, 1, 25)
    # Nor is the answer from the database while days of trading may be missing.
    assert len((await read(history, "2024-01-22", "2024-01-31")).data) == 4
    exchange.newest = NOW.date()
    assert len((await read(history, "2024-01-22", "2024-01-31")).data) == 8
    assert (await fill(history, "2024-01-22", "2024-01-31")).written == 4
    assert exchange.asked == [
        ("2024-01-26", "2024-01-31"),
        ("2024-01-22", "2024-01-31"),
        ("2024-01-22", "2024-01-31"),
        ("2024-01-26", "2024-01-31"),
    ]


async def test_a_weekend_after_the_newest_bar_is_final(
    history: KeptHistory, exchange: ListedUpstream
) -> None:
    # The Monday is a holiday; the days before it are, too.
    exchange.newest = date(2024, 2, 16)
    assert (await fill(history, "2024-02-12", "2024-02-19")).last == date(2024, 2, 19)
    exchange.asked.clear()
    await fill(history, "2024-02-12", "2024-02-19")
    assert (await read(history, "2024-02-12", "2024-02-19")).data
    assert exchange.asked == []


async def test_one_owner_does_not_keep_others_from_the_upstream(
    history: KeptHistory, exchange: ListedUpstream
) -> None:
    exchange.hangs = True
    hanging = [asyncio.create_task(fill(history, "2024-01-01", "2024-01-31")) for _ in range(10)]
    while len(exchange.asked) < 2:
        await asyncio.sleep(0)
    exchange.hangs = False
    other = await fill(history, "2024-01-01", "2024-01-31", within_s=2, owner_id="8")
    assert other.written == 23
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
    assert (await fill(history, "2024-01-01", "2024-01-31")).written == 0


async def test_an_upstream_that_begins_anew_with_each_page_is_not_followed(
    history: KeptHistory, postgres: Postgres
) -> None:
    paged = ListedUpstream(page=7)
    paged.repeats_itself = True
    endless = KeptHistory(paged, KeptBars(postgres, most=1000), clock=lambda: NOW)
    with pytest.raises(BadData):
        await fill(endless, "2024-01-01", "2024-02-01")
    assert len(paged.asked) == 2


async def test_an_upstream_that_hangs_is_given_up_and_nothing_is_kept(
    history: KeptHistory, exchange: ListedUpstream
) -> None:
    exchange.hangs = True
    with pytest.raises(DeadlineExceeded, match="did not arrive in time"):
        await fill(history, "2024-01-01", "2024-01-31", within_s=0.1)
    exchange.hangs = False
    assert (await fill(history, "2024-01-01", "2024-01-31")).written == 23


async def test_a_failure_of_the_upstream_is_the_answer(
    history: KeptHistory, exchange: ListedUpstream
) -> None:
    market = Market(Failover([history]), InstrumentIndex(), upstreams=[history])
    request = BackfillBars(symbol="aapl", start=date(2024, 1, 1), end=date(2024, 1, 5))
    for error in (UpstreamDown("away"), UnknownSymbol("AAPL")):
        exchange.error = error
        with pytest.raises(type(error)):
            await market.backfill(request, Deadline.after(5))
    exchange.error = None
    assert (await market.backfill(request, Deadline.after(5))).written == 5
