"""The ticks of one replayed day: all symbols' paths in parallel, as quotes with stream positions."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice

from contracts.stocks import Quote, StreamPosition
from stock_data import quotes, sessions
from stock_data.history.bars import DailyBar
from stock_data.replay.paths import FEWEST_TICKS, Tick, path

SOURCE = "replay"

_SKIPPED_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class ReplayBar:
    """A symbol's bar of the replayed day, and its previous close (in the shares of the day)."""

    symbol: str
    currency: str
    bar: DailyBar
    previous_close: Decimal | None


@dataclass(frozen=True)
class ReplaySpeed:
    """The speed of the replay: market seconds in one second, and ticks a second of each symbol."""

    market_s_per_s: float
    ticks_per_s: float


class ReplayedDay:
    """One day in `count` steps over `seconds`; each has the next quote of every symbol."""

    def __init__(self, bars: Sequence[ReplayBar], speed: ReplaySpeed) -> None:
        day = bars[0].bar.day
        self._bars = bars
        self._opening = sessions.opening(day)
        self._length = sessions.closing(day) - self._opening
        self.seconds = self._length.total_seconds() / speed.market_s_per_s
        self.count = max(FEWEST_TICKS, round(self.seconds * speed.ticks_per_s))
        self.left = self.count
        self._ticks = zip(*(path(each.symbol, each.bar, self.count) for each in bars), strict=True)

    def steps_until(self, moment: datetime) -> int:
        """Return the number of steps of this day up to `moment`."""
        part = (moment - self._opening) / self._length
        return max(0, min(self.count, round(part * (self.count - 1)) + 1))

    async def skip(self, steps: int) -> None:
        """Skip the next `steps` steps in a thread: each takes some microseconds for each symbol."""
        until = self.left - steps
        while self.left > until:
            part = min(self.left - until, _SKIPPED_AT_ONCE)
            await asyncio.to_thread(deque, islice(self._ticks, part), maxlen=0)
            self.left -= part

    def quotes(self, offsets: Offsets) -> Iterator[list[Quote]]:
        """Yield the quotes of each step that is left."""
        for ticks in self._ticks:
            self.left -= 1
            now = datetime.now(UTC)
            replayed = self._opening + ticks[0].part * self._length
            yield [
                _quote(of, tick, offsets.next(of.symbol), now, replayed)
                for of, tick in zip(self._bars, ticks, strict=True)
            ]


class Offsets:
    """Counts the ticks of each symbol from 1; a new epoch starts again."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self._last: dict[str, int] = {}

    def next(self, symbol: str) -> StreamPosition:
        """Return the position of the next tick of `symbol`."""
        offset = self._last.get(symbol, 0) + 1
        self._last[symbol] = offset
        return StreamPosition(epoch=self.epoch, offset=offset)


def _quote(of: ReplayBar, tick: Tick, at: StreamPosition, now: datetime, replayed: datetime) -> Quote:
    difference, percent = quotes.change(tick.price, of.previous_close)
    return Quote(
        symbol=of.symbol,
        price=tick.price,
        open=of.bar.open,
        high=tick.high,
        low=tick.low,
        previous_close=of.previous_close,
        change=difference,
        change_percent=percent,
        volume=tick.volume,
        currency=of.currency,
        as_of=now,
        source=SOURCE,
        simulated=True,
        session="regular",
        stream=at,
        replayed=replayed,
    )
