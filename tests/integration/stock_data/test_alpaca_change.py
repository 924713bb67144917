"""The change of a quote from Alpaca: from the close of the session before, and the splits between."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from chassis.deadlines import Deadline
from stock_data.errors import BadData
from stock_data.providers.alpaca import AlpacaProvider
from support.alpaca_answers import soon
from support.doubles import alpaca as double
from support.doubles import upstream as upstreams
from support.doubles.alpaca import AlpacaDouble
from support.doubles.upstream import UpstreamAnswer, answer_json

MONDAY_BEFORE_OPEN = "2024-06-10T08:15:00-04:00"
THURSDAY, FRIDAY, MONDAY = "2024-06-06", "2024-06-07", "2024-06-10"


def flat(day: str, price: Any) -> dict[str, Any]:
    return double.bar(day, o=price, h=price, l=price, c=price)


async def test_before_the_open_the_change_is_counted_from_the_last_close_and_the_day_is_empty(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    bars = {"dailyBar": flat(FRIDAY, 100), "prevDailyBar": flat(THURSDAY, 90)}
    upstream.snapshots["AAPL"] = double.snapshot(101, at=MONDAY_BEFORE_OPEN) | bars
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert [quote.previous_close, quote.change, quote.change_percent] == [100, 1, 1]
    assert [quote.open, quote.high, quote.low, quote.volume] == [None] * 4


async def test_on_a_sunday_the_change_is_the_one_of_friday(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    bars = {"dailyBar": flat(FRIDAY, 99), "prevDailyBar": flat(THURSDAY, 90)}
    upstream.snapshots["AAPL"] = double.snapshot(99, at="2024-06-07T18:00:00-04:00") | bars
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert [quote.previous_close, quote.change_percent, quote.open, quote.volume] == [90, 10, 99, 1000]


@pytest.mark.parametrize("symbol", ["AAPL", "IBM"])
async def test_a_split_overnight_is_no_change(
    provider: AlpacaProvider, upstream: AlpacaDouble, symbol: str
) -> None:
    bars = {"dailyBar": flat(MONDAY, 121.79), "prevDailyBar": flat(FRIDAY, 1208.88)}
    upstream.snapshots["AAPL"] = upstream.snapshots["IBM"] = (
        double.snapshot(121.79, at="2024-06-10T15:59:59-04:00") | bars
    )
    upstream.splits = [
        double.split("IBM", "2024-06-06", 4),
        double.split("AAPL", MONDAY, 10),
        double.split("IBM", MONDAY, 20, 2),
    ]
    upstream.page_size = 1
    quote = (await provider.quotes(["IBM", "AAPL"], soon())).quotes[symbol]
    assert [quote.previous_close, quote.change] == [Decimal("120.888"), Decimal("0.902")]
    assert quote.change_percent == Decimal("0.7461")


async def test_a_reverse_split_is_no_change_either(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    bars = {"dailyBar": flat(FRIDAY, 2), "prevDailyBar": flat(THURSDAY, 2)}
    upstream.snapshots["AAPL"] = double.snapshot(19, at=MONDAY_BEFORE_OPEN) | bars
    upstream.splits = [double.split("AAPL", MONDAY, 1, 10)]
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert [quote.previous_close, quote.change, quote.change_percent] == [20, -1, -5]


@pytest.mark.parametrize(
    "answer", [upstreams.BROKEN, double.NO_SUBSCRIPTION, answer_json({}), answer_json({"message": "no"}, 404)]
)
async def test_without_the_splits_a_quote_has_no_change_and_says_why(
    provider: AlpacaProvider, upstream: AlpacaDouble, answer: UpstreamAnswer
) -> None:
    upstream.actions_answer = answer
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert [quote.price, quote.previous_close, quote.change] == [11, None, None]
    assert quote.warnings == ["alpaca: the splits of the last days are unknown, so the change is missing"]
    asked = len(upstream.seen)
    await provider.quotes(["AAPL"], soon())
    assert len(upstream.seen) == asked + 1


async def test_a_caller_in_a_hurry_takes_the_change_from_nobody_else(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.actions_answer = replace(answer_json({}), delay_s=1)
    hurried = (await provider.quotes(["AAPL"], Deadline.after(0.9))).quotes["AAPL"]
    upstream.actions_answer = None
    other = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert (hurried.change, other.change is None) == (None, False)


@pytest.mark.parametrize(
    ("broken", "known"),
    [
        ({"symbol": "IBM", "ex_date": "2024-01-03", "new_rate": 0, "old_rate": 1}, {"AAPL"}),
        ({"new_rate": 2}, {"AAPL", "IBM"}),
    ],
)
async def test_a_split_that_cannot_be_read_leaves_only_its_symbol_without_a_change(
    provider: AlpacaProvider, upstream: AlpacaDouble, broken: dict[str, Any], known: set[str]
) -> None:
    splits = [broken, double.split("AAPL", "2024-01-03", 2)]
    upstream.actions_answer = answer_json({"corporate_actions": {"forward_splits": splits}})
    quotes = (await provider.quotes(["AAPL", "IBM"], soon())).quotes
    assert {symbol for symbol, quote in quotes.items() if quote.change is not None} == known
    assert len(quotes) == 2


async def test_a_close_that_is_not_of_the_session_before_is_not_compared_with(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    bars = {"dailyBar": flat(THURSDAY, 90), "prevDailyBar": flat("2024-06-05", 80)}
    upstream.snapshots["AAPL"] = double.snapshot(101, at=MONDAY_BEFORE_OPEN) | bars
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert [quote.previous_close, quote.change, quote.change_percent] == [None] * 3


@pytest.mark.parametrize("new_rate", [1e-20, 10**20 - 1, 1_000_001])
async def test_an_impossible_split_leaves_only_its_symbol_without_a_change(
    provider: AlpacaProvider, upstream: AlpacaDouble, new_rate: Any
) -> None:
    upstream.splits = [double.split("AAPL", "2024-01-03", new_rate)]
    quotes = (await provider.quotes(["AAPL", "IBM"], soon())).quotes
    assert [symbol for symbol, quote in quotes.items() if quote.change is None] == ["AAPL"]


async def test_a_split_that_is_listed_twice_counts_once(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.snapshots["AAPL"] = double.snapshot(11, previous_close=20)
    upstream.splits = [double.split("AAPL", "2024-01-03", 2)] * 2
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert [quote.previous_close, quote.change] == [10, 1]


@pytest.mark.parametrize(
    ("price", "before", "percent"),
    [
        (
            "99999999999999999999",
            "0.00000000000000000001",
            Decimal("999999999999999999989999999999999999999900"),
        ),
        ("0.00000000000000000001", "99999999999999999999", -100),
        ("1.00000000000000000001", "1", 0),
    ],
)
async def test_prices_of_any_size_have_a_change_and_harm_no_other_symbol(
    provider: AlpacaProvider, upstream: AlpacaDouble, price: str, before: str, percent: Decimal
) -> None:
    bars = {"dailyBar": None, "prevDailyBar": flat("2024-01-02", before)}
    upstream.snapshots["AAPL"] = double.snapshot(price) | bars
    quotes = (await provider.quotes(["AAPL", "IBM"], soon())).quotes
    assert quotes["AAPL"].change_percent == percent
    assert quotes["AAPL"].change == Fraction(price) - Fraction(before)
    assert quotes["IBM"].change is not None


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
async def test_a_time_at_the_end_of_the_calendar_is_bad_data(
    provider: AlpacaProvider, upstream: AlpacaDouble, at: str
) -> None:
    upstream.snapshots["AAPL"] = double.snapshot(11, at=at)
    assert isinstance((await provider.quotes(["AAPL"], soon())).errors["AAPL"], BadData)


async def test_a_trade_of_long_ago_takes_the_change_from_no_other_symbol(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.first_action_day = "2016-01-01"
    upstream.snapshots["OLD"] = double.snapshot(11, at="1970-01-05T20:00:00Z")
    quotes = (await provider.quotes(["AAPL", "OLD"], soon())).quotes
    assert {symbol: quote.change is None for symbol, quote in quotes.items()} == {"AAPL": False, "OLD": True}


async def test_a_trade_in_the_future_is_bad_data_of_its_symbol_alone(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.snapshots["LATE"] = double.snapshot(11, at="2199-01-03T19:59:59Z")
    found = await provider.quotes(["AAPL", "LATE"], soon())
    assert isinstance(found.errors["LATE"], BadData)
    assert found.quotes["AAPL"].change is not None
