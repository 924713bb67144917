"""A short-lived cache in front of a provider: many callers of one symbol cost one call of the quota."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from chassis import metrics, shares
from chassis.broker.coalescing import Coalescer
from chassis.deadlines import Deadline
from chassis.errors import DeadlineExceeded
from contracts.stocks import Instrument, Quote
from stock_data.errors import (
    ProviderFailure,
    QuotaExceeded,
    ShareUsedUp,
    Undecided,
    UnknownSymbol,
    UpstreamDown,
)
from stock_data.providers.budget import Budget, callers, sharing
from stock_data.providers.provider import BarsPage, DailyBarsQuery, FoundQuotes, Provider
from stock_data.providers.shared import SharedQuotes
from stock_data.quotes import retold

MOST_SYMBOLS = 5_000
MOST_UNKNOWN = 5_000
_UNKNOWN_FOR = timedelta(seconds=30)
_NOBODY = frozenset({""})


class CachedQuotes:
    """Caches the quotes of `provider` for `ttl_s` seconds; concurrent callers share one call.

    A symbol that the provider does not know is asked for again after 30 s.
    With `shared`, a quote that another replica has fetched within that time replaces a call. An owner
    that asks for a symbol which is neither cached nor awaited by it already spends a call of its share of
    `budget`, and gets it back when there was no answer.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        ttl_s: float,
        timeout_s: float,
        shared: SharedQuotes | None = None,
        budget: Budget | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._provider = provider
        self._ttl = timedelta(seconds=ttl_s)
        self._timeout_s = timeout_s
        self._shared = shared
        self._clock = clock
        self._kept: OrderedDict[str, tuple[datetime, Quote]] = OrderedDict()
        # The time at which the provider did not know a symbol.
        self._unknown: OrderedDict[str, datetime] = OrderedDict()
        # The owners that wait for each symbol that is being fetched.
        self._askers: dict[str, set[str]] = {}
        self._budget = budget or Budget(provider.name)
        self._coalescer = Coalescer(f"{provider.name} quotes", self._fetch)

    @property
    def name(self) -> str:
        """The provider's own name."""
        return self._provider.name

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> FoundQuotes:
        """Return cached quotes where they are recent enough, and the provider's quotes for the rest."""
        now = self._clock()
        found: dict[str, Quote] = {}
        for symbol in symbols:
            fetched_at, quote = self._kept.get(symbol, (now, None))
            if quote is not None and timedelta(0) <= now - fetched_at <= self._ttl:
                found[symbol] = retold(quote, fetched_at=fetched_at, now=now)
        unknown = {s for s in symbols if s in self._unknown and now - self._unknown[s] <= _UNKNOWN_FOR}
        missing = [symbol for symbol in symbols if symbol not in found and symbol not in unknown]
        errors: dict[str, ProviderFailure] = {}
        [owner_id] = callers()
        has_spent = False

        async def ask(symbol: str) -> Quote:
            # Whoever waits for the symbol already has spent a call for it.
            nonlocal has_spent
            if not has_spent and owner_id not in self._askers.get(symbol, ()):
                self._budget.spend()
                has_spent = True
            self._askers.setdefault(symbol, set()).add(owner_id)
            return await self._coalescer.get(symbol, deadline.remaining_s())

        answers = await asyncio.gather(*map(ask, missing), return_exceptions=True)
        for symbol, answer in zip(missing, answers, strict=True):
            if isinstance(answer, Quote):
                found[symbol] = answer
            elif isinstance(answer, ProviderFailure):
                errors[symbol] = answer
            elif isinstance(answer, DeadlineExceeded):
                errors[symbol] = UpstreamDown(f"{self.name} did not answer in time.")
            elif not isinstance(answer, UnknownSymbol):
                raise answer
        if has_spent and all(isinstance(answer, (QuotaExceeded, UpstreamDown)) for answer in answers):
            self._budget.refund(owner_id)
        refused = next((answer for answer in answers if isinstance(answer, ShareUsedUp)), None)
        if refused is not None:
            metrics.PROVIDER_CALLS.labels(self.name, "quotes", refused.kind).inc()
        return FoundQuotes(found, errors)

    async def bars(self, query: DailyBarsQuery, deadline: Deadline) -> BarsPage:
        """Return the provider's bars."""
        return await self._provider.bars(query, deadline)

    async def search(self, q: str, limit: int, deadline: Deadline) -> list[Instrument]:
        """Return the provider's matches."""
        return await self._provider.search(q, limit, deadline)

    async def _fetch(self, symbols: Sequence[str]) -> Mapping[str, Quote | Exception]:
        try:
            # For all who wait, so without the deadline or the share of the first caller.
            shares.current.set("")
            deadline, now = Deadline.after(self._timeout_s), self._clock()
            by_others = await self._shared.read(symbols, now) if self._shared is not None else {}
            answered: dict[str, Quote | Exception] = {}
            for symbol, kept in by_others.items():
                self._keep(symbol, kept.fetched_at, kept.quote)
                answered[symbol] = retold(kept.quote, fetched_at=kept.fetched_at, now=now)
            missing = [symbol for symbol in symbols if symbol not in answered]
            try:
                found = await self._ask(missing, deadline) if missing else FoundQuotes()
            except ProviderFailure as error:
                return {**answered, **dict.fromkeys(missing, error)}
            now = self._clock()
            for symbol, quote in found.quotes.items():
                self._keep(symbol, now, quote)
            if self._shared is not None and missing:
                await self._shared.write(found.quotes, now)
            unknown = {symbol: UnknownSymbol(symbol) for symbol in missing}
            for symbol in unknown.keys() - found.quotes.keys() - found.errors.keys():
                self._unknown[symbol] = now
                self._unknown.move_to_end(symbol)
            while len(self._unknown) > MOST_UNKNOWN:
                self._unknown.popitem(last=False)
            return {**answered, **unknown, **found.errors, **found.quotes}
        finally:
            for symbol in symbols:
                self._askers.pop(symbol, None)

    async def _ask(self, symbols: Sequence[str], deadline: Deadline) -> FoundQuotes:
        """Return the provider's quotes; owners whose symbols it rejects cost the others no answer.

        What is undecided because of them is asked for once more without their symbols, and each rejected
        symbol costs its owners a call of their shares.
        """

        def owners_of(some: Iterable[str]) -> frozenset[str]:
            return frozenset().union(*(self._askers.get(symbol, ()) for symbol in some)) or _NOBODY

        async def ask(some: Sequence[str], owners: frozenset[str]) -> FoundQuotes:
            sharing.set(owners)
            answered = await self._provider.quotes(some, deadline)
            for symbol in answered.rejected:
                for owner_id in owners_of([symbol]):
                    self._budget.charge(owner_id)
            return answered

        found = await ask(symbols, owners_of(symbols))
        blamed = owners_of(found.rejected)
        undecided = [symbol for symbol, error in found.errors.items() if isinstance(error, Undecided)]
        again = [symbol for symbol in undecided if owners_of([symbol]) - blamed]
        if not (found.rejected and again):
            return found
        more = await ask(again, owners_of(again) - blamed)
        errors = {symbol: error for symbol, error in found.errors.items() if symbol not in again}
        return FoundQuotes({**found.quotes, **more.quotes}, {**errors, **more.errors})

    def _keep(self, symbol: str, fetched_at: datetime, quote: Quote) -> None:
        self._kept[symbol] = (fetched_at, quote)
        self._kept.move_to_end(symbol)
        while len(self._kept) > MOST_SYMBOLS:
            self._kept.popitem(last=False)
