"""A provider of market data that answers, fails or hangs as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from chassis.deadlines import Deadline
from contracts.stocks import Instrument, Quote
from stock_data.providers.provider import BarsPage, BarsQuery, Found

NOW = datetime(2026, 1, 5, 15, tzinfo=UTC)


class Scripted:
    """A provider that answers, or fails with `error`, or hangs."""

    def __init__(self, name: str, error: Exception | None = None, *, hangs: bool = False) -> None:
        self.name = name
        self.error = error
        self.hangs = hangs
        self.asked = 0

    async def _decide(self) -> None:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> Found:
        await self._decide()
        return Found({s: Quote(symbol=s, price=Decimal(1), as_of=NOW, source=self.name) for s in symbols})

    async def bars(self, query: BarsQuery, deadline: Deadline) -> BarsPage:
        await self._decide()
        return BarsPage([], has_more=False, as_of=NOW)

    async def search(self, q: str, limit: int, deadline: Deadline) -> list[Instrument]:
        await self._decide()
        return [Instrument(symbol=self.name.upper(), name=self.name, exchange="X")]
