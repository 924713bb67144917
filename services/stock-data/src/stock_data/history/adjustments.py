"""Adjusted prices: history in today's shares, with or without the dividends that were paid since.

Factors are relative to the newest bar, whose factor is 1 for every adjustment. `all` is the source's adjusted
close over its close, `split` comes from the corporate actions, and `dividend` is what remains between them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal

from contracts.stocks import Adjustment
from stock_data.history.bars import DailyBar, Listing, Split

Factor = Callable[[DailyBar], Decimal]

_ONE = Decimal(1)
# The source's adjusted closes carry noise from the 13th digit on.
_FACTOR_STEP = Decimal("1e-10")
_PRICE_STEP = Decimal("1e-6")
_SHARE_STEP = Decimal("1e-6")


def factor_for(adjustment: Adjustment, listing: Listing) -> Factor:
    """Return the function that computes the factor of each bar of `listing` under `adjustment`."""
    anchor = _closes_ratio(listing.newest)
    if adjustment == "split":
        return lambda bar: split_factor(bar.day, listing.splits).quantize(_FACTOR_STEP)
    if adjustment == "all":
        return lambda bar: (_closes_ratio(bar) / anchor).quantize(_FACTOR_STEP)
    if adjustment == "dividend":
        return lambda bar: (_closes_ratio(bar) / anchor / split_factor(bar.day, listing.splits)).quantize(
            _FACTOR_STEP
        )
    return lambda _: _ONE


def split_factor(day: date, splits: tuple[Split, ...]) -> Decimal:
    """Return the factor that restates a price of `day` in the shares after all `splits`."""
    factor = _ONE
    for split in splits:
        if split.day > day:
            factor /= split.ratio
    return factor


def apply(bar: DailyBar, factor: Decimal, *, shares: Decimal) -> DailyBar:
    """Return `bar` with prices times `factor`, and its volume over `shares`, the split factor of its day."""
    if factor == _ONE and shares == _ONE:
        return bar
    opening, high, low, close = (
        (price * factor).quantize(_PRICE_STEP) for price in (bar.open, bar.high, bar.low, bar.close)
    )
    volume = (bar.volume / shares).quantize(_SHARE_STEP)
    return DailyBar(bar.day, opening, high, low, close, volume, bar.adjusted_close, bar.is_repeated)


def _closes_ratio(bar: DailyBar) -> Decimal:
    return _ONE if bar.adjusted_close is None else bar.adjusted_close / bar.close
