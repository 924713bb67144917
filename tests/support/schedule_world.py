"""Schedules on a real PostgreSQL, whose due times a test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from batch_processor.schedules.answers import ScheduleAnswers
from batch_processor.schedules.firing import ScheduleFiring
from chassis.broker import envelope
from chassis.deadlines import Deadline
from chassis.postgres import Postgres
from contracts.schedules import (
    ChangeSchedule,
    CreateSchedule,
    GetSchedule,
    ListScheduleRuns,
    PauseSchedule,
    RunSchedule,
    Schedule,
    ScheduleFired,
    ScheduleRun,
)
from support import databases
from support.waiting_messages import waiting_messages

SOON = Deadline(float("inf"))
HOUR = timedelta(hours=1)


class ScheduleWorld:
    """A database, the schedules of its owners, and coordinators that fire them."""

    def __init__(self, postgres: Postgres) -> None:
        self.postgres = postgres
        self.woken = 0
        self.answers = ScheduleAnswers(postgres, most_of_owner=5, runs_kept=20, fired=self._wake)
        self.firing = self.coordinator()

    def coordinator(self, *, retention_days: int = 30) -> ScheduleFiring:
        return ScheduleFiring(self.postgres, runs_kept=20, retention_days=retention_days, fired=self._wake)

    def _wake(self) -> None:
        self.woken += 1

    async def create(self, owner_id: str = "7", **wanted: Any) -> Schedule:
        """Return a schedule that is due every hour."""
        fields = {
            "schedule_id": envelope.new_id(),
            "owner_id": owner_id,
            "made_by": "key",
            "name": "hourly",
            "cron": "0 * * * *",
            "time_zone": "UTC",
            "overlap": "allow",
            "missed": "once",
            "catch_up_window_s": 86_400,
            "jitter_s": 0,
            "kind": "task",
            "operation": "echo",
            "template": '{"operation":"echo", "payload":1.10}',
        }
        return await self.answers.create(CreateSchedule.model_validate(fields | wanted), SOON)

    async def get(self, schedule: Schedule, owner_id: str = "7", **wanted: Any) -> Schedule:
        request = GetSchedule(schedule_id=schedule.id, owner_id=owner_id, **wanted)
        return await self.answers.get(request, SOON)

    async def change(self, schedule: Schedule, **wanted: Any) -> Schedule:
        seen = {"schedule_id": schedule.id, "revision": schedule.revision}
        request = ChangeSchedule.model_validate({**seen, "owner_id": "7", "made_by": "key", **wanted})
        return await self.answers.change(request, SOON)

    async def pause(self, schedule: Schedule, *, paused: bool = True) -> Schedule:
        request = PauseSchedule(schedule_id=schedule.id, owner_id="7", paused=paused)
        return await self.answers.pause(request, SOON)

    async def run(self, schedule: Schedule, *, request_key: str | None = None) -> ScheduleRun:
        request = RunSchedule(
            schedule_id=schedule.id,
            owner_id="7",
            run_id=envelope.new_id(),
            revision=schedule.revision,
            request_key=request_key,
        )
        return (await self.answers.run(request, SOON)).run

    async def runs(self, schedule: Schedule, **wanted: Any) -> list[ScheduleRun]:
        """Return the runs, the oldest first."""
        request = ListScheduleRuns(schedule_id=schedule.id, owner_id="7", **wanted)
        return (await self.answers.runs(request, SOON)).data[::-1]

    async def make_due(self, schedule: Schedule, *, ago: timedelta = timedelta()) -> datetime:
        """Let the schedule be due some time ago; return when."""
        return await self.make_due_at(schedule, datetime.now(UTC) - ago)

    async def make_due_at(self, schedule: Schedule, due_at: datetime) -> datetime:
        """Let the schedule be due at a time; return it."""
        await self.rows("UPDATE schedules SET due_at = $2, fire_at = $2 WHERE id = $1", schedule.id, due_at)
        return due_at

    async def fire(self, schedule: Schedule) -> ScheduleRun:
        """Let the schedule be due now, and return the run of it."""
        await self.make_due(schedule)
        await self.firing.fire()
        return (await self.runs(schedule))[-1]

    async def begin(self, run: ScheduleRun) -> None:
        """Let the batch or task of a run come."""
        await self.rows(
            "INSERT INTO batches (id, owner_id, operation, status) VALUES ($1, '7', 'echo', 'running')",
            run.id,
        )

    async def end(self, run: ScheduleRun, status: str = "completed") -> None:
        """Let the batch or task of a run end."""
        await self.rows("UPDATE batches SET status = $2, finished_at = now() WHERE id = $1", run.id, status)

    async def clear(self) -> None:
        """Forget all schedules, their runs, the batches of those and what the outbox holds."""
        await self.rows("TRUNCATE schedules, schedule_runs, schedule_owners, batches, outbox")

    async def rows(self, statement: str, *arguments: object) -> Sequence[asyncpg.Record]:
        async with self.postgres.connection() as connection:
            return await connection.fetch(statement, *arguments)

    async def events(self) -> list[ScheduleFired]:
        """Return the events that wait in the outbox."""
        async with self.postgres.connection() as connection:
            messages = await waiting_messages(connection)
        assert {message.message_type for message in messages} <= {ScheduleFired.message_type}
        fired = [ScheduleFired.model_validate_json(message.body) for message in messages]
        assert [event.run_id for event in fired] == [UUID(message.message_id) for message in messages]
        return fired


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[ScheduleWorld]:
    """Yield a world in a database that the batch processor has migrated."""
    postgres = Postgres(dsn, size=6)
    await postgres.open()
    yield ScheduleWorld(postgres)
    await postgres.close()


@asynccontextmanager
async def on_server(url: str) -> AsyncIterator[ScheduleWorld]:
    """Yield a world in a database of its own on a server, which is dropped at the end of the block."""
    server = databases.on(url)
    dsn = await server.create("batch_processor")
    try:
        async with opened(dsn) as world:
            yield world
    finally:
        await server.drop(dsn)
