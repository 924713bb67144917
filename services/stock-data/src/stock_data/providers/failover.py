"""Failover: providers are asked in order until one answers, and the answer names those that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from chassis import logging, metrics
from chassis.deadlines import Deadline
from contracts.stocks import Instrument
from stock_data.errors import InvalidCursor, ProviderFailure, UnknownSymbol, UpstreamDown
from stock_data.providers.circuit import Circuit
from stock_data.providers.provider import BarsPage, BarsQuery, Found, Provider

log = logging.get(__name__)

A = TypeVar("A")

# A slow provider must leave the next one time to answer before the caller gives up.
_SHARE_OF_DEADLINE = 0.6


@dataclass(frozen=True, slots=True)
class Answered(Generic[A]):
    """An answer, the provider it came from and a line for each one that failed before."""

    value: A
    source: str
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class _Asked:
    provider: Provider
    circuit: Circuit


class Failover:
    """Asks the first provider that can answer.

    Every failure but an unknown symbol leads to the next provider. That includes refused credentials and
    missing entitlement: callers get an answer with a warning, and the log says that somebody has to act.
    """

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._asked = [_Asked(provider, Circuit()) for provider in providers]

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> Answered[Found]:
        """The quotes of one provider for all `symbols`; raises the last failure when none answers."""
        return await self._ask("quotes", lambda provider, until: provider.quotes(symbols, until), deadline)

    async def bars(
        self, query: BarsQuery, deadline: Deadline, *, provider: str | None = None
    ) -> Answered[BarsPage]:
        """A page of bars; with `provider` from that one alone, so that a series never mixes two sources."""
        return await self._ask("bars", lambda of, until: of.bars(query, until), deadline, only=provider)

    async def search(self, q: str, limit: int, deadline: Deadline) -> Answered[list[Instrument]]:
        """Instruments of the first provider that answers."""
        return await self._ask("search", lambda provider, until: provider.search(q, limit, until), deadline)

    async def _ask(
        self,
        call: str,
        question: Callable[[Provider, Deadline], Awaitable[A]],
        deadline: Deadline,
        *,
        only: str | None = None,
    ) -> Answered[A]:
        chosen = [asked for asked in self._asked if only in (None, asked.provider.name)]
        if not chosen:
            raise InvalidCursor
        warnings: list[str] = []
        for asked in chosen:
            is_last = asked is chosen[-1]
            try:
                value = await self._try(asked, call, question, _until(deadline, is_last=is_last))
            except ProviderFailure as error:
                if is_last:
                    raise
                warnings.append(f"{asked.provider.name}: {error.kind}: {error.detail}")
            else:
                return Answered(value, asked.provider.name, warnings)
        raise AssertionError("the last provider answers or raises")

    async def _try(
        self,
        asked: _Asked,
        call: str,
        question: Callable[[Provider, Deadline], Awaitable[A]],
        deadline: Deadline,
    ) -> A:
        name, outcome = asked.provider.name, "cancelled"
        try:
            asked.circuit.require_closed()
        except ProviderFailure:
            metrics.PROVIDER_CALLS.labels(name, call, "skipped").inc()
            raise
        try:
            value = await _in_time(question(asked.provider, deadline), deadline, name)
            asked.circuit.succeeded()
            outcome = "ok"
            return value
        except UnknownSymbol as error:
            outcome = error.kind
            asked.circuit.succeeded()
            raise
        except ProviderFailure as error:
            outcome = error.kind
            asked.circuit.failed(error)
            _report(name, call, error)
            raise
        finally:
            metrics.PROVIDER_CALLS.labels(name, call, outcome).inc()


def _until(deadline: Deadline, *, is_last: bool) -> Deadline:
    return deadline if is_last else Deadline.after(deadline.remaining_s() * _SHARE_OF_DEADLINE)


async def _in_time(answer: Awaitable[A], deadline: Deadline, name: str) -> A:
    try:
        async with asyncio.timeout(deadline.remaining_s()):
            return await answer
    except TimeoutError as error:
        raise UpstreamDown(f"{name} did not answer in time.") from error


def _report(name: str, call: str, error: ProviderFailure) -> None:
    needs_somebody = error.kind in ("auth", "entitlement")
    say = log.error if needs_somebody else log.warning
    say("provider failed", provider=name, call=call, kind=error.kind, detail=error.detail)
