"""The Alpaca provider against a double of its API: the documented answers as quotes and bars."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from contracts.stocks import GetBars
from stock_data.cursors import Cursor
from stock_data.errors import NotEntitled, Undecided, UnknownSymbol
from stock_data.instruments import InstrumentIndex
from stock_data.market import Market
from stock_data.providers.alpaca import MOST_CALLS, AlpacaProvider
from stock_data.providers.failover import Failover
from stock_data.providers.provider import DailyBarsQuery
from support.alpaca_answers import QUERY, SNAPSHOTS, provider_of, soon
from support.doubles import alpaca as double
from support.doubles.alpaca import AlpacaDouble
from support.doubles.upstream import answer_json


async def test_a_snapshot_becomes_a_quote(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert [quote.price, quote.bid, quote.ask] == [11, Decimal("10.98"), Decimal("11.02")]
    assert [quote.open, quote.high, quote.low, quote.volume] == [10, 12, 9, 1000]
    assert [quote.previous_close, quote.change, quote.change_percent] == [10, 1, 10]
    assert quote.as_of == datetime(2024, 1, 3, 19, 59, 59, 123456, tzinfo=UTC)
    assert (quote.source, quote.simulated, quote.stale) == ("alpaca", False, True)
    assert upstream.seen[0].query["feed"] == "iex"


async def test_many_symbols_are_one_call(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    found = await provider.quotes(["IBM", "AAPL"], soon())
    assert set(found.quotes) == {"IBM", "AAPL"}
    assert found.quotes["IBM"].change == Decimal("2.25")
    await provider.quotes(["AAPL", "IBM"], soon())
    assert [seen.path for seen in upstream.seen] == [SNAPSHOTS, "/v1/corporate-actions", SNAPSHOTS]


async def test_prices_come_without_any_drift(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    upstream.snapshots["AAPL"] = double.snapshot(0.3, previous_close=0.1)
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert (quote.price, quote.change) == (Decimal("0.3"), Decimal("0.2"))


async def test_a_symbol_that_alpaca_does_not_have_is_left_out(provider: AlpacaProvider) -> None:
    assert set((await provider.quotes(["NOPE", "AAPL"], soon())).quotes) == {"AAPL"}


async def test_a_symbol_that_alpaca_refuses_does_not_fail_the_others(provider: AlpacaProvider) -> None:
    found = await provider.quotes(["AAPL", "^GSPC", "IBM", "EURUSD=X"], soon())
    assert set(found.quotes) == {"AAPL", "IBM"}


async def test_an_invalid_symbol_is_found_among_the_others(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    found = await provider.quotes(["AAPL", "A1", "IBM"], soon())
    assert (set(found.quotes), found.errors) == ({"AAPL", "IBM"}, {})


async def test_many_invalid_symbols_cost_a_bounded_number_of_calls(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    found = await provider.quotes([*(f"A{number}" for number in range(199)), "AAPL"], soon())
    assert (found.quotes, len(upstream.seen)) == ({}, MOST_CALLS)
    assert len(found.rejected) + len(found.errors) == 200
    assert {type(error) for error in found.errors.values()} == {Undecided}


async def test_an_invalid_symbol_costs_one_call_if_it_is_named_and_one_for_each_halving_else(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    symbols = [f"{a}{b}" for a in "ABCDEFGHIJ" for b in "ABCDEFGHIJKLMNOPQRST"]
    for names_it, most in ((True, 2), (False, 17)):
        upstream.names_invalid, upstream.seen = names_it, []
        found = await provider.quotes([*symbols[:77], "A1", *symbols[78:]], soon())
        assert (found.errors, list(found.rejected)) == ({}, ["A1"])
        assert len([seen for seen in upstream.seen if seen.path == SNAPSHOTS]) <= most


@pytest.mark.parametrize("snapshot", [None, {}, {"latestTrade": None, "dailyBar": None}])
async def test_a_symbol_without_any_price_is_left_out(
    provider: AlpacaProvider, upstream: AlpacaDouble, snapshot: dict[str, Any] | None
) -> None:
    upstream.snapshots["AAPL"] = snapshot
    assert not (await provider.quotes(["AAPL"], soon())).quotes


async def test_without_a_trade_the_newest_close_counts(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.snapshots["AAPL"] = {**double.snapshot(11), "latestTrade": None, "latestQuote": None}
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert [quote.price, quote.bid] == [11, None]
    assert quote.as_of == datetime(2024, 1, 3, 21, tzinfo=UTC)


async def test_a_missing_bid_is_none_and_not_zero(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    upstream.snapshots["AAPL"] = {**double.snapshot(11), "latestQuote": {"bp": 0, "ap": 11.5}}
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert (quote.bid, quote.ask) == (None, Decimal("11.5"))


async def test_the_delayed_feed_says_so(upstream: AlpacaDouble) -> None:
    provider = provider_of(upstream.url, feed="delayed_sip")
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    await provider.close()
    assert quote.delayed_by_s == 900


async def test_bars_come_at_midnight_of_their_day(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    page = await provider.bars(QUERY, soon())
    assert [bar.t for bar in page.data] == [datetime(2024, 1, day, tzinfo=UTC) for day in range(2, 12)]
    assert [page.data[0].o, page.data[0].h, page.data[0].l, page.data[0].c] == [10, 12, 9, 11]
    assert not page.has_more
    assert upstream.seen[0].query == {
        "timeframe": "1Day",
        "adjustment": "raw",
        "feed": "iex",
        "limit": "100",
        "start": "2024-01-01",
        "end": "2024-01-31",
    }


async def test_the_pages_of_alpaca_are_joined(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    upstream.page_size = 3
    page = await provider.bars(QUERY, soon())
    assert [bar.v for bar in page.data] == list(range(2, 12))
    assert [seen.query["limit"] for seen in upstream.seen] == ["100", "97", "94", "91"]


async def test_the_limit_ends_the_paging(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    upstream.page_size = 3
    page = await provider.bars(DailyBarsQuery("AAPL", "split", 5), soon())
    assert [bar.v for bar in page.data] == [2, 3, 4, 5, 6]
    assert page.has_more
    assert [seen.query["limit"] for seen in upstream.seen] == ["5", "2"]
    assert upstream.seen[0].query["adjustment"] == "split"


async def test_an_empty_page_on_the_way_is_passed_over(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.script.append(
        answer_json({"bars": None, "symbol": "AAPL", "next_page_token": "MjAyNC0wMS0wNQ=="})
    )
    page = await provider.bars(QUERY, soon())
    assert [bar.v for bar in page.data] == list(range(5, 12))


async def test_a_range_without_a_trading_day_is_empty(provider: AlpacaProvider) -> None:
    page = await provider.bars(
        DailyBarsQuery("AAPL", "raw", 10, date(2024, 1, 13), date(2024, 1, 14)), soon()
    )
    assert (page.data, page.has_more) == ([], False)


@pytest.mark.parametrize("symbol", ["NOPE", "^GSPC"])
async def test_bars_of_an_unknown_symbol_are_not_found(provider: AlpacaProvider, symbol: str) -> None:
    with pytest.raises(UnknownSymbol):
        await provider.bars(DailyBarsQuery(symbol, "raw", 10), soon())


async def test_years_before_alpaca_are_empty_and_cost_no_call(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    page = await provider.bars(DailyBarsQuery("AAPL", "raw", 10, end=date(2013, 3, 1)), soon())
    assert (page.data, page.has_more, page.coverage.first) == ([], False, date(2016, 1, 1))
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("start", "end", "warning"),
    [
        (None, date.min, "before 2016-01-01"),
        (date.min, date(2015, 12, 31), "before 2016-01-01"),
        (date(2024, 1, 13), date(2024, 1, 14), "in this range"),
        (date(9999, 12, 31), None, "in this range"),
        (date(2190, 1, 1), date.max, "in this range"),
    ],
)
async def test_a_range_that_no_history_has_is_empty_and_no_failure(
    provider: AlpacaProvider, start: date | None, end: date | None, warning: str
) -> None:
    for cursor in (None, Cursor("alpaca", "AAPL", "raw", date.max).encode()):
        market = Market(Failover([provider]), InstrumentIndex())
        found = await market.bars(GetBars(symbol="AAPL", start=start, end=end, cursor=cursor), soon())
        assert (found.data, found.source, found.next_cursor) == ([], "alpaca", None)
        assert cursor or warning in found.warnings[-1]


async def test_a_symbol_that_nobody_has_is_unknown_also_in_the_future(provider: AlpacaProvider) -> None:
    with pytest.raises(UnknownSymbol):
        await provider.bars(DailyBarsQuery("NOPE", "raw", 10, date(9999, 12, 31)), soon())


async def test_alpaca_has_no_search(provider: AlpacaProvider) -> None:
    with pytest.raises(NotEntitled):
        await provider.search("apple", 5, soon())
