"""A short memory in front of a provider: many callers of one symbol cost one call of the quota."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from chassis.broker.coalescing import Coalescer
from chassis.deadlines import Deadline
from chassis.errors import DeadlineExceeded
from contracts.stocks import Instrument, Quote
from stock_data.errors import UnknownSymbol, UpstreamDown
from stock_data.providers.provider import BarsPage, BarsQuery, Found, Provider

_MOST_SYMBOLS = 5_000


class CachedQuotes:
    """`provider` with its quotes kept for `ttl_s` seconds; callers at the same moment share one call."""

    def __init__(
        self,
        provider: Provider,
        *,
        ttl_s: float,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._provider = provider
        self._ttl_s = ttl_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, Quote]] = OrderedDict()
        self._coalescer = Coalescer(f"{provider.name} quotes", self._fetch)

    @property
    def name(self) -> str:
        """The provider's own name."""
        return self._provider.name

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> Found:
        """The quotes that are fresh enough, and the provider's for the rest."""
        found = {symbol: quote for symbol in symbols if (quote := self._fresh(symbol)) is not None}
        missing = [symbol for symbol in symbols if symbol not in found]
        calls = (self._coalescer.get(symbol, deadline.remaining_s()) for symbol in missing)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for symbol, answer in zip(missing, answers, strict=True):
            if isinstance(answer, Quote):
                found[symbol] = answer
            elif isinstance(answer, DeadlineExceeded):
                raise UpstreamDown(f"{self.name} did not answer in time.") from answer
            elif not isinstance(answer, UnknownSymbol):
                raise answer
        return Found(found)

    async def bars(self, query: BarsQuery, deadline: Deadline) -> BarsPage:
        """The provider's bars."""
        return await self._provider.bars(query, deadline)

    async def search(self, q: str, limit: int, deadline: Deadline) -> list[Instrument]:
        """The provider's search."""
        return await self._provider.search(q, limit, deadline)

    def _fresh(self, symbol: str) -> Quote | None:
        kept_at, quote = self._kept.get(symbol, (0.0, None))
        return quote if quote is not None and self._clock() - kept_at <= self._ttl_s else None

    async def _fetch(self, symbols: Sequence[str]) -> Mapping[str, Quote | Exception]:
        # Not the deadline of whoever came first: the call is shared.
        found = await self._provider.quotes(symbols, Deadline.after(self._timeout_s))
        now = self._clock()
        for symbol, quote in found.quotes.items():
            self._kept[symbol] = (now, quote)
            self._kept.move_to_end(symbol)
        while len(self._kept) > _MOST_SYMBOLS:
            self._kept.popitem(last=False)
        return {symbol: found.quotes.get(symbol) or UnknownSymbol(symbol) for symbol in symbols}
