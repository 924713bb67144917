"""The bars of the feed's current minute, published by the replica that leads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from chassis import beats, metrics
from contracts.stocks import BarsTicked, Quote
from stock_data.replay.minute_bars import MinuteBars
from stock_data.replay.outlet import Outlet, Send
from stock_data.replay.term import Term

# A bar is published at most this often, however fast the ticks arrive.
_EVERY_S = 0.25
_MESSAGE_BARS = 500


class LiveBars:
    """Builds bars from the ticks of this process while it leads, and publishes their changes."""

    def __init__(self, send: Send) -> None:
        self._outlet = Outlet(send, routing_key=BarsTicked.routing_key)
        self._bars: MinuteBars | None = None

    def begin(self, term: Term) -> None:
        """Build bars in the epoch of `term` from now on; the bar of a minute that has begun is partial."""
        self._bars = MinuteBars(str(term.number), since=datetime.now(UTC))

    def take(self, quotes: Sequence[Quote]) -> None:
        """Add the ticks that the feed has just made."""
        assert self._bars is not None, "a term has begun"
        for quote in quotes:
            self._bars.add(quote)

    async def run(self) -> None:
        """Publish the bars that have changed or closed, for as long as the term lasts."""
        while True:
            await beats.following(_EVERY_S)
            assert self._bars is not None, "a term has begun"
            bars = self._bars.take(datetime.now(UTC))
            for start in range(0, len(bars), _MESSAGE_BARS):
                ticked = BarsTicked(bars=bars[start : start + _MESSAGE_BARS])
                if await self._outlet.publish(ticked):
                    metrics.BARS_PUBLISHED.inc(len(ticked.bars))
