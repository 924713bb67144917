"""Answers of Alpaca that do not fit the request, judged element by element."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from stock_data.errors import BadData
from stock_data.providers.alpaca import AlpacaProvider
from support.alpaca_answers import EMPTY_WITH_MORE, QUERY, TRADED_AT, soon
from support.doubles import alpaca as double
from support.doubles.alpaca import AlpacaDouble
from support.doubles.upstream import answer_json


async def test_pages_that_never_end_are_bad_data(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    upstream.always = EMPTY_WITH_MORE
    with pytest.raises(BadData, match="do not end"):
        await provider.bars(QUERY, soon())
    assert len(upstream.seen) == 2


@pytest.mark.parametrize(
    "snapshot",
    [
        {"latestTrade": {"t": TRADED_AT, "p": "eleven"}},
        {"latestTrade": {"t": TRADED_AT, "p": -1}},
        {"latestTrade": {"t": "yesterday", "p": 11}},
        {"latestTrade": {"t": "2024-01-03T19:59:59", "p": 11}},
        {"latestTrade": []},
        *({"latestTrade": {"t": TRADED_AT, "p": price}} for price in ("1e999999", "1e-999999", "9" * 41)),
        {"dailyBar": {"c": 11}},
        "AAPL",
    ],
)
async def test_a_snapshot_of_another_shape_is_bad_data_of_that_symbol_alone(
    provider: AlpacaProvider, upstream: AlpacaDouble, snapshot: Any
) -> None:
    upstream.snapshots["AAPL"] = snapshot
    found = await provider.quotes(["AAPL", "IBM"], soon())
    assert set(found.quotes) == {"IBM"}
    assert {symbol: type(error) for symbol, error in found.errors.items()} == {"AAPL": BadData}


@pytest.mark.parametrize("answer", [[], "AAPL", 1, None])
async def test_snapshots_that_are_no_object_are_bad_data_of_all(
    provider: AlpacaProvider, upstream: AlpacaDouble, answer: Any
) -> None:
    upstream.always = answer_json(answer)
    with pytest.raises(BadData):
        await provider.quotes(["AAPL", "IBM"], soon())


async def test_a_quote_of_another_symbol_than_asked_for_is_bad_data(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    answer = answer_json({"IBM": double.snapshot(11), "MSFT": double.snapshot(12)})
    upstream.script.append(answer)
    found = await provider.quotes(["AAPL", "IBM"], soon())
    assert set(found.quotes) == {"IBM"}
    assert found.errors["AAPL"].detail == "Alpaca answers with 'MSFT' instead of AAPL."


async def test_bars_of_another_symbol_than_asked_for_are_bad_data(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.always = answer_json({"bars": [double.bar("2024-01-02")], "symbol": "IBM"})
    with pytest.raises(BadData, match="'IBM' instead of AAPL"):
        await provider.bars(QUERY, soon())


@pytest.mark.parametrize("day", ["2023-12-29", "2024-02-01"])
async def test_bars_of_other_days_than_asked_for_are_bad_data(
    provider: AlpacaProvider, upstream: AlpacaDouble, day: str
) -> None:
    days = sorted([day, "2024-01-02"])
    upstream.always = answer_json({"bars": [double.bar(each) for each in days], "symbol": "AAPL"})
    with pytest.raises(BadData, match="beyond the requested days"):
        await provider.bars(QUERY, soon())


async def test_volumes_keep_their_fractions(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    upstream.bars["AAPL"] = [double.bar("2024-01-02", v=1000.125)]
    upstream.snapshots["AAPL"] = {**double.snapshot(11), "dailyBar": double.bar("2024-01-03", v=0.5)}
    assert (await provider.bars(QUERY, soon())).data[0].v == Decimal("1000.125")
    assert (await provider.quotes(["AAPL"], soon())).quotes["AAPL"].volume == Decimal("0.5")


async def test_a_bar_that_equals_the_one_before_is_marked(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.bars["AAPL"] = [
        double.bar(f"2024-01-{day:02}", v=day, h=12 if day < 5 else 13) for day in (3, 4, 5)
    ]
    page = await provider.bars(QUERY, soon())
    assert page.repeated == [datetime(2024, 1, 4, tzinfo=UTC)]


async def test_an_answer_longer_than_its_request_needs_is_refused(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.always = answer_json({f"S{number}": double.snapshot(11) for number in range(100)})
    with pytest.raises(BadData, match="longer than 16384 bytes"):
        await provider.quotes(["S1"], soon())
    found = await provider.quotes([f"S{number}" for number in range(100)], soon())
    assert len(found.quotes) == 100
