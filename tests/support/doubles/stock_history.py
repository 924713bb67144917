"""Small histories for the tests of stock-data, written in few words."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from stock_data.history.bars import DailyBar, Listing, Split


def daily(
    day: str,
    close: str = "10",
    *,
    open: str | None = None,  # noqa: A002
    high: str | None = None,
    low: str | None = None,
    volume: Decimal | int = 1000,
    adjusted: str | None = None,
) -> DailyBar:
    """Return a daily bar; fields that are not given describe a day without movement."""
    opening = Decimal(open or close)
    return DailyBar(
        date.fromisoformat(day),
        opening,
        Decimal(high) if high else max(opening, Decimal(close)),
        Decimal(low) if low else min(opening, Decimal(close)),
        Decimal(close),
        Decimal(volume),
        Decimal(adjusted) if adjusted else None,
    )


def split(day: str, ratio: str = "2") -> Split:
    return Split(date.fromisoformat(day), Decimal(ratio))


def listing(symbol: str = "ACME", name: str = "Acme Corporation", **changes: Any) -> Listing:
    """Return a listing of two bars."""
    values: dict[str, Any] = {
        "symbol": symbol,
        "name": name,
        "exchange": "NYSE",
        "currency": "USD",
        "source": "embedded",
        "first_day": date(2012, 5, 17),
        "newest": daily("2012-05-18", "11", open="10.5", high="11.5", low="10.25", volume=5000),
        "previous": daily("2012-05-17", "10"),
        **changes,
    }
    return Listing(**values)
