"""Bars of one minute, built from the ticks of one leader of the feed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from contracts.stocks import LiveBar, Quote, StreamPosition
from stock_data import sessions

_MINUTE = timedelta(minutes=1)


@dataclass(slots=True)
class _Minute:
    """The bar of one minute so far, and its last tick."""

    t: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    volume: Decimal | None
    last: Quote
    ticks: int = 0
    is_closed: bool = False


class MinuteBars:
    """Builds the bar of the current minute of each symbol, in one epoch that begins at `since`.

    Minutes follow `as_of`, the time at which a tick was made, even while a replay runs faster.
    """

    def __init__(self, epoch: str, *, since: datetime) -> None:
        self._epoch = epoch
        self._since = since
        self._minutes: dict[str, _Minute] = {}
        self._offsets: dict[str, int] = {}
        self._closed: list[LiveBar] = []
        self._changed: dict[str, _Minute] = {}

    def add(self, quote: Quote) -> None:
        """Add a tick; ignore one that is older than the current bar of its symbol."""
        minute = self._minutes.get(quote.symbol)
        if minute is None or quote.as_of >= minute.t + _MINUTE:
            # The volume traded before the very first tick is unknown.
            last = quote
            if minute is not None:
                self._close(minute)
                last = minute.last
            t = quote.as_of.astimezone(UTC).replace(second=0, microsecond=0)
            volume = None if quote.volume is None else Decimal(0)
            minute = _Minute(t, quote.price, quote.price, quote.price, volume, last)
            self._minutes[quote.symbol] = minute
        elif quote.as_of < minute.t or minute.is_closed:
            return
        minute.high, minute.low = max(minute.high, quote.price), min(minute.low, quote.price)
        before, traded = minute.last.volume, None
        if before is not None and quote.volume is not None:
            # Volumes count from the start of the trading day.
            is_same_day = quote.volume >= before and _day(quote) == _day(minute.last)
            traded = quote.volume - before if is_same_day else quote.volume
        minute.volume = None if minute.volume is None or traded is None else minute.volume + traded
        minute.last = quote
        minute.ticks += 1
        self._changed[quote.symbol] = minute

    def take(self, now: datetime) -> list[LiveBar]:
        """Return the bars that have closed or changed since the last call, in the order of each symbol."""
        for minute in self._minutes.values():
            if not minute.is_closed and now >= minute.t + _MINUTE:
                self._close(minute)
        closed, self._closed = self._closed, []
        changed, self._changed = self._changed, {}
        return closed + [self._bar(minute) for minute in changed.values()]

    def _close(self, minute: _Minute) -> None:
        if minute.is_closed:
            return
        minute.is_closed = True
        self._changed.pop(minute.last.symbol, None)
        self._closed.append(self._bar(minute))

    def _bar(self, minute: _Minute) -> LiveBar:
        last = minute.last
        offset = self._offsets[last.symbol] = self._offsets.get(last.symbol, 0) + 1
        return LiveBar(
            symbol=last.symbol,
            t=minute.t,
            o=minute.open,
            h=minute.high,
            l=minute.low,
            c=last.price,
            v=minute.volume,
            ticks=minute.ticks,
            closed=minute.is_closed,
            partial=minute.t < self._since,
            currency=last.currency,
            as_of=last.as_of,
            source=last.source,
            simulated=last.simulated,
            session=last.session,
            stream=StreamPosition(epoch=self._epoch, offset=offset),
            replayed=last.replayed,
        )


def _day(quote: Quote) -> object:
    return sessions.trading_day(quote.replayed or quote.as_of)
