"""Figures of quotes, computed in the same way for every provider: previous close, change and freshness."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Context, Decimal

from contracts.stocks import Quote
from stock_data import sessions
from stock_data.history.bars import Listing, Split

_PERCENT_STEP = Decimal("0.0001")
_PRICE_STEP = Decimal("1e-6")
# Prices may have 40 digits, in any combination: a difference is exact, and every result has room.
_WIDE = Context(prec=200)


def previous_close(
    traded_on: date, closes: Mapping[date, Decimal], splits: Iterable[Split]
) -> Decimal | None:
    """Return the close of the session before `traded_on`, in the shares of `traded_on`.

    `closes` are raw closes by day. Return None when the close of exactly that session is not among them: with
    an older close, the change of two days would look like the change of one.
    """
    before = sessions.session_before(traded_on)
    close = closes.get(before)
    if close is None:
        return None
    for split in splits:
        if before < split.day <= traded_on:
            close = _WIDE.quantize(_WIDE.divide(close, split.ratio), _PRICE_STEP)
    return close


def change(price: Decimal, before: Decimal | None) -> tuple[Decimal | None, Decimal | None]:
    """Return the exact change since `before`, and the change in percent, rounded to four places."""
    if not before:
        return None, None
    difference = _WIDE.subtract(price, before)
    return difference, _WIDE.quantize(
        _WIDE.divide(_WIDE.multiply(difference, Decimal(100)), before), _PERCENT_STEP
    )


def is_stale(as_of: datetime, now: datetime) -> bool:
    """Return whether a whole trading day has passed since `as_of` without a newer price."""
    return sessions.trading_day(as_of) < sessions.session_before(sessions.trading_day(now))


def from_newest_bar(listing: Listing, now: datetime) -> Quote:
    """Return the close of the newest bar as a quote, with its age."""
    bar, before = listing.newest, listing.previous
    as_of = sessions.closing(bar.day)
    closed_at = previous_close(bar.day, {before.day: before.close} if before else {}, listing.splits)
    difference, percent = change(bar.close, closed_at)
    return Quote(
        symbol=listing.symbol,
        price=bar.close,
        open=bar.open,
        high=bar.high,
        low=bar.low,
        previous_close=closed_at,
        change=difference,
        change_percent=percent,
        volume=bar.volume,
        currency=listing.currency,
        as_of=as_of,
        delayed_by_s=max(0.0, round((now - as_of).total_seconds(), 3)),
        source=listing.source,
        stale=is_stale(as_of, now),
        session="closed",
    )


def retold(quote: Quote, *, fetched_at: datetime, now: datetime) -> Quote:
    """Return a quote that was fetched at `fetched_at` with its freshness at `now`."""
    update = {
        "delayed_by_s": round(quote.delayed_by_s + max(0.0, (now - fetched_at).total_seconds()), 3),
        "stale": is_stale(quote.as_of, now),
        "session": sessions.session_at(now),
    }
    return quote.model_copy(update=update)
