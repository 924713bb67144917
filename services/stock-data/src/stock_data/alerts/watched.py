"""A watched alert: the side of its threshold on which the value is, and the side that makes it fire."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from contracts.alerts import ConditionKind
from contracts.stocks import Quote

OVER, UNDER, UNKNOWN = 1, -1, 0


@dataclass(slots=True, eq=False)
class WatchedAlert:
    """An alert that can fire. `side` and `version` are those in the database.

    `is_gone` marks an alert that is no longer watched; indexes that still list it skip it.
    """

    id: UUID
    owner_id: str
    symbol: str
    kind: ConditionKind
    threshold: Decimal
    once: bool
    side: int
    day: date | None
    version: int
    expires_at: datetime | None
    fired_at: datetime | None
    is_gone: bool = False

    def fires_on(self, side: int) -> bool:
        """Return whether the alert fires when the value moves to `side` from the other one."""
        return fires_on(self.kind, self.threshold, side)

    def side_of(self, value: Decimal) -> int:
        """Return the side that `value` is on; exactly at the threshold, a side that does not fire."""
        return side_of(self.kind, self.threshold, value, before=self.side)

    def value_of(self, quote: Quote) -> Decimal | None:
        """Return the value of `quote` that the alert watches."""
        return value_of(self.kind, quote)

    def begin_day(self, day: date) -> None:
        """Begin a trading day: its change starts at zero, so an alert on the change may fire again."""
        if self.kind == "change_percent" and self.day != day and self.fires_on(self.side):
            self.side = -self.side


def fires_on(kind: ConditionKind, threshold: Decimal, side: int) -> bool:
    """Return whether a condition fires when its value moves to `side` from the other one."""
    if kind == "crosses":
        return side != UNKNOWN
    rises = kind == "above" or (kind == "change_percent" and threshold > 0)
    return side == (OVER if rises else UNDER)


def side_of(kind: ConditionKind, threshold: Decimal, value: Decimal, *, before: int = UNKNOWN) -> int:
    """Return the side of `threshold` that `value` is on; at it, one that does not fire, or `before`."""
    if value != threshold:
        return OVER if value > threshold else UNDER
    if kind == "crosses":
        return before
    return UNDER if fires_on(kind, threshold, OVER) else OVER


def value_of(kind: ConditionKind, quote: Quote) -> Decimal | None:
    """Return the value that a condition compares: the price of `quote`, or its change in percent."""
    return quote.change_percent if kind == "change_percent" else quote.price
