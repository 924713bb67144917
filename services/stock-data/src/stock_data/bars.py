"""Daily bars as they were traded, and the nouns around them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

_PRICE_STEP = Decimal("1e-6")


@dataclass(frozen=True, slots=True)
class DailyBar:
    """One day's prices as traded, in the instrument's currency, and the number of shares.

    `adjusted_close` is the source's own close after all splits and dividends, where it gives one.
    """

    day: date
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: int
    adjusted_close: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """From `day` on there are `ratio` shares for each one before."""

    day: date
    ratio: Decimal


@dataclass(frozen=True, slots=True)
class Listing:
    """What is known of one symbol: names, splits, its first day and its two newest bars."""

    symbol: str
    name: str
    exchange: str
    currency: str
    source: str
    first_day: date
    newest: DailyBar
    previous: DailyBar | None = None
    splits: tuple[Split, ...] = field(default=())


def restated(close: Decimal, *, of: date, on: date, splits: tuple[Split, ...]) -> Decimal:
    """The close of day `of` in the shares of day `on`: a split over night is no fall of the price."""
    for split in splits:
        if of < split.day <= on:
            close = (close / split.ratio).quantize(_PRICE_STEP)
    return close
