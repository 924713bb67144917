"""Intraday paths: a day's ticks made up inside its real bar, always the same ones for the same day."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from stock_data.bars import DailyBar

# Open, the two extremes and close must each have a tick of their own.
FEWEST_TICKS = 4

_CENT_PLACES = 2
_ROUGHNESS = 0.6


@dataclass(frozen=True, slots=True)
class Tick:
    """One step of a day: the price, and the day's high, low and volume so far. `part` of the day is over."""

    part: float
    price: Decimal
    high: Decimal
    low: Decimal
    volume: int


@dataclass(frozen=True, slots=True)
class _Anchor:
    """A price (in units of the smallest step) that the path has at tick number `at`."""

    at: int
    units: int


def path(symbol: str, bar: DailyBar, count: int) -> Iterator[Tick]:
    """`count` ticks (at least 4) from open to close that touch high and low and never leave them.

    The volume of the last tick is the day's. The path depends on nothing but the arguments.
    """
    if count < FEWEST_TICKS:
        raise ValueError(f"a path has at least {FEWEST_TICKS} ticks, not {count}")
    chance = random.Random(f"{symbol}:{bar.day.isoformat()}:{count}")  # noqa: S311 - reproducible on purpose
    places = _places(bar)
    low, high = _units(bar.low, places), _units(bar.high, places)
    anchors = _anchors(chance, bar, places, count)
    return _ticks(_walk(chance, anchors, low, high), bar.volume, places, count)


def _places(bar: DailyBar) -> int:
    """Decimal places of the finest price of the bar, at least those of a cent."""
    prices = (bar.open, bar.high, bar.low, bar.close)
    return max(_CENT_PLACES, *(-int(price.normalize().as_tuple().exponent) for price in prices))


def _units(price: Decimal, places: int) -> int:
    return int(price.scaleb(places))


def _anchors(chance: random.Random, bar: DailyBar, places: int, count: int) -> list[_Anchor]:
    """Where the path must be: open first, close last, and the extremes somewhere between."""
    first, second = sorted(chance.sample(range(1, count - 1), 2))
    # A day that rises mostly sees its low before its high.
    rises = bar.close >= bar.open
    low_first = chance.random() < (0.8 if rises else 0.2)
    extremes = (bar.low, bar.high) if low_first else (bar.high, bar.low)
    numbers = (0, first, second, count - 1)
    prices = (bar.open, *extremes, bar.close)
    return [_Anchor(at, _units(price, places)) for at, price in zip(numbers, prices, strict=True)]


def _walk(chance: random.Random, anchors: list[_Anchor], low: int, high: int) -> Iterator[int]:
    """A Brownian bridge from anchor to anchor, drawn step by step and kept between `low` and `high`."""
    yield anchors[0].units
    roughness = _ROUGHNESS * (high - low) / math.sqrt(anchors[-1].at)
    for start, end in itertools.pairwise(anchors):
        at = float(start.units)
        for left in range(end.at - start.at, 1, -1):
            noise = chance.gauss(0, roughness) * math.sqrt((left - 1) / left)
            at = _reflected(at + (end.units - at) / left + noise, low, high)
            yield round(at)
        yield end.units


def _reflected(at: float, low: int, high: int) -> float:
    """`at` thrown back from the bounds: holding it there would make the path stick to them."""
    at = 2 * high - at if at > high else at
    at = 2 * low - at if at < low else at
    return min(high, max(low, at))


def _ticks(walk: Iterator[int], volume: int, places: int, count: int) -> Iterator[Tick]:
    high = low = None
    so_far = 0
    for number, units in enumerate(walk, start=1):
        high = units if high is None else max(high, units)
        low = units if low is None else min(low, units)
        so_far = volume if number == count else max(so_far, int(volume * _volume_share(number / count)))
        yield Tick(
            (number - 1) / (count - 1),
            _price(units, places),
            _price(high, places),
            _price(low, places),
            so_far,
        )


def _volume_share(part: float) -> float:
    """The share of the day's volume that is traded after `part` of it: busy at the open and at the close."""
    return part + 0.12 * math.sin(2 * math.pi * part)


def _price(units: int, places: int) -> Decimal:
    return Decimal(units).scaleb(-places)
