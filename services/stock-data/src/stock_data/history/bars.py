"""Daily bars as they were traded, splits, and listings."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

# Converting or writing a long page takes tens of milliseconds, which would block the event loop.
INLINE_ROWS = 500


@dataclass(frozen=True, slots=True)
class DailyBar:
    """The prices of one day as traded, in the instrument's currency, and the volume in shares.

    The volume may be fractional. `adjusted_close` is the source's own close after all splits and dividends,
    where it has one. `is_repeated` is true when all four prices equal those of the bar before.
    """

    day: date
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    adjusted_close: Decimal | None = None
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class Split:
    """A split: from `day` on there are `ratio` shares for each one before."""

    day: date
    ratio: Decimal


@dataclass(frozen=True, slots=True)
class Listing:
    """One symbol's names, splits, first day and two newest bars."""

    symbol: str
    name: str
    exchange: str
    currency: str
    source: str
    first_day: date
    newest: DailyBar
    previous: DailyBar | None = None
    splits: tuple[Split, ...] = field(default=())
