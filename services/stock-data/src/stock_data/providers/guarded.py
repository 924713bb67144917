"""The guard of an upstream: its circuit breaker, the deadline of each call, and the log of its failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from chassis import logging, metrics
from chassis.deadlines import Deadline
from contracts.stocks import Instrument
from stock_data.errors import NotOffered, ProviderFailure, ShareUsedUp, UnknownSymbol, UpstreamDown
from stock_data.providers.budget import callers
from stock_data.providers.calls import counted
from stock_data.providers.circuit import Circuit
from stock_data.providers.provider import BarsPage, DailyBarsQuery, FoundQuotes, Provider

log = logging.get(__name__)

A = TypeVar("A")

# A call that was given less says nothing about the provider: its caller was in a hurry.
LEAST_TIME_S = 1.0


class Guarded:
    """Calls `provider` only while its circuit is closed, and never waits past the deadline."""

    def __init__(self, provider: Provider, *, circuit: Circuit | None = None) -> None:
        self._provider = provider
        self._circuit = circuit or Circuit()

    @property
    def name(self) -> str:
        """The provider's own name."""
        return self._provider.name

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> FoundQuotes:
        """Return the provider's quotes; failures of single symbols are logged and do not open the circuit."""
        found = await self._call("quotes", lambda: self._provider.quotes(symbols, deadline), deadline)
        if found.errors:
            symbol, error = next(iter(found.errors.items()))
            log.warning(
                "the provider's answer for some symbols cannot be used",
                provider=self.name,
                symbols=sorted(found.errors)[:10],
                first=f"{symbol}: {error.detail}",
            )
        return found

    async def bars(self, query: DailyBarsQuery, deadline: Deadline) -> BarsPage:
        """Return the provider's bars."""
        return await self._call("bars", lambda: self._provider.bars(query, deadline), deadline)

    async def search(self, q: str, limit: int, deadline: Deadline) -> list[Instrument]:
        """Return the provider's matches."""
        return await self._call("search", lambda: self._provider.search(q, limit, deadline), deadline)

    async def _call(self, call: str, ask: Callable[[], Awaitable[A]], deadline: Deadline) -> A:
        owners = callers()
        try:
            self._circuit.require_closed(owners)
        except ProviderFailure:
            metrics.PROVIDER_CALLS.labels(self.name, call, "skipped").inc()
            raise
        given_s = deadline.remaining_s()
        try:
            with counted(self.name, call):
                value = await self._ask_in_time(ask, deadline)
        except UnknownSymbol:
            self._circuit.succeeded()
            raise
        except ProviderFailure as error:
            if given_s >= LEAST_TIME_S or not isinstance(error, UpstreamDown):
                self._circuit.failed(error, owners)
            if not isinstance(error, (NotOffered, ShareUsedUp)):
                # An operator has to correct the key or the plan; the other failures pass by themselves.
                say = log.error if error.kind in ("auth", "entitlement") else log.warning
                say("provider failed", provider=self.name, call=call, kind=error.kind, detail=error.detail)
            raise
        self._circuit.succeeded()
        return value

    async def _ask_in_time(self, ask: Callable[[], Awaitable[A]], deadline: Deadline) -> A:
        """Return the answer; raise `UpstreamDown` at the deadline, so that slowness counts as a failure."""
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                return await ask()
        except TimeoutError as error:
            raise UpstreamDown(f"{self.name} did not answer in time.") from error
