"""A provider that counts its calls, and a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from chassis.deadlines import Deadline
from contracts.stocks import Instrument, Quote
from stock_data.errors import ProviderFailure, UpstreamDown
from stock_data.providers.provider import BarsPage, DailyBarsQuery, FoundQuotes

NOW = datetime(2026, 1, 5, 15, tzinfo=UTC)


class Counting:
    """A provider that records its calls; it knows every symbol but NOPE."""

    name = "counting"
    outage = UpstreamDown("away")

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.error: Exception | None = None
        self.hangs = False
        self.bad: dict[str, ProviderFailure] = {}

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> FoundQuotes:
        self.asked.append(list(symbols))
        if self.hangs:
            await asyncio.sleep(0.1)
        if self.error is not None:
            raise self.error
        price = Decimal(len(self.asked))
        known = [symbol for symbol in symbols if symbol not in {"NOPE", *self.bad}]
        quotes = {s: Quote(symbol=s, price=price, as_of=NOW, source=self.name) for s in known}
        return FoundQuotes(quotes, {s: error for s, error in self.bad.items() if s in symbols})

    async def bars(self, query: DailyBarsQuery, deadline: Deadline) -> BarsPage:
        return BarsPage([], has_more=False, as_of=NOW)

    async def search(self, q: str, limit: int, deadline: Deadline) -> list[Instrument]:
        return []


class DateClock:
    now = NOW

    def __call__(self) -> datetime:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
