"""The ticks of one replayed day: every symbol's path side by side, as quotes with their stream position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from contracts.stocks import Quote, StreamPosition
from stock_data import quotes, sessions
from stock_data.bars import DailyBar
from stock_data.replay.paths import Tick, path

SOURCE = "replay"


@dataclass(frozen=True, slots=True)
class ReplayBar:
    """What a symbol did on the replayed day, and its close before (in the shares of the day)."""

    symbol: str
    currency: str
    bar: DailyBar
    previous_close: Decimal | None


class Offsets:
    """Counts the ticks of each symbol from 1; a new epoch starts again."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self._last: dict[str, int] = {}

    def next(self, symbol: str) -> StreamPosition:
        """The position of the next tick of `symbol`."""
        offset = self._last.get(symbol, 0) + 1
        self._last[symbol] = offset
        return StreamPosition(epoch=self.epoch, offset=offset)


def steps(day: Sequence[ReplayBar], count: int, offsets: Offsets) -> Iterator[list[Quote]]:
    """The day in `count` steps: the next quote of each symbol, in the order of `day`."""
    paths = [path(of.symbol, of.bar, count) for of in day]
    for ticks in zip(*paths, strict=True):
        now = datetime.now(UTC)
        yield [_quote(of, tick, offsets.next(of.symbol), now) for of, tick in zip(day, ticks, strict=True)]


def _quote(of: ReplayBar, tick: Tick, position: StreamPosition, now: datetime) -> Quote:
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
        stream=position,
        replayed=sessions.opening(of.bar.day) + tick.part * sessions.REGULAR,
    )
