"""The days that are replayed next, read ahead so that the replay survives an outage of the database."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, timedelta

from chassis import logging, redaction, supervision
from chassis.errors import DatabaseUnavailable
from stock_data.replay.ticks import ReplayBar

log = logging.get(__name__)

# Returns up to the given number of trading days from a date on, in order; none after the last one.
ReadDays = Callable[[date, int], Awaitable[Sequence[Sequence[ReplayBar]]]]

_READ_AT_ONCE = 40
_FEWEST_AHEAD = 20
PAUSE_S = 1.0


class ComingDays:
    """Day after day from `first` to the last one, and then again from `start_day`."""

    def __init__(self, read: ReadDays, *, first: date, start_day: date) -> None:
        self._read = read
        self._wanted = first
        self._start_day = start_day
        self._ahead: deque[Sequence[ReplayBar]] = deque()
        self._reading: asyncio.Task[None] | None = None

    async def next(self) -> Sequence[ReplayBar]:
        """Return the bars of the next day; wait only when none is left in the buffer."""
        while True:
            if len(self._ahead) <= _FEWEST_AHEAD and (self._reading is None or self._reading.done()):
                self._reading = asyncio.create_task(self._read_ahead())
            if self._ahead:
                return self._ahead.popleft()
            assert self._reading is not None
            await self._reading

    async def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            await supervision.end([self._reading])

    async def _read_ahead(self) -> None:
        try:
            days = await self._read(self._wanted, _READ_AT_ONCE)
        except (DatabaseUnavailable, TimeoutError) as error:
            reason = redaction.safe_message(error)
            log.warning("the next days to replay cannot be read", days_left=len(self._ahead), reason=reason)
            await asyncio.sleep(PAUSE_S)
            return
        if days:
            self._ahead.extend(days)
            self._wanted = days[-1][0].bar.day + timedelta(days=1)
        elif self._wanted != self._start_day:
            self._wanted = self._start_day
        else:
            log.warning("the history has no days to replay", start_day=str(self._start_day))
            await asyncio.sleep(PAUSE_S)
