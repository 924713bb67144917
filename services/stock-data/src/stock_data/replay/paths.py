"""Intraday paths: simulated ticks of a day inside its real bar, always the same for the same day."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from stock_data.history.bars import DailyBar

# Open, the two extremes and close must each have a tick of their own.
FEWEST_TICKS = 4

_CENT_PLACES = 2
_ROUGHNESS = 0.6


@dataclass(frozen=True, slots=True)
class Tick:
    """One step of a day: the price, and the day's high, low and volume so far.

    `part` is the share of the day that is over.
    """

    part: float
    price: Decimal
    high: Decimal
    low: Decimal
    volume: Decimal


@dataclass(frozen=True, slots=True)
class _Anchor:
    """A price (in units of the smallest step) that the path has at tick number `at`."""

    at: int
    units: int


def path(symbol: str, bar: DailyBar, count: int) -> Iterator[Tick]:
    """Yield `count` ticks (at least 4) from open to close that touch high and low and stay between them.

    The volume of the last tick is the day's. The path depends on nothing but the arguments.
    """
    if count < FEWEST_TICKS:
        raise ValueError(f"a path has at least {FEWEST_TICKS} ticks, not {count}")
    chance = random.Random(f"{symbol}:{bar.day.isoformat()}:{count}")  # noqa: S311 - reproducible on purpose
    prices = (bar.open, bar.high, bar.low, bar.close)
    # Units are the finest decimal place of the bar, at least a cent.
    places = max(_CENT_PLACES, *(-int(price.normalize().as_tuple().exponent) for price in prices))
    opening, high, low, close = (int(price.scaleb(places)) for price in prices)
    first, second = sorted(chance.sample(range(1, count - 1), 2))
    # On a day that rises, the low mostly comes before the high.
    low_first = chance.random() < (0.8 if close >= opening else 0.2)
    extremes = (low, high) if low_first else (high, low)
    numbers = (0, first, second, count - 1)
    anchors = list(map(_Anchor, numbers, (opening, *extremes, close)))

    highest = lowest = opening
    so_far = Decimal(0)
    for number, units in enumerate(_walk(chance, anchors, low, high), start=1):
        highest, lowest = max(highest, units), min(lowest, units)
        part = number / count
        # Trading is busy at the open and at the close.
        share = part + 0.12 * math.sin(2 * math.pi * part)
        so_far = bar.volume if number == count else max(so_far, Decimal(int(float(bar.volume) * share)))
        price, most, least = (Decimal(each).scaleb(-places) for each in (units, highest, lowest))
        yield Tick((number - 1) / (count - 1), price, most, least, so_far)


def _walk(chance: random.Random, anchors: list[_Anchor], low: int, high: int) -> Iterator[int]:
    """Yield a Brownian bridge from anchor to anchor, drawn step by step and kept between `low` and `high`."""
    yield anchors[0].units
    roughness = _ROUGHNESS * (high - low) / math.sqrt(anchors[-1].at)
    for start, end in itertools.pairwise(anchors):
        at = float(start.units)
        for left in range(end.at - start.at, 1, -1):
            noise = chance.gauss(0, roughness) * math.sqrt((left - 1) / left)
            at = at + (end.units - at) / left + noise
            # Reflected at the bounds: if it were only clamped, the path would stick to them.
            at = 2 * high - at if at > high else at
            at = 2 * low - at if at < low else at
            at = min(high, max(low, at))
            yield round(at)
        yield end.units
