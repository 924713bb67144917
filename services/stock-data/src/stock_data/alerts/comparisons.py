"""Comparing ticks with the alerts that they reach, a few at a time, between which the event loop is free."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

from chassis.loop_turns import LoopTurns
from contracts.stocks import Quote
from stock_data.alerts.crossings import Crossing
from stock_data.alerts.index import AlertIndex, day_of
from stock_data.alerts.watched import WatchedAlert

# With the weight of a usual command.
_ALERTS_OF_A_TURN = 20
# Ticks of a symbol that wait while an earlier one is compared; then the newest replaces the one before it.
MOST_TICKS = 100


class Comparisons:
    """Hands on the crossings of each tick, symbol by symbol in the order of the ticks.

    Very many alerts may have their threshold at one price of one symbol: they are compared in turns of
    symbols, in which the next ticks of this symbol wait, and nothing else does. A fault that concerns one
    alert or one tick keeps nothing from the others; the last one is kept for `raise_fault`.
    """

    def __init__(self, index: AlertIndex, *, on_crossing: Callable[[Crossing], None]) -> None:
        self._index = index
        self._on_crossing = on_crossing
        self._turns = LoopTurns()
        # By symbol: the ticks that wait behind the one that is compared now, and alerts to watch after them.
        self._waiting: dict[str, deque[Quote | WatchedAlert]] = {}
        self._fault: Exception | None = None

    def __len__(self) -> int:
        """Return the number of symbols with ticks that are not compared yet."""
        return len(self._waiting)

    def take(self, quote: Quote) -> None:
        """Compare a tick with the first alerts that it reaches, and with the others in turns."""
        waiting = self._waiting.get(quote.symbol)
        if waiting is None:
            waiting = self._waiting[quote.symbol] = deque([quote])
            # Mostly it is the only one.
            self._go_on(quote.symbol, self._steps(waiting), at_most=2)
        elif len(waiting) >= MOST_TICKS and isinstance(waiting[-1], Quote):
            waiting[-1] = quote
        else:
            waiting.append(quote)

    def watch(self, alert: WatchedAlert) -> None:
        """Compare `alert` with the ticks after those that were taken before now."""
        waiting = self._waiting.get(alert.symbol)
        if waiting is None:
            self._index.watch(alert)
        else:
            waiting.append(alert)

    def raise_fault(self) -> None:
        """Raise the last fault since the last call, if there was any."""
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def _go_on(self, symbol: str, steps: Iterator[None], *, at_most: int = _ALERTS_OF_A_TURN) -> None:
        if sum(1 for _ in islice(steps, at_most)) < at_most:
            del self._waiting[symbol]
        else:
            self._turns.run(symbol, partial(self._go_on, symbol, steps))

    def _steps(self, waiting: deque[Quote | WatchedAlert]) -> Iterator[None]:
        """Do everything that waits for a symbol, with a pause after each alert."""
        while waiting:
            first = waiting.popleft()
            if isinstance(first, Quote):
                yield from self._compare(first)
            else:
                self._index.watch(first)
                yield

    def _compare(self, quote: Quote) -> Iterator[None]:
        failed: list[WatchedAlert] = []
        try:
            for alert in self._index.reached(quote):
                if alert is not None and not self._is_compared(alert, quote):
                    failed.append(alert)
                yield
        except Exception as error:  # of one tick: the next ones are compared, too
            self._fault = error
        for alert in failed:
            self._index.watch(alert)

    def _is_compared(self, alert: WatchedAlert, quote: Quote) -> bool:
        try:
            value = alert.value_of(quote)
            assert value is not None, "it was compared"
            crossing = Crossing(alert, alert.side_of(value), quote, day_of(quote))
        except Exception as error:  # of one alert: the others are compared, too
            self._fault = error
            return False
        if alert.expires_at is not None and alert.expires_at <= quote.as_of:
            self._index.forget(alert.id)
        else:
            self._on_crossing(crossing)
        return True
