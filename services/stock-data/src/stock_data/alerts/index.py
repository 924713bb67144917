"""The watched alerts, indexed by threshold: alerts that a tick does not reach cost nothing."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from itertools import count
from uuid import UUID

from contracts.stocks import Quote
from stock_data import sessions
from stock_data.alerts.watched import OVER, UNKNOWN, WatchedAlert

# The threshold, with 1 where it must be passed, 0 where reaching it is enough; then the order of insertion.
_Entry = tuple[tuple[Decimal, int], int, WatchedAlert]

_FEWEST_GONE = 64


class Meter:
    """The alerts on one value of one symbol, each by the threshold at which its side changes next.

    Alerts below their thresholds wait for the value to rise, the nearest first; those above, for it to fall.
    A value that reaches none of them costs two comparisons.
    """

    def __init__(self) -> None:
        self._rising: list[_Entry] = []
        self._falling: list[_Entry] = []
        self._undecided: list[WatchedAlert] = []
        self._numbers = count()
        self._gone = 0

    def __len__(self) -> int:
        """Return the number of entries, those of ended alerts included."""
        return len(self._rising) + len(self._falling) + len(self._undecided)

    def add(self, alert: WatchedAlert) -> None:
        """Watch `alert` until a value changes its side."""
        if alert.side == UNKNOWN:
            self._undecided.append(alert)
            return
        # An alert that fires on the other side must pass the threshold; to be armed again, it must reach it.
        strict = int(alert.fires_on(-alert.side))
        heap, threshold = (
            (self._falling, -alert.threshold) if alert.side == OVER else (self._rising, alert.threshold)
        )
        heapq.heappush(heap, ((threshold, strict), next(self._numbers), alert))

    def reached(self, value: Decimal) -> Iterator[WatchedAlert | None]:
        """Yield the alerts whose side changes with `value`; they are not watched until added again.

        Yield None for an alert that was looked at in vain.
        """
        yield from _pop(self._rising, value)
        yield from _pop(self._falling, -value)
        if not self._undecided:
            return
        waiting, self._undecided = self._undecided, []
        for alert in waiting:
            is_decided = alert.side_of(value) != UNKNOWN
            if not alert.is_gone and not is_decided:
                self._undecided.append(alert)
            yield alert if is_decided and not alert.is_gone else None

    def note_gone(self) -> None:
        """Remove ended alerts once they are half of all entries."""
        self._gone += 1
        if self._gone < max(_FEWEST_GONE, len(self) // 2):
            return
        self._gone = 0
        for heap in (self._rising, self._falling):
            heap[:] = [entry for entry in heap if not entry[2].is_gone]
            heapq.heapify(heap)
        self._undecided = [alert for alert in self._undecided if not alert.is_gone]


class _Symbol:
    """The alerts of one symbol: those that are watched, and those that rest or are being written."""

    def __init__(self) -> None:
        self.known: dict[UUID, WatchedAlert] = {}
        self.watched: set[UUID] = set()
        self.day: date | None = None
        self.price = Meter()
        self.change = Meter()

    def watch(self, alert: WatchedAlert) -> None:
        """Wait for the value that changes the side of `alert`."""
        if self.day is not None:
            alert.begin_day(self.day)
        self.watched.add(alert.id)
        (self.change if alert.kind == "change_percent" else self.price).add(alert)

    def reached(self, quote: Quote) -> Iterator[WatchedAlert | None]:
        """Yield the alerts whose side changes with `quote`, and None for each that was looked at in vain."""
        day = day_of(quote)
        if day != self.day:
            yield from self._begin_day(day)
        yield from self._off_watch(self.price.reached(quote.price))
        if quote.change_percent is not None:
            yield from self._off_watch(self.change.reached(quote.change_percent))

    def _begin_day(self, day: date) -> Iterator[None]:
        self.day, self.change = day, Meter()
        for id_ in tuple(self.watched):
            # It may have ended since the last one.
            alert = self.known.get(id_)
            if alert is not None and alert.kind == "change_percent":
                alert.begin_day(day)
                self.change.add(alert)
            yield None

    def _off_watch(self, reached: Iterator[WatchedAlert | None]) -> Iterator[WatchedAlert | None]:
        for alert in reached:
            if alert is not None:
                self.watched.discard(alert.id)
            yield alert


class AlertIndex:
    """All alerts that can fire, by symbol and threshold."""

    def __init__(self) -> None:
        self._symbols: dict[str, _Symbol] = {}
        self._known: dict[UUID, WatchedAlert] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, alert_id: UUID) -> bool:
        return alert_id in self._known

    def know(self, alert: WatchedAlert) -> None:
        """Add `alert` to those that can fire; it is not watched yet."""
        self._known[alert.id] = alert
        self._symbols.setdefault(alert.symbol, _Symbol()).known[alert.id] = alert

    def watch(self, alert: WatchedAlert) -> None:
        """Wait for the tick that changes the side of `alert`, if it is still known."""
        if not alert.is_gone:
            self._symbols[alert.symbol].watch(alert)

    def forget(self, alert_id: UUID) -> None:
        """Stop watching an alert, if it is known."""
        alert = self._known.pop(alert_id, None)
        if alert is None:
            return
        alert.is_gone = True
        symbol = self._symbols[alert.symbol]
        del symbol.known[alert_id]
        if alert_id in symbol.watched:
            symbol.watched.discard(alert_id)
            (symbol.change if alert.kind == "change_percent" else symbol.price).note_gone()
        if not symbol.known:
            del self._symbols[alert.symbol]

    def reached(self, quote: Quote) -> Iterator[WatchedAlert | None]:
        """Yield the alerts whose side changes with `quote`; they are not watched until `watch`.

        Yield None for each alert that was looked at in vain: of one symbol there may be very many, and the
        caller may pause after each. Until it has taken all, it must not ask for those of a further tick of
        the symbol, nor `watch` another alert on it.
        """
        symbol = self._symbols.get(quote.symbol)
        if symbol is not None:
            yield from symbol.reached(quote)


def day_of(quote: Quote) -> date:
    """Return the trading day that `quote` belongs to."""
    return sessions.trading_day(quote.replayed or quote.as_of)


def _pop(heap: list[_Entry], value: Decimal) -> Iterator[WatchedAlert]:
    while heap and heap[0][0] <= (value, 0):
        alert = heapq.heappop(heap)[2]
        if not alert.is_gone:
            yield alert
