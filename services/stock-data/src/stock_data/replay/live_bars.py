"""The bars of the feed's current minute, published by the replica that leads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from chassis import metrics
from chassis.waits import until_set
from contracts.stocks import BarsTicked, Quote
from stock_data.replay.minute_bars import MinuteBars
from stock_data.replay.outlet import Outlet, Send
from stock_data.replay.term import Term

# A bar is published at most this often, however fast the ticks arrive.
_EVERY_S = 0.25
_MINUTE_S = 60
_MESSAGE_BARS = 500


class LiveBars:
    """Builds bars from the ticks of this process while it leads, and publishes their changes."""

    def __init__(self, send: Send, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._outlet = Outlet(send, routing_key=BarsTicked.routing_key)
        self._bars: MinuteBars | None = None
        self._has_ticks = asyncio.Event()

    def begin(self, term: Term) -> None:
        """Build bars in the epoch of `term` from now on; the bar of a minute that has begun is partial."""
        self._bars = MinuteBars(str(term.number), since=self._clock())

    def take(self, quotes: Sequence[Quote]) -> None:
        """Add the ticks that the feed has just made."""
        assert self._bars is not None, "a term has begun"
        for quote in quotes:
            self._bars.add(quote)
        self._has_ticks.set()

    async def run(self) -> None:
        """Publish the bars that have changed or closed, for as long as the term lasts."""
        loop, rests_until = asyncio.get_running_loop(), 0.0
        while True:
            # A bar closes with its minute, even without another tick.
            await until_set(self._has_ticks, _MINUTE_S - self._clock().timestamp() % _MINUTE_S)
            await asyncio.sleep(max(0.0, rests_until - loop.time()))
            self._has_ticks.clear()
            rests_until = loop.time() + _EVERY_S
            assert self._bars is not None, "a term has begun"
            bars = self._bars.take(self._clock())
            for start in range(0, len(bars), _MESSAGE_BARS):
                ticked = BarsTicked(bars=bars[start : start + _MESSAGE_BARS])
                if await self._outlet.publish(ticked):
                    metrics.BARS_PUBLISHED.inc(len(ticked.bars))
