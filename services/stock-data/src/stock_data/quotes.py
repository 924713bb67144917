"""Quotes: the newest price of a symbol with its change, made without any rounding drift."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from contracts.stocks import Quote
from stock_data import sessions
from stock_data.bars import Listing, restated

# A long weekend: what is older than this misses a trading day.
STALE_AFTER = timedelta(days=4)

_PERCENT_STEP = Decimal("0.0001")


def change(price: Decimal, before: Decimal | None) -> tuple[Decimal | None, Decimal | None]:
    """The change since `before`, exact, and the same in percent to four places."""
    if not before:
        return None, None
    difference = price - before
    return difference, (difference * 100 / before).quantize(_PERCENT_STEP)


def from_newest_bar(listing: Listing, now: datetime) -> Quote:
    """The close of the newest bar as a quote; it says how long ago that was."""
    bar = listing.newest
    as_of = sessions.closing(bar.day)
    before = _previous_close(listing)
    difference, percent = change(bar.close, before)
    return Quote(
        symbol=listing.symbol,
        price=bar.close,
        open=bar.open,
        high=bar.high,
        low=bar.low,
        previous_close=before,
        change=difference,
        change_percent=percent,
        volume=bar.volume,
        currency=listing.currency,
        as_of=as_of,
        delayed_by_s=max(0.0, round((now - as_of).total_seconds(), 3)),
        source=listing.source,
        stale=now - as_of > STALE_AFTER,
        session="closed",
    )


def _previous_close(listing: Listing) -> Decimal | None:
    before = listing.previous
    if before is None:
        return None
    return restated(before.close, of=before.day, on=listing.newest.day, splits=listing.splits)
