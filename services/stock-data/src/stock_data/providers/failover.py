"""Failover: providers are asked in order until one answers, and the answer names those that failed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from chassis.deadlines import Deadline
from contracts.stocks import Instrument
from stock_data.errors import InvalidCursor, ProviderFailure, UnknownSymbol
from stock_data.providers.provider import BarsPage, BarsQuery, Found, Provider

A = TypeVar("A")

# A slow provider must leave the next one time to answer before the caller gives up.
_SHARE_OF_DEADLINE = 0.6


@dataclass(frozen=True, slots=True)
class Answered(Generic[A]):
    """An answer, the provider it came from, and a warning for each one that failed before it.

    `failure` is the first of those: what a later provider does not know, it may have known.
    """

    value: A
    source: str
    warnings: list[str] = field(default_factory=list)
    failure: ProviderFailure | None = None


class Failover:
    """Asks the first provider that can answer.

    Every failure but an unknown symbol leads to the next provider. That includes refused credentials and
    missing entitlement: callers get an answer with a warning, and the log says that somebody has to act.
    """

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._providers = providers

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> Answered[Found]:
        """The quotes of one provider for all `symbols`; raises the last failure when none answers."""
        return await self._ask(lambda provider, until: provider.quotes(symbols, until), deadline)

    async def bars(
        self, query: BarsQuery, deadline: Deadline, *, provider: str | None = None
    ) -> Answered[BarsPage]:
        """A page of bars; with `provider` from that one alone, so that a series never mixes two sources."""
        return await self._ask(lambda of, until: of.bars(query, until), deadline, only=provider)

    async def search(self, q: str, limit: int, deadline: Deadline) -> Answered[list[Instrument]]:
        """Instruments of the first provider that answers."""
        return await self._ask(lambda provider, until: provider.search(q, limit, until), deadline)

    async def _ask(
        self,
        question: Callable[[Provider, Deadline], Awaitable[A]],
        deadline: Deadline,
        *,
        only: str | None = None,
    ) -> Answered[A]:
        chosen = [provider for provider in self._providers if only in (None, provider.name)]
        if not chosen:
            raise InvalidCursor
        warnings: list[str] = []
        failure: ProviderFailure | None = None
        for provider in chosen:
            is_last = provider is chosen[-1]
            try:
                value = await question(provider, _until(deadline, is_last=is_last))
                return Answered(value, provider.name, warnings, failure)
            except UnknownSymbol:
                if failure is not None:
                    raise failure from None
                raise
            except ProviderFailure as error:
                if is_last:
                    raise
                failure = failure or error
                warnings.append(f"{provider.name}: {error.kind}: {error.detail}")
        raise AssertionError("the last provider answers or raises")


def _until(deadline: Deadline, *, is_last: bool) -> Deadline:
    return deadline if is_last else Deadline.after(deadline.remaining_s() * _SHARE_OF_DEADLINE)
