"""Failover: providers are asked in order until one answers, and the answer names those that failed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from chassis.deadlines import Deadline
from chassis.errors import ServiceError
from contracts.stocks import Instrument, Quote
from stock_data.errors import InvalidCursor, ProviderFailure, UnknownSymbol
from stock_data.providers.provider import BarsPage, DailyBarsQuery, FoundQuotes, Provider

A = TypeVar("A")

# A slow provider must leave the next one time to answer before the caller gives up.
_SHARE_OF_DEADLINE = 0.6


@dataclass(frozen=True, slots=True)
class Answered(Generic[A]):
    """An answer, the provider it came from, and a warning for each provider that failed before it."""

    value: A
    source: str
    warnings: list[str] = field(default_factory=list)


class Failover:
    """Asks the first provider that can answer.

    Every failure but an unknown symbol leads to the next provider. That includes rejected credentials and
    missing entitlement: callers get an answer with a warning, and the failure is logged for the operator.
    """

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._providers = providers

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> FoundQuotes:
        """Return a quote or a failure for each known symbol.

        Only symbols that failed go to the next provider. The quotes carry a warning for each provider that
        failed for them. A symbol that a later provider does not know keeps the failure of the first, because
        that provider may know it.
        """
        quotes: dict[str, Quote] = {}
        failures: dict[str, ProviderFailure] = {}
        warnings: defaultdict[str, list[str]] = defaultdict(list)
        left = list(symbols)
        for number, provider in enumerate(self._providers, start=1):
            if not left:
                break
            until = _until(deadline, is_last=number == len(self._providers))
            try:
                found = await provider.quotes(left, until)
            except ProviderFailure as error:
                found = FoundQuotes(errors=dict.fromkeys(left, error))
            for symbol, quote in found.quotes.items():
                update = {"warnings": [*warnings[symbol], *quote.warnings]}
                quotes[symbol] = quote.model_copy(update=update) if warnings[symbol] else quote
            for symbol, failure in found.errors.items():
                failures[symbol] = failure
                warnings[symbol].append(_warning(provider, failure))
            left = [symbol for symbol in left if symbol in found.errors]
        return FoundQuotes(quotes, {s: error for s, error in failures.items() if s not in quotes})

    async def bars(
        self, query: DailyBarsQuery, deadline: Deadline, *, provider: str | None = None
    ) -> Answered[BarsPage]:
        """Return a page of bars; with `provider`, only from that one, so that a series has one source.

        A provider whose history has no bars in the range is skipped in favour of one that has some. If there
        is none, the first empty page is returned.
        """
        return await self._ask(
            lambda of, until: of.bars(query, until),
            deadline,
            only=provider,
            is_empty=lambda page: not page.data,
        )

    async def search(self, q: str, limit: int, deadline: Deadline) -> Answered[list[Instrument]]:
        """Return the instruments of the first provider that answers."""
        return await self._ask(lambda provider, until: provider.search(q, limit, until), deadline)

    async def _ask(
        self,
        request: Callable[[Provider, Deadline], Awaitable[A]],
        deadline: Deadline,
        *,
        only: str | None = None,
        is_empty: Callable[[A], bool] = lambda _: False,
    ) -> Answered[A]:
        chosen = [provider for provider in self._providers if only in (None, provider.name)]
        if not chosen:
            raise InvalidCursor
        warnings: list[str] = []
        failure: ServiceError | None = None
        empty: Answered[A] | None = None
        for provider in chosen:
            try:
                value = await request(provider, _until(deadline, is_last=provider is chosen[-1]))
            except UnknownSymbol as error:
                failure = failure or error
                break
            except ProviderFailure as error:
                failure = error if provider is chosen[-1] else failure or error
                warnings.append(_warning(provider, error))
            else:
                answered = Answered(value, provider.name, warnings)
                if not is_empty(value):
                    return answered
                empty = empty or answered
        if empty is not None:
            return empty
        assert failure is not None, "each provider answers or raises"
        raise failure


def _until(deadline: Deadline, *, is_last: bool) -> Deadline:
    return deadline if is_last else Deadline.after(deadline.remaining_s() * _SHARE_OF_DEADLINE)


def _warning(provider: Provider, error: ProviderFailure) -> str:
    return f"{provider.name}: {error.kind}: {error.detail}"
