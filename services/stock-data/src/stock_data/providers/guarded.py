"""The guard of an upstream: its circuit, the deadline of each call, and the log of its failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from chassis import logging, metrics
from chassis.deadlines import Deadline
from contracts.stocks import Instrument
from stock_data.errors import NotOffered, ProviderFailure, UnknownSymbol, UpstreamDown
from stock_data.providers.calls import counted
from stock_data.providers.circuit import Circuit
from stock_data.providers.provider import BarsPage, BarsQuery, Found, Provider

log = logging.get(__name__)

A = TypeVar("A")


class Guarded:
    """`provider`, left alone while its circuit is open and never waited for after the deadline."""

    def __init__(self, provider: Provider, *, circuit: Circuit | None = None) -> None:
        self._provider = provider
        self._circuit = circuit or Circuit()

    @property
    def name(self) -> str:
        """The provider's own name."""
        return self._provider.name

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> Found:
        """The provider's quotes."""
        return await self._call("quotes", lambda: self._provider.quotes(symbols, deadline), deadline)

    async def bars(self, query: BarsQuery, deadline: Deadline) -> BarsPage:
        """The provider's bars."""
        return await self._call("bars", lambda: self._provider.bars(query, deadline), deadline)

    async def search(self, q: str, limit: int, deadline: Deadline) -> list[Instrument]:
        """The provider's search."""
        return await self._call("search", lambda: self._provider.search(q, limit, deadline), deadline)

    async def _call(self, call: str, ask: Callable[[], Awaitable[A]], deadline: Deadline) -> A:
        self._require_closed(call)
        try:
            with counted(self.name, call):
                value = await self._in_time(ask(), deadline)
        except UnknownSymbol:
            self._circuit.succeeded()
            raise
        except ProviderFailure as error:
            self._circuit.failed(error)
            self._report(call, error)
            raise
        self._circuit.succeeded()
        return value

    def _require_closed(self, call: str) -> None:
        try:
            self._circuit.require_closed()
        except ProviderFailure:
            metrics.PROVIDER_CALLS.labels(self.name, call, "skipped").inc()
            raise

    async def _in_time(self, answer: Awaitable[A], deadline: Deadline) -> A:
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                return await answer
        except TimeoutError as error:
            raise UpstreamDown(f"{self.name} did not answer in time.") from error

    def _report(self, call: str, error: ProviderFailure) -> None:
        if isinstance(error, NotOffered):
            return
        needs_somebody = error.kind in ("auth", "entitlement")
        say = log.error if needs_somebody else log.warning
        say("provider failed", provider=self.name, call=call, kind=error.kind, detail=error.detail)
