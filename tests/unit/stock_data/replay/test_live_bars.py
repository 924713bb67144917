"""When the bars of the current minute are published: with a tick, at the end of the minute, seldom enough."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from chassis.broker.envelope import Outgoing
from contracts.stocks import BarsTicked, LiveBar, Quote
from stock_data.replay.live_bars import LiveBars
from stock_data.replay.term import Term
from support.background import in_background
from support.waiting import until

NOON = datetime(2026, 1, 5, 17, 0, tzinfo=UTC)


class BarWire:
    """Takes what is published; its clock stands still until it is set."""

    def __init__(self) -> None:
        self.sent: list[list[LiveBar]] = []
        self.now = NOON
        self.bars = LiveBars(self.send, clock=lambda: self.now)
        self.bars.begin(Term(7, None))

    async def send(self, message: Outgoing) -> None:
        self.sent.append(BarsTicked.model_validate_json(message.body).bars)

    def running(self) -> AbstractAsyncContextManager[None]:
        return in_background(self.bars.run())

    def tick(self, price: int) -> None:
        quote = Quote(symbol="ACME", price=Decimal(price), as_of=self.now, source="replay", replayed=NOON)
        self.bars.take([quote])


@pytest.fixture
async def wire() -> AsyncIterator[BarWire]:
    made = BarWire()
    async with made.running():
        yield made


async def test_a_bar_is_published_in_the_turns_of_the_loop_that_follow_its_tick(wire: BarWire) -> None:
    wire.tick(10)
    for _ in range(10):
        await asyncio.sleep(0)
    assert [[(bar.c, bar.ticks) for bar in bars] for bars in wire.sent] == [[(Decimal(10), 1)]]


async def test_ticks_that_follow_soon_are_published_together(wire: BarWire) -> None:
    wire.tick(10)
    await until(lambda: wire.sent)
    for price in (11, 12, 13):
        wire.tick(price)
        await asyncio.sleep(0)
    await until(lambda: len(wire.sent) > 1)
    assert [(bar.c, bar.ticks) for bar in wire.sent[1]] == [(Decimal(13), 4)]


async def test_a_bar_closes_with_its_minute_even_without_another_tick() -> None:
    wire = BarWire()
    wire.now = NOON + timedelta(seconds=59.9)
    async with wire.running():
        wire.tick(10)
        await until(lambda: wire.sent)
        wire.now = NOON + timedelta(seconds=60)
        await until(lambda: len(wire.sent) > 1)
    assert [[bar.closed for bar in bars] for bars in wire.sent] == [[False], [True]]
