"""Watches the alerts while this replica leads: every tick is compared, every crossing is written once.

The database decides: a crossing counts when it changes the version of the alert that was read, in the latest
term. So an alert fires once for each crossing, whatever happens in between: a restart, a failover or two
leaders at once. Crossings during an interruption are found by the stored side of each alert.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, count, islice
from typing import TypeVar
from uuid import UUID

import asyncpg

from chassis import beats, logging, metrics, redaction
from chassis.postgres import DATABASE_FAILURES
from chassis.waits import until_set
from contracts.stocks import Quote
from stock_data.alerts.comparisons import Comparisons
from stock_data.alerts.crossings import Crossing, CrossingQueue
from stock_data.alerts.index import AlertIndex
from stock_data.alerts.repository import Horizon
from stock_data.alerts.stored import StoredAlerts
from stock_data.alerts.watched import WatchedAlert
from stock_data.replay.term import Term

log = logging.get(__name__)

Item = TypeVar("Item")

# An alert that fires on every crossing does so at most once in this time.
REST = timedelta(seconds=60)

# For alerts that another replica has stored or ended: this one wakes the watcher, up to four times as often.
LOOK_EVERY_S = 1.0
PAUSE_S = 1.0
_WRITTEN_AT_ONCE = 200
_ALERTS_OF_A_PASS = 200
# Attempts, while others are stored, for a crossing that the database refuses for what it is, or that fails by
# itself.
MOST_REFUSALS = 10
# Classes of PostgreSQL's errors about what is written: data, integrity, limits, triggers, damaged pages. With
# the others, the database will accept the same rows later.
_OF_A_ROW = ("21", "22", "23", "44", "54", "P0", "XX")


class AlertWatcher:
    """Compares ticks with the alerts, and writes the crossings without delaying the feed.

    An alert that has crossed is compared again once its crossing is written: while the database is down,
    there is at most one crossing of each alert in memory.
    """

    def __init__(self, alerts: StoredAlerts, *, wake_relay: Callable[[], None]) -> None:
        self._alerts = alerts
        self._wake_relay = wake_relay
        self._term = 0
        self._numbers = count()
        self._has_changes = asyncio.Event()
        self._forget_all()
        metrics.ALERTS_OLDEST_CROSSING.set_function(lambda: self.oldest_crossing_s)

    @property
    def armed(self) -> int:
        """The number of alerts that can fire."""
        return len(self._index)

    @property
    def unwritten(self) -> int:
        """The number of crossings that are not written yet, and of symbols with ticks to compare."""
        return len(self._crossed) + len(self._in_hand) + len(self._refused) + len(self._comparisons)

    @property
    def oldest_crossing_s(self) -> float:
        """The age of the oldest crossing that is not written yet, in seconds."""
        # Those that are tried again stand behind newer ones of their owner.
        queued = self._crossed if self._refusals else self._crossed.firsts()
        times = (crossing.quote.as_of for crossing in chain(self._in_hand, self._refused, queued))
        now = datetime.now(UTC)
        return max(0.0, (now - min(times, default=now)).total_seconds())

    def begin(self, term: Term) -> None:
        """Begin to watch in `term`; no alert is known until `run` has read them."""
        self._term = term.number
        self._forget_all()

    def take(self, quotes: Sequence[Quote]) -> None:
        """Begin to compare ticks, in order, with the alerts that they reach.

        An alert that cannot be compared is watched again; the last fault since the last call is raised.
        """
        for quote in quotes:
            self._comparisons.take(quote)
        self._comparisons.raise_fault()

    def wake(self) -> None:
        """Read new and ended alerts soon: this process has stored or ended some."""
        self._has_changes.set()

    async def run(self) -> None:
        """Read the alerts, then follow new, ended and crossed ones for as long as the term lasts."""
        try:
            horizon = await self._load()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(horizon))
                group.create_task(self._write())
        finally:
            self._forget_all()
            metrics.ALERTS_ARMED.set(0)

    def _forget_all(self) -> None:
        self._index = AlertIndex()
        self._crossed = CrossingQueue()
        # Those that are being written.
        self._in_hand: deque[Crossing] = deque()
        self._comparisons = Comparisons(self._index, on_crossing=self._crossed.add)
        # Crossings that failed when they were stored alone, and wait for their next attempt.
        self._refused: deque[Crossing] = deque()
        self._stored = 0
        # By alert, how often its crossing failed after others were stored, and `_stored` at the last attempt.
        self._refusals: dict[UUID, tuple[int, int]] = {}
        # By the time at which each is watched again.
        self._resting: list[tuple[datetime, int, WatchedAlert]] = []

    async def _load(self) -> Horizon:
        while True:
            try:
                horizon, alerts = await self._alerts.watched()
            except DATABASE_FAILURES as error:
                log.warning("the alerts cannot be read", reason=redaction.safe_message(error))
                await asyncio.sleep(PAUSE_S)
                continue
            await _in_parts(self._begin, alerts)
            log.info("watching alerts", alerts=len(alerts))
            return horizon

    def _begin(self, alert: WatchedAlert) -> None:
        if alert.id not in self._index:
            self._index.know(alert)
            self._watch_or_rest(alert)

    def _watch_or_rest(self, alert: WatchedAlert) -> None:
        """Watch `alert` at once, or when it has rested after its last firing."""
        ready_at = None if alert.fired_at is None else alert.fired_at + REST
        if ready_at is None or ready_at <= datetime.now(UTC):
            self._comparisons.watch(alert)
        else:
            heapq.heappush(self._resting, (ready_at, next(self._numbers), alert))

    def _rested(self, now: datetime) -> Iterator[WatchedAlert]:
        """Yield the alerts that are watched again at `now`."""
        while self._resting and self._resting[0][0] <= now:
            yield heapq.heappop(self._resting)[2]

    async def _follow(self, horizon: Horizon) -> None:
        """Read new and ended alerts periodically, and soon after each wake, until cancelled."""
        is_away, looked_at = False, 0.0
        while True:
            await until_set(self._has_changes, beats.due_in_s(LOOK_EVERY_S))
            await asyncio.sleep(max(0.0, looked_at + LOOK_EVERY_S / 4 - time.monotonic()))
            self._has_changes.clear()
            looked_at = time.monotonic()
            try:
                horizon, made, ended = await self._alerts.changed(horizon)
            except DATABASE_FAILURES as error:
                if not is_away:
                    log.warning("new alerts cannot be read", reason=redaction.safe_message(error))
                is_away, made, ended = True, [], []
            else:
                is_away = False
            await _in_parts(self._begin, made)
            await _in_parts(self._index.forget, ended)
            await _in_parts(self._comparisons.watch, self._rested(datetime.now(UTC)))
            while self._refused:
                self._crossed.add(self._refused.popleft())
            metrics.ALERTS_ARMED.set(self.armed)

    async def _write(self) -> None:
        """Write the crossings, in turns of their owners, until a later term begins.

        Those that fail together for another reason than the database are written one by one. One that fails
        alone is written after the others, and finally dropped with its alert, if others are stored meanwhile:
        otherwise nothing shows that the fault is its own.
        """
        is_one_by_one = False
        while True:
            if not self._in_hand:
                is_one_by_one = False
                self._in_hand.extend(await self._crossed.take(_WRITTEN_AT_ONCE))
            crossings = list(islice(self._in_hand, 1 if is_one_by_one else None))
            try:
                changed = await self._alerts.record(self._term, crossings)
                if changed is None:
                    # The feed notices its successor, too, and ends this term.
                    log.warning("another replica watches the alerts now", term=self._term)
                    await asyncio.sleep(PAUSE_S)
                    continue
                others = [one.alert.id for one in crossings if one.alert.id not in changed]
                current = await self._alerts.read(others) if others else []
            except Exception as error:  # of the database, or a fault of one crossing
                is_of_a_row = isinstance(error, asyncpg.PostgresError) and error.sqlstate[:2] in _OF_A_ROW
                if isinstance(error, DATABASE_FAILURES) and not is_of_a_row:
                    log.warning("crossings are not stored, retrying", reason=redaction.safe_message(error))
                    await asyncio.sleep(PAUSE_S)
                    continue
                if len(crossings) > 1:
                    is_one_by_one = True
                    continue
                changed, others, current = set(), [], []
                alert_id = crossings[0].alert.id
                refusals, stored_before = self._refusals.get(alert_id, (0, self._stored))
                refusals += self._stored > stored_before
                self._refusals[alert_id] = refusals, self._stored
                if refusals < MOST_REFUSALS:
                    self._refused.append(crossings[0])
                else:
                    others = [alert_id]
                    metrics.ALERTS_DROPPED.inc()
                    log.error("crossings of an alert are given up", alert=str(alert_id), exc_info=error)
            self._stored += len(changed)
            for crossing in crossings:
                self._in_hand.popleft()
                if crossing.alert.id in changed:
                    self._settle(crossing)
            for alert_id in others:
                self._refusals.pop(alert_id, None)
                self._index.forget(alert_id)
            for alert in current:
                self._begin(alert)
            self._wake_relay()

    def _settle(self, crossing: Crossing) -> None:
        """Continue with an alert whose crossing was written."""
        alert, fires = crossing.alert, crossing.fires
        self._refusals.pop(alert.id, None)
        alert.side, alert.day, alert.version = crossing.side, crossing.day, alert.version + 1
        if fires:
            alert.fired_at = crossing.quote.as_of
            metrics.ALERTS_FIRED.inc()
            late_s = (datetime.now(UTC) - crossing.quote.as_of).total_seconds()
            metrics.ALERT_FIRE_SECONDS.observe(max(0.0, late_s))
        if fires and alert.once:
            self._index.forget(alert.id)
        else:
            self._watch_or_rest(alert)


async def _in_parts(work: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Call `work` with each item; there may be very many, so the event loop gets a turn between parts."""
    for number, item in enumerate(items, start=1):
        work(item)
        if number % _ALERTS_OF_A_PASS == 0:
            await asyncio.sleep(0)
