"""The protocol of a provider, and the shapes of its answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Protocol

from chassis.deadlines import Deadline
from contracts.stocks import Adjustment, Bar, Coverage, Instrument, Quote
from stock_data.errors import ProviderFailure
from stock_data.providers.budget import Budget


@dataclass(frozen=True, slots=True)
class DailyBarsQuery:
    """A page of daily bars: at most `limit` of the days `start` to `end` (both included), oldest first."""

    symbol: str
    adjustment: Adjustment
    limit: int
    start: date = date.min
    end: date = date.max


@dataclass(frozen=True, slots=True)
class BarsPage:
    """The bars found; `has_more` is true when the range has further bars after the last one.

    `as_of` is the end of the provider's history; `stale` is true when the range goes beyond it.
    `repeated` are the times of bars whose prices equal those of the bar before.
    """

    data: list[Bar]
    has_more: bool
    as_of: datetime
    currency: str = "USD"
    stale: bool = False
    repeated: list[datetime] = field(default_factory=list)
    coverage: Coverage = field(default_factory=Coverage)


@dataclass(frozen=True, slots=True)
class FoundQuotes:
    """Quotes by symbol, and the failure of each symbol whose part of the answer could not be used.

    A requested symbol that is in neither is unknown to the provider. Each of `rejected`, which are among
    these, has cost a call of its own.
    """

    quotes: Mapping[str, Quote] = field(default_factory=dict)
    errors: Mapping[str, ProviderFailure] = field(default_factory=dict)
    rejected: Collection[str] = ()


class Provider(Protocol):
    """A source of market data.

    All methods raise a `ProviderFailure` when the provider gives no usable answer before the deadline.
    """

    @property
    def name(self) -> str:
        """The name in `source`, metrics and warnings."""

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> FoundQuotes:
        """Return the newest quotes of `symbols`."""

    async def bars(self, query: DailyBarsQuery, deadline: Deadline) -> BarsPage:
        """Return a page of bars. Raise `UnknownSymbol`."""

    async def search(self, q: str, limit: int, deadline: Deadline) -> list[Instrument]:
        """Return instruments that match `q`, best first."""


class Upstream(Provider, Protocol):
    """A provider over the network: its calls are bounded by `timeout_s`, and its connections are closed."""

    @property
    def timeout_s(self) -> float:
        """The seconds that one call may take."""

    @property
    def budget(self) -> Budget:
        """The provider's quota, and the owners' shares of it."""

    async def close(self) -> None:
        """Close all connections."""
