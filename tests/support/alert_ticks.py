"""Ticks and watched alerts for the tests of price alerts."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

from contracts.alerts import ConditionKind
from contracts.stocks import Quote
from stock_data.alerts.watched import WatchedAlert

MONDAY = date(2012, 5, 21)


def tick(price: str | int, *, symbol: str = "A", day: date = MONDAY, **changes: Any) -> Quote:
    """Return a tick of now that shows noon of `day`."""
    fields = {
        "symbol": symbol,
        "price": Decimal(price),
        "as_of": datetime.now(UTC),
        "replayed": datetime(day.year, day.month, day.day, 16, tzinfo=UTC),
        "source": "replay",
        "simulated": True,
        "session": "regular",
    }
    return Quote.model_validate(fields | changes)


def watched(kind: ConditionKind, threshold: str | int | Decimal, side: int, **changes: Any) -> WatchedAlert:
    """Return an alert of the symbol A that was on `side` when it was seen last."""
    fields: dict[str, Any] = {
        "id": uuid4(),
        "owner_id": "7",
        "once": False,
        "day": MONDAY,
        "version": 0,
        "expires_at": None,
        "fired_at": None,
        "symbol": "A",
    }
    return WatchedAlert(
        kind=kind,
        threshold=threshold if isinstance(threshold, Decimal) else Decimal(threshold),
        side=side,
        **{**fields, **changes},
    )
