"""Firing: due times become runs, each once, and a run becomes an event that is sent after its transaction."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from uuid import UUID

from batch_processor.background import rounds
from batch_processor.schedules import planning, repository
from batch_processor.schedules.due_times import InvalidCron, UnknownTimeZone
from batch_processor.schedules.planning import Load, Plan, StoredSchedule
from batch_processor.schedules.repository import NewRun
from batch_processor.schedules.turns import ScheduleTurns
from chassis import beats, logging, metrics, outbox
from chassis.broker.envelope import Delivery, event
from chassis.postgres import Connection, Postgres
from contracts.schedules import RefuseRun, ScheduleFired

log = logging.get(__name__)

_LOOK_EVERY_S = 1.0
_CLEAN_EVERY_S = 60
# The most runs that one transaction stores, of several schedules: their templates may be large.
_MOST_RUNS = 100


class ScheduleFiring:
    """Fires due schedules, in any number of coordinators. `fired` is called when an event was stored."""

    def __init__(
        self, postgres: Postgres, *, runs_kept: int, retention_days: int, fired: Callable[[], None]
    ) -> None:
        self._postgres = postgres
        self._runs_kept = runs_kept
        self._retention_days = retention_days
        self._due = ScheduleTurns(postgres, "due times", done=fired)
        self._waiting = ScheduleTurns(postgres, "waiting runs", done=fired)
        # A separate thread: due schedules are locked meanwhile, and must not wait for requests of owners.
        self._planner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="planner")
        self._wake = asyncio.Event()
        self._busy = asyncio.Event()

    @property
    def is_busy(self) -> bool:
        """Whether a schedule was due, or a run was active or waiting, at the last look."""
        return self._busy.is_set()

    def wake(self) -> None:
        """Look at once: there is something to fire or to follow."""
        self._wake.set()

    async def fire_forever(self) -> None:
        """Fire due schedules, until cancelled."""
        while True:
            self._wake.clear()
            await rounds.attempt("look at schedules", self.look)
            if self.is_busy:
                await rounds.attempt("schedules", self.fire)
                await beats.following(_LOOK_EVERY_S)
            else:
                await self._wake.wait()

    async def follow_forever(self) -> None:
        """Fire waiting runs and measure what is late, until cancelled, even while many schedules are due."""
        while True:
            await self._busy.wait()
            await rounds.attempt("runs of schedules", self.follow)
            await beats.following(_LOOK_EVERY_S)

    async def clean_forever(self) -> None:
        """Remove runs that are past their retention, until cancelled."""
        while True:
            await rounds.attempt("removal of runs", self.clean)
            await asyncio.sleep(_CLEAN_EVERY_S)

    async def look(self) -> None:
        """Find out with one statement whether a schedule is due, or a run is active or waiting."""
        async with self._postgres.connection() as connection:
            is_busy = await repository.is_busy(connection)
        if is_busy:
            self._busy.set()
        else:
            self._busy.clear()
            metrics.SCHEDULES_LATE.set(0)

    async def fire(self) -> None:
        """Fire all due schedules: the first of each owner, then the second of each, and so on."""

        async def fire_some(connection: Connection, ids: Sequence[UUID]) -> int:
            return await self.fire_some(connection, ids, now=datetime.now(UTC))

        await self._due.take(repository.list_due, fire_some)

    async def fire_some(self, connection: Connection, ids: Sequence[UUID], *, now: datetime) -> int:
        """Fire some schedules in the caller's transaction; return how many.

        Schedules that another coordinator has locked or fired are skipped, and those that would make too many
        runs at once are left for later.
        """
        due = await repository.lock_due(connection, ids, now=now)
        if not due:
            return 0
        loads = await repository.loads(connection, due)
        # Old due times may have to be searched, which takes processor time: it runs in a thread.
        plans = await asyncio.get_running_loop().run_in_executor(
            self._planner,
            lambda: [_plan(schedule, loads.get(schedule.id, Load()), now=now) for schedule in due],
        )
        runs_before = accumulate((len(one.runs) for one in plans), initial=0)
        plans = [one for one, before in zip(plans, runs_before, strict=False) if before < _MOST_RUNS]
        due = due[: len(plans)]
        runs = [NewRun.of(one.schedule, run) for one in plans for run in one.runs]
        new = await store_runs(connection, runs, now=now)
        await repository.move(connection, [one.schedule for one in plans])
        await repository.trim_runs(connection, [one.schedule.id for one in plans], keep=self._runs_kept)
        _measure(due, [run for run in runs if run.id in new], now=now)
        return len(due)

    async def follow(self) -> None:
        """Record runs that have ended, fire the runs that waited for them, and count late ones."""
        async with self._postgres.connection() as connection:
            await repository.settle(connection)
        await self._waiting.take(repository.list_next_waiting, _fire_waiting)
        async with self._postgres.connection() as connection:
            metrics.SCHEDULES_LATE.set(await repository.count_late(connection))

    async def clean(self) -> None:
        """Give up runs that were never accepted, and remove runs that are past their retention."""
        async with self._postgres.connection() as connection:
            given_up = await repository.give_up(connection)
        if given_up:
            log.warning("runs of schedules given up: the gateway never accepted them", runs=given_up)
            metrics.SCHEDULE_RUNS.labels("refused").inc(given_up)
        is_more = True
        while is_more:
            async with self._postgres.connection() as connection:
                is_more = await repository.clean(connection, days=self._retention_days)

    async def refuse(self, connection: Connection, deliveries: Sequence[Delivery[RefuseRun]]) -> None:
        """Store the reasons why runs that had fired were not accepted."""
        await repository.refuse(connection, [delivery.message for delivery in deliveries])
        metrics.SCHEDULE_RUNS.labels("refused").inc(len(deliveries))


async def store_runs(connection: Connection, runs: Sequence[NewRun], *, now: datetime) -> set[UUID]:
    """Store runs, and the events of those that fire; return the ids of the new ones."""
    new = await repository.insert_runs(connection, runs, now=now) if runs else set()
    fired = [run for run in runs if run.id in new and run.planned.status == "fired"]
    await _announce(connection, [(run.schedule, run.id, run.planned.due_at) for run in fired], now=now)
    return new


async def _fire_waiting(connection: Connection, ids: Sequence[UUID]) -> int:
    """Fire the oldest waiting run of each of these schedules; return how many were fired."""
    now = datetime.now(UTC)
    waiting = await repository.lock_next_waiting(connection, ids)
    fired = await repository.fire_waiting(connection, [run_id for _, run_id, _ in waiting], now=now)
    await _announce(connection, [one for one in waiting if one[1] in fired], now=now)
    metrics.SCHEDULE_RUNS.labels("fired").inc(len(fired))
    return len(fired)


async def _announce(
    connection: Connection, fired: Sequence[tuple[StoredSchedule, UUID, datetime]], *, now: datetime
) -> None:
    """Write the events of runs that begin to the outbox, with the ids of the runs."""
    messages = [
        event(
            ScheduleFired(
                run_id=run_id,
                schedule_id=schedule.id,
                owner_id=schedule.owner_id,
                made_by=schedule.made_by,
                scopes=None if schedule.scopes is None else list(schedule.scopes),
                due_at=due_at,
                fired_at=now,
                kind=schedule.kind,
                template=schedule.template,
            ),
            message_id=run_id,
            tenant=schedule.owner_id,
        )
        for schedule, run_id, due_at in fired
    ]
    if messages:
        await outbox.add(connection, messages)


def _plan(schedule: StoredSchedule, load: Load, *, now: datetime) -> Plan:
    """Return the plan of a schedule; pause one that can no longer be planned, without harm to others."""
    try:
        made = planning.plan(schedule, load, now=now)
    except (InvalidCron, UnknownTimeZone) as error:
        log.warning("schedule paused", schedule=str(schedule.id), reason=str(error))
        return Plan(replace(schedule, due_at=None, fire_at=None, paused_reason=str(error)))
    if made.schedule.fire_at is None:
        return replace(made, schedule=replace(made.schedule, paused_reason="It has no further due time."))
    return made


def _measure(due: Sequence[StoredSchedule], runs: Sequence[NewRun], *, now: datetime) -> None:
    for status, number in Counter(run.planned.status for run in runs).items():
        metrics.SCHEDULE_RUNS.labels(status).inc(number)
    on_time = {run.schedule.id for run in runs if run.planned.trigger == "due" and run.planned.code is None}
    for schedule in due:
        if schedule.id in on_time and schedule.fire_at is not None:
            metrics.SCHEDULE_LATENESS.observe(max(timedelta(), now - schedule.fire_at).total_seconds())
