"""The feed: replays day after day at the chosen speed, puts every tick on the board and publishes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import date

from chassis import logging, metrics, plain
from contracts.stocks import Quote, QuotesTicked, StreamPosition
from stock_data import sessions
from stock_data.replay.board import Board
from stock_data.replay.coming_days import ComingDays, ReadDays
from stock_data.replay.outlet import Outlet, Send
from stock_data.replay.term import Term
from stock_data.replay.ticks import Offsets, ReplayedDay, ReplaySpeed

log = logging.get(__name__)

# Called with the ticks of this process in their order, before they are published.
OnTicks = Callable[[Sequence[Quote]], None]

# Steps that are closer together are played at once: shorter timers only waste processor time.
_SHORTEST_SLEEP_S = 0.01
_MOST_BEHIND_S = 1.0
_MESSAGE_QUOTES = 500
# Skipping more steps than this would take too long: the rest of that day is left out instead.
MOST_SKIPPED = 100_000


class Feed:
    """Replays days over and over, continuing at the last leader's position, or at `start_day`."""

    def __init__(
        self,
        speed: ReplaySpeed,
        *,
        start_day: date,
        read_days: ReadDays,
        board: Board,
        send: Send,
        on_ticks: Sequence[OnTicks] = (),
    ) -> None:
        self._speed = speed
        self._start_day = start_day
        self._read_days = read_days
        self._board = board
        self._outlet = Outlet(send, routing_key=QuotesTicked.routing_key)
        self._on_ticks = on_ticks
        # Listeners that failed with the last ticks: only the first failure in a row is logged as an error.
        self._failing: set[OnTicks] = set()
        self.epoch: str | None = None

    @property
    def is_running(self) -> bool:
        """Whether this process runs the feed."""
        return self.epoch is not None

    async def run(self, term: Term) -> None:
        """Replay in the epoch of `term`, and return when ticks of a later leader arrive."""
        offsets, position = Offsets(str(term.number)), term.position
        first = self._start_day if position is None else sessions.day_of(position.replayed)
        days = ComingDays(self._read_days, first=first, start_day=self._start_day)
        log.info("replay resumed" if position else "replay started", epoch=offsets.epoch, day=str(first))
        self.epoch = offsets.epoch
        metrics.FEED_RUNNING.set(1)
        try:
            leads = True
            while leads:
                day = ReplayedDay(await days.next(), self._speed)
                shown = day.steps_until(position.replayed) if position else 0
                position = None
                if shown <= MOST_SKIPPED:
                    await day.skip(shown)
                    leads = await self._play(day, offsets)
            log.warning("another replica has become the feed leader", epoch=self._board.epoch)
        finally:
            self.epoch = None
            metrics.FEED_RUNNING.set(0)
            await days.close()

    async def restore(self, term: Term) -> None:
        """Put the last leader's quotes on the board, for answers until the first tick.

        Without them, quotes would come from the newest bars, which may be years later. Their
        offset is 0, so that every tick follows them.
        """
        position = term.position
        if position is None:
            return
        days = await self._read_days(sessions.day_of(position.replayed), 1)
        day = ReplayedDay(days[0], self._speed) if days else None
        shown = day.steps_until(position.replayed) if day else 0
        if day is None or not 0 < shown <= MOST_SKIPPED:
            return
        await day.skip(shown - 1)
        update = {"as_of": position.shown_at, "stream": StreamPosition(epoch=str(term.number), offset=0)}
        last_shown = next(day.quotes(Offsets(str(term.number))))
        self._board.put(quote.model_copy(update=update) for quote in last_shown)

    async def _play(self, day: ReplayedDay, offsets: Offsets) -> bool:
        """Play the remaining steps of `day`; return False as soon as ticks of a later leader arrive."""
        loop = asyncio.get_running_loop()
        interval_s = day.seconds / day.count
        together = max(1, round(_SHORTEST_SLEEP_S / interval_s))
        # In one wake with the other work that is due each second. The first step is played at once.
        due = loop.time() - loop.time() % interval_s
        gathered: list[Quote] = []
        last = day.left
        for number, step in enumerate(day.quotes(offsets), start=1):
            gathered += step
            due += interval_s
            if number % together and number < last:
                continue
            self._board.put(gathered)
            if self._board.epoch != offsets.epoch:
                return False
            for listener in self._on_ticks:
                try:
                    listener(gathered)
                except Exception as error:  # one listener must not end the feed of all symbols
                    say = log.debug if listener in self._failing else log.error
                    say("a listener failed for ticks", listener=plain.text(listener), exc_info=error)
                    self._failing.add(listener)
                else:
                    self._failing.discard(listener)
            for start in range(0, len(gathered), _MESSAGE_QUOTES):
                ticked = QuotesTicked(quotes=gathered[start : start + _MESSAGE_QUOTES])
                if await self._outlet.publish(ticked):
                    metrics.TICKS.inc(len(ticked.quotes))
            gathered = []
            # After a stall the feed continues from now instead of rushing through the steps it missed.
            due = max(due, loop.time() - _MOST_BEHIND_S)
            await asyncio.sleep(max(0.0, due - loop.time()))
        return True
