"""Crossings: an alert whose value has passed its threshold, and the tick that caused it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from contracts.stocks import Quote
from stock_data.alerts.watched import UNKNOWN, WatchedAlert


@dataclass(frozen=True, slots=True)
class Crossing:
    """A change of an alert's side, caused by `quote` on the trading day `day` and not yet written."""

    alert: WatchedAlert
    side: int
    quote: Quote
    day: date

    @property
    def fires(self) -> bool:
        """Whether the alert fires; false when the crossing only arms it again, or no value was known."""
        return self.alert.side != UNKNOWN and self.alert.fires_on(self.side)
