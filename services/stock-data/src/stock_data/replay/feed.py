"""The feed: plays day after day at the chosen speed, puts every tick on the board and publishes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from chassis import logging, metrics
from chassis.broker import envelope
from chassis.broker.envelope import Outgoing
from chassis.errors import Unavailable
from contracts import topology
from contracts.stocks import Quote, QuotesTicked
from stock_data import sessions
from stock_data.board import Board
from stock_data.replay.paths import FEWEST_TICKS
from stock_data.replay.ticks import Offsets, ReplayBar, steps

log = logging.get(__name__)

# The next replayed day from a date on, in symbol order; empty after the last one.
NextDay = Callable[[date], Awaitable[Sequence[ReplayBar]]]
Send = Callable[[Outgoing], Awaitable[None]]

# Steps that follow each other faster are played together: timers below this only burn the processor.
_SHORTEST_SLEEP_S = 0.01
_MOST_BEHIND_S = 1.0
_SEND_TIMEOUT_S = 1.0
_MESSAGE_QUOTES = 500
_PAUSE_WITHOUT_DAYS_S = 5.0


@dataclass(frozen=True)
class Pace:
    """How fast history plays: `speed` market seconds a second, so many ticks a second for each symbol."""

    speed: float
    ticks_per_s: float
    start_day: date

    @property
    def day_s(self) -> float:
        """How many seconds a replayed day lasts."""
        return sessions.REGULAR.total_seconds() / self.speed

    @property
    def ticks_per_day(self) -> int:
        """How many ticks of each symbol a day has."""
        return max(FEWEST_TICKS, round(self.day_s * self.ticks_per_s))


class Feed:
    """Replays days over and over, from `pace.start_day` to the last and then again."""

    def __init__(self, pace: Pace, *, next_day: NextDay, board: Board, send: Send) -> None:
        self._pace = pace
        self._next_day = next_day
        self._board = board
        self._send = send
        self._dropping = False
        self.is_running = False

    async def run(self) -> None:
        """Play for ever; each run is a new epoch."""
        offsets = Offsets(str(envelope.new_id()))
        log.info("replay started", epoch=offsets.epoch, start_day=str(self._pace.start_day))
        self.is_running = True
        metrics.FEED_RUNNING.set(1)
        try:
            async for day in self._days():
                await self._play(day, offsets)
        finally:
            self.is_running = False
            metrics.FEED_RUNNING.set(0)

    async def _days(self) -> AsyncIterator[Sequence[ReplayBar]]:
        wanted = self._pace.start_day
        while True:
            day = await self._next_day(wanted)
            if day:
                yield day
                wanted = day[0].bar.day + timedelta(days=1)
            elif wanted == self._pace.start_day:
                log.warning("nothing to replay", start_day=str(wanted))
                await asyncio.sleep(_PAUSE_WITHOUT_DAYS_S)
            else:
                wanted = self._pace.start_day

    async def _play(self, day: Sequence[ReplayBar], offsets: Offsets) -> None:
        loop = asyncio.get_running_loop()
        count = self._pace.ticks_per_day
        interval_s = self._pace.day_s / count
        together = max(1, round(_SHORTEST_SLEEP_S / interval_s))
        due = loop.time()
        gathered: list[Quote] = []
        for number, step in enumerate(steps(day, count, offsets), start=1):
            gathered += step
            due += interval_s
            if number % together and number < count:
                continue
            await self._publish(gathered)
            gathered = []
            # After a standstill the feed goes on from here instead of rushing through what it missed.
            due = max(due, loop.time() - _MOST_BEHIND_S)
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _publish(self, quotes: list[Quote]) -> None:
        self._board.put(quotes)
        for start in range(0, len(quotes), _MESSAGE_QUOTES):
            part = quotes[start : start + _MESSAGE_QUOTES]
            if await self._sent(QuotesTicked(quotes=part)):
                metrics.TICKS.inc(len(part))

    async def _sent(self, ticked: QuotesTicked) -> bool:
        """Publish without waiting for a confirm; a tick that cannot leave now is worth nothing later."""
        try:
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                await self._send(envelope.live(ticked, ticked.routing_key))
        except (Unavailable, TimeoutError) as error:
            metrics.PUBLISHED.labels(topology.LIVE, "dropped").inc()
            self._say_dropping(error)
            return False
        self._dropping = False
        return True

    def _say_dropping(self, error: BaseException) -> None:
        if not self._dropping:
            log.warning("ticks are dropped", reason=str(error) or type(error).__name__)
        self._dropping = True
