"""A provider of market data that answers, fails or hangs as a test sets it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from chassis.deadlines import Deadline
from contracts.stocks import Bar, Instrument, Quote
from stock_data.errors import ProviderFailure, UnknownSymbol
from stock_data.providers.provider import BarsPage, DailyBarsQuery, FoundQuotes

NOW = datetime(2026, 1, 5, 15, tzinfo=UTC)


class Scripted:
    """A provider that answers, or fails with `error`, or hangs.

    It knows the symbols `knows` (all without it), fails for those of `bad`, and has `bars` bars of each.
    """

    def __init__(
        self,
        name: str,
        error: ProviderFailure | UnknownSymbol | None = None,
        *,
        hangs: bool = False,
        knows: Sequence[str] | None = None,
        bad: Mapping[str, ProviderFailure] | None = None,
        bars: int = 0,
    ) -> None:
        self.name = name
        self.error = error
        self.hangs = hangs
        self.knows = knows
        self.bad = bad or {}
        self.most_bars = bars
        self.asked = 0
        self.symbols: list[str] = []

    async def _decide(self) -> None:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> FoundQuotes:
        self.symbols = list(symbols)
        await self._decide()
        known = [s for s in symbols if (self.knows is None or s in self.knows) and s not in self.bad]
        quotes = {s: Quote(symbol=s, price=Decimal(1), as_of=NOW, source=self.name) for s in known}
        return FoundQuotes(quotes, {s: error for s, error in self.bad.items() if s in symbols})

    async def bars(self, query: DailyBarsQuery, deadline: Deadline) -> BarsPage:
        await self._decide()
        one = Decimal(1)
        data = [
            Bar(t=NOW + timedelta(days=n), o=one, h=one, l=one, c=one, v=one) for n in range(self.most_bars)
        ]
        return BarsPage(data, has_more=False, as_of=NOW)

    async def search(self, q: str, limit: int, deadline: Deadline) -> list[Instrument]:
        await self._decide()
        return [Instrument(symbol=self.name.upper(), name=self.name, exchange="X")]
