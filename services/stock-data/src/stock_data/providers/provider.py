"""What every provider can do, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Protocol

from chassis.deadlines import Deadline
from contracts.stocks import Adjustment, Bar, Instrument, Quote


@dataclass(frozen=True, slots=True)
class BarsQuery:
    """A page of daily bars: at most `limit` of the days `start` to `end` (both included), oldest first."""

    symbol: str
    adjustment: Adjustment
    limit: int
    start: date = date.min
    end: date = date.max


@dataclass(frozen=True, slots=True)
class BarsPage:
    """The bars found; `has_more` when the days after the last one hold further bars of the range.

    `as_of` is how far the provider's history goes; `stale` when the range asks for days after that.
    """

    data: list[Bar]
    has_more: bool
    as_of: datetime
    currency: str = "USD"
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """Quotes by symbol; what was asked for and is not here is not known to the provider."""

    quotes: Mapping[str, Quote] = field(default_factory=dict)


class Provider(Protocol):
    """A source of market data.

    All methods raise a `ProviderFailure` when the provider gives no usable answer before the deadline.
    """

    @property
    def name(self) -> str:
        """The word for `source`, metrics and warnings."""

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> Found:
        """The newest quotes of `symbols`."""

    async def bars(self, query: BarsQuery, deadline: Deadline) -> BarsPage:
        """A page of bars. Raises `UnknownSymbol`."""

    async def search(self, q: str, limit: int, deadline: Deadline) -> list[Instrument]:
        """Instruments that match `q`, best first."""
