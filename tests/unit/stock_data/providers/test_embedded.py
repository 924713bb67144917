"""The embedded provider: quotes and bars of the shipped history."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from chassis.deadlines import Deadline
from chassis.errors import DatabaseUnavailable
from contracts.stocks import Quote, StreamPosition
from stock_data.errors import UnknownSymbol, UpstreamDown
from stock_data.history.bars import DailyBar
from stock_data.instruments import InstrumentIndex
from stock_data.providers.embedded import EmbeddedProvider
from stock_data.providers.provider import DailyBarsQuery
from stock_data.replay.board import Board
from support.doubles.stock_history import daily, listing, split

NOW = datetime(2012, 5, 25, 15, tzinfo=UTC)
SOON = Deadline.after(3600)


class StoredHistory:
    """Bars in memory, with the signature of the repository."""

    def __init__(self, *bars: DailyBar) -> None:
        self.bars = bars
        self.is_away = False

    async def __call__(self, symbol: str, start: date, end: date, *, limit: int) -> list[DailyBar]:
        if self.is_away:
            raise DatabaseUnavailable("away", retry_after_s=2)
        return [bar for bar in self.bars if start <= bar.day <= end][:limit]


class EmbeddedBench:
    def __init__(self) -> None:
        acme = listing(
            newest=daily("2012-05-18", "11", adjusted="11"),
            splits=(split("2012-05-17"),),
            first_day=date(2012, 5, 15),
        )
        self.board = Board(stale_after_s=10)
        self.index = InstrumentIndex()
        self.index.fill([acme])
        self.history = StoredHistory(
            daily("2012-05-15", "20", volume=100, adjusted="9.5"),
            daily("2012-05-16", "20", volume=100, adjusted="10"),
            daily("2012-05-17", "10", volume=200, adjusted="10"),
            acme.newest,
        )
        self.provider = EmbeddedProvider(
            index=self.index, board=self.board, history=self.history, clock=lambda: NOW
        )


@pytest.fixture
def bench() -> EmbeddedBench:
    return EmbeddedBench()


async def test_the_last_value_of_the_feed_is_the_quote(bench: EmbeddedBench) -> None:
    tick = Quote(
        symbol="ACME",
        price=Decimal("10.50"),
        as_of=NOW,
        source="replay",
        simulated=True,
        stream=StreamPosition(epoch="1", offset=1),
    )
    bench.board.put([tick])
    found = await bench.provider.quotes(["ACME"], SOON)
    assert found.quotes == {"ACME": tick}


async def test_without_a_feed_the_newest_bar_is_the_quote(bench: EmbeddedBench) -> None:
    found = await bench.provider.quotes(["ACME", "NOPE"], SOON)
    assert list(found.quotes) == ["ACME"]
    assert found.quotes["ACME"].price == 11
    assert found.quotes["ACME"].stale


async def test_raw_bars_are_as_they_were_traded(bench: EmbeddedBench) -> None:
    page = await bench.provider.bars(DailyBarsQuery("ACME", "raw", 10), SOON)
    assert [bar.c for bar in page.data] == [20, 20, 10, 11]
    assert {bar.factor for bar in page.data} == {1}
    assert page.data[0].t == datetime(2012, 5, 15, tzinfo=UTC)
    assert not page.has_more


async def test_a_split_halves_the_price_before_it_and_doubles_the_volume(bench: EmbeddedBench) -> None:
    page = await bench.provider.bars(DailyBarsQuery("ACME", "split", 10), SOON)
    assert [bar.c for bar in page.data] == [10, 10, 10, 11]
    assert [bar.v for bar in page.data] == [200, 200, 200, 1000]
    assert [bar.factor for bar in page.data] == [Decimal("0.5"), Decimal("0.5"), 1, 1]


async def test_dividends_can_be_adjusted_for_alone_or_with_the_splits(bench: EmbeddedBench) -> None:
    alone = await bench.provider.bars(DailyBarsQuery("ACME", "dividend", 10), SOON)
    both = await bench.provider.bars(DailyBarsQuery("ACME", "all", 10), SOON)
    assert [bar.c for bar in alone.data] == [19, 20, 10, 11]
    assert [bar.v for bar in alone.data] == [100, 100, 200, 1000]
    assert [bar.c for bar in both.data] == [Decimal("9.5"), 10, 10, 11]


async def test_a_full_page_says_that_there_is_more(bench: EmbeddedBench) -> None:
    page = await bench.provider.bars(DailyBarsQuery("ACME", "raw", 2, start=date(2012, 5, 16)), SOON)
    assert [bar.c for bar in page.data] == [20, 10]
    assert page.has_more
    rest = await bench.provider.bars(DailyBarsQuery("ACME", "raw", 1, start=date(2012, 5, 18)), SOON)
    assert [bar.c for bar in rest.data] == [11]
    assert not rest.has_more


async def test_a_page_tells_the_days_of_the_history_and_the_bars_that_repeat_the_one_before(
    bench: EmbeddedBench,
) -> None:
    bench.history.bars = (bench.history.bars[0], replace(bench.history.bars[1], is_repeated=True))
    page = await bench.provider.bars(DailyBarsQuery("ACME", "all", 10), SOON)
    assert page.repeated == [datetime(2012, 5, 16, tzinfo=UTC)]
    assert (page.coverage.first, page.coverage.last) == (date(2012, 5, 15), date(2012, 5, 18))


async def test_a_volume_keeps_its_fraction_through_a_split(bench: EmbeddedBench) -> None:
    bench.history.bars = (daily("2012-05-15", "20", volume=Decimal("100.25"), adjusted="9.5"),)
    page = await bench.provider.bars(DailyBarsQuery("ACME", "split", 10), SOON)
    assert page.data[0].v == Decimal("200.5")


async def test_history_is_stale_only_for_days_after_its_end(bench: EmbeddedBench) -> None:
    inside = await bench.provider.bars(DailyBarsQuery("ACME", "raw", 2, end=date(2012, 5, 18)), SOON)
    beyond = await bench.provider.bars(DailyBarsQuery("ACME", "raw", 2), SOON)
    assert (inside.stale, beyond.stale) == (False, True)
    assert beyond.as_of == datetime(2012, 5, 18, 20, tzinfo=UTC)


async def test_a_long_page_is_the_same_as_a_short_one(
    bench: EmbeddedBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = await bench.provider.bars(DailyBarsQuery("ACME", "all", 10), SOON)
    monkeypatch.setattr("stock_data.providers.embedded.INLINE_ROWS", 1)
    assert await bench.provider.bars(DailyBarsQuery("ACME", "all", 10), SOON) == short


async def test_bars_of_an_unknown_symbol_are_not_found(bench: EmbeddedBench) -> None:
    with pytest.raises(UnknownSymbol) as caught:
        await bench.provider.bars(DailyBarsQuery("NOPE", "raw", 10), SOON)
    assert (caught.value.code, caught.value.status) == ("unknown-symbol", 404)


async def test_without_a_database_quotes_go_on_and_bars_are_down(bench: EmbeddedBench) -> None:
    bench.history.is_away = True
    with pytest.raises(UpstreamDown) as caught:
        await bench.provider.bars(DailyBarsQuery("ACME", "raw", 10), SOON)
    assert (caught.value.retryable, caught.value.retry_after_s) == (True, 2)
    assert (await bench.provider.quotes(["ACME"], SOON)).quotes


async def test_search_tells_the_days_of_the_history(bench: EmbeddedBench) -> None:
    found = await bench.provider.search("acme", 5, SOON)
    assert [(each.symbol, each.first_bar, each.last_bar) for each in found] == [
        ("ACME", date(2012, 5, 15), date(2012, 5, 18))
    ]
