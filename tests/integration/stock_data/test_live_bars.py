"""Bars of the current minute on real servers: built by the one replica that feeds, and by its successor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from contracts.stocks import LiveBar, Quote
from support.stock_stack import DAYS_OF_A_SECOND, StockStack, hearing_bars
from support.waiting import until


@pytest.fixture
async def bars(broker_url: str) -> AsyncIterator[list[LiveBar]]:
    async with hearing_bars(broker_url) as heard:
        yield heard


def of(bars: list[LiveBar], symbol: str, epoch: str) -> list[LiveBar]:
    return [bar for bar in bars if bar.symbol == symbol and bar.stream.epoch == epoch]


async def test_bars_of_two_replicas_come_from_the_one_that_feeds_and_fit_its_ticks(
    bench: StockStack, bars: list[LiveBar], ticks: list[Quote]
) -> None:
    for _ in range(2):
        await bench.run(replay_enabled=True, **DAYS_OF_A_SECOND)
    await until(lambda: len([bar for bar in bars if bar.symbol == "AAPL"]) >= 4)
    [epoch] = {bar.stream.epoch for bar in bars}
    apple = of(bars, "AAPL", epoch)
    assert [bar.stream.offset for bar in apple] == list(range(1, len(apple) + 1))
    bar = apple[3]
    await until(lambda: any(tick.as_of >= bar.as_of for tick in ticks))
    within = [tick for tick in ticks if tick.symbol == "AAPL" and bar.t <= tick.as_of <= bar.as_of]
    prices = [tick.price for tick in within]
    assert (bar.o, bar.h, bar.l, bar.c) == (prices[0], max(prices), min(prices), prices[-1])
    assert bar.ticks == len(within)
    assert bar.source == "replay"


async def test_a_successor_marks_the_bar_whose_beginning_it_has_not_seen(
    bench: StockStack, bars: list[LiveBar]
) -> None:
    # A term that began with a minute would have seen all of it.
    if not 2 <= (second := datetime.now(UTC).second) < 50:
        await asyncio.sleep((62 - second) % 60)
    async with bench.running(replay_enabled=True, **DAYS_OF_A_SECOND):
        await until(lambda: bars)
    first = bars[-1].stream.epoch
    async with bench.running(replay_enabled=True, **DAYS_OF_A_SECOND):
        await until(lambda: bars[-1].stream.epoch != first)
    later = of(bars, "AAPL", bars[-1].stream.epoch)
    assert int(later[0].stream.epoch) > int(first)
    assert later[0].partial
