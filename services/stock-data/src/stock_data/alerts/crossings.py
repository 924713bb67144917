"""Crossings: that the value of an alert came to the other side of its threshold, and with which tick."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from contracts.stocks import Quote
from stock_data.alerts.watched import UNKNOWN, WatchedAlert


@dataclass(frozen=True, slots=True)
class Crossing:
    """A change of an alert's side, seen on `quote` of the trading day `day` and not written yet."""

    alert: WatchedAlert
    side: int
    quote: Quote
    day: date

    @property
    def fires(self) -> bool:
        """Whether the alert fires: it does not when it is only armed again, or had not been seen before."""
        return self.alert.side != UNKNOWN and self.alert.fires_on(self.side)
