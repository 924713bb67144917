"""Schedules and their runs in PostgreSQL. Every function works on the caller's connection."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from batch_processor.schedules.planning import Load, PlannedRun, StoredSchedule
from chassis import queries
from chassis.broker import envelope
from chassis.postgres import Connection, affected_rows
from contracts.message import Next
from contracts.schedules import (
    GIVEN_UP_AFTER_S,
    ON_TIME_S,
    CreateSchedule,
    ListScheduleRuns,
    ListSchedules,
    RefuseRun,
    RunStatus,
    ScheduleRun,
)

_SQL = queries.of("batch_processor")
_FIELDS = tuple(field.name for field in fields(StoredSchedule))
# The most rows that one transaction changes: few enough not to block others for long.
_STEP = 1_000
_GIVEN_UP = "The gateway did not accept the run within a day."


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to store, with its id and the key of the request that caused it."""

    id: UUID
    schedule: StoredSchedule
    planned: PlannedRun
    request_key: str | None = None

    @classmethod
    def of(cls, schedule: StoredSchedule, planned: PlannedRun, *, request_key: str | None = None) -> NewRun:
        """Return a run with an id of its own."""
        return cls(envelope.new_id(), schedule, planned, request_key)


async def lock_owner(connection: Connection, owner_id: str) -> None:
    """Lock the owner, so that only the caller's transaction creates schedules for it."""
    await connection.execute(_SQL["lock_schedule_owner"], owner_id)


async def find_of_request(connection: Connection, owner_id: str, request_key: str) -> StoredSchedule | None:
    """Return the schedule that a request with the same key has created."""
    row = await connection.fetchrow(_SQL["find_schedule_of_request"], owner_id, request_key)
    return None if row is None else _schedule(row)


async def count(connection: Connection, owner_id: str) -> int:
    """Return how many schedules the owner has."""
    return int(await connection.fetchval(_SQL["count_schedules"], owner_id))


async def insert(
    connection: Connection, wanted: CreateSchedule, *, due_at: datetime | None, fire_at: datetime | None
) -> StoredSchedule:
    """Store a schedule whose first due time is `due_at`."""
    row = await connection.fetchrow(
        _SQL["insert_schedule"],
        wanted.schedule_id,
        wanted.owner_id,
        wanted.made_by,
        wanted.request_key,
        wanted.name,
        wanted.cron,
        wanted.time_zone,
        wanted.overlap,
        wanted.missed,
        wanted.catch_up_window_s,
        wanted.jitter_s,
        wanted.kind,
        wanted.operation,
        wanted.template,
        due_at,
        fire_at,
        wanted.scopes,
    )
    assert row is not None, "an insert returns its row"
    return _schedule(row)


async def get(
    connection: Connection, schedule_id: UUID, owner_id: str, *, lock: bool = False
) -> StoredSchedule | None:
    """Return a schedule of the owner; with `lock`, no other transaction changes or fires it meanwhile."""
    row = await connection.fetchrow(_SQL["lock_schedule" if lock else "get_schedule"], schedule_id, owner_id)
    return None if row is None else _schedule(row)


async def page(connection: Connection, wanted: ListSchedules, *, limit: int) -> list[StoredSchedule]:
    """Return schedules of the owner, newest first."""
    rows = await connection.fetch(
        _SQL["list_schedules"],
        wanted.owner_id,
        wanted.before,
        wanted.status or None,
        wanted.operations or None,
        wanted.created_after,
        wanted.created_before,
        limit,
    )
    return [_schedule(row) for row in rows]


async def update(connection: Connection, schedule: StoredSchedule) -> StoredSchedule:
    """Store the owner's changes as a new revision."""
    row = await connection.fetchrow(
        _SQL["update_schedule"],
        schedule.id,
        schedule.made_by,
        schedule.name,
        schedule.cron,
        schedule.time_zone,
        schedule.overlap,
        schedule.missed,
        schedule.catch_up_window_s,
        schedule.jitter_s,
        schedule.kind,
        schedule.operation,
        schedule.template,
        schedule.is_paused,
        schedule.paused_reason,
        schedule.due_at,
        schedule.fire_at,
        schedule.scopes,
    )
    assert row is not None, "a locked schedule cannot be deleted"
    return _schedule(row)


async def delete(connection: Connection, schedule_id: UUID) -> None:
    """Remove a schedule with its runs; their batches and tasks stay."""
    await connection.execute(_SQL["delete_schedule"], schedule_id)


async def is_busy(connection: Connection) -> bool:
    """Return whether a schedule is due, or a run is active or waiting."""
    return bool(await connection.fetchval(_SQL["has_schedules_at_work"]))


async def list_due(connection: Connection, but: Collection[UUID], most: int) -> list[UUID]:
    """Return due schedules, except those in `but`, by owner in turn."""
    return [row["id"] for row in await connection.fetch(_SQL["list_due_schedules"], list(but), most)]


async def lock_due(connection: Connection, ids: Sequence[UUID], *, now: datetime) -> list[StoredSchedule]:
    """Return those of the schedules that are still due and that no other coordinator has locked."""
    return [_schedule(row) for row in await connection.fetch(_SQL["lock_due_schedules"], list(ids), now)]


async def move(connection: Connection, schedules: Sequence[StoredSchedule]) -> None:
    """Store the next due times of these schedules."""
    await connection.execute(
        _SQL["move_schedules"],
        [schedule.id for schedule in schedules],
        [schedule.due_at for schedule in schedules],
        [schedule.fire_at for schedule in schedules],
        [schedule.paused_reason for schedule in schedules],
    )


async def loads(connection: Connection, schedules: Sequence[StoredSchedule]) -> dict[UUID, Load]:
    """Return the numbers of active and waiting runs of each schedule that has some."""
    rows = await connection.fetch(_SQL["count_active_runs"], [schedule.id for schedule in schedules])
    return {row["schedule_id"]: Load(row["at_work"], row["waiting"]) for row in rows}


async def insert_runs(connection: Connection, runs: Sequence[NewRun], *, now: datetime) -> set[UUID]:
    """Store runs; return the ids of the new ones, because a due time has only one run."""
    rows = await connection.fetch(
        _SQL["insert_runs"],
        [run.id for run in runs],
        [run.schedule.id for run in runs],
        [run.schedule.owner_id for run in runs],
        [run.planned.due_at for run in runs],
        [run.planned.trigger for run in runs],
        [run.planned.status for run in runs],
        [run.planned.code for run in runs],
        [run.planned.detail for run in runs],
        [run.request_key for run in runs],
        now,
    )
    return {row["id"] for row in rows}


async def trim_runs(connection: Connection, schedule_ids: Sequence[UUID], *, keep: int) -> None:
    """Remove the oldest runs of schedules that have more than `keep`."""
    await connection.execute(_SQL["trim_runs"], list(schedule_ids), keep)


async def settle(connection: Connection) -> int:
    """Record the ends of runs whose batches or tasks have ended, up to a number; return how many."""
    return affected_rows(await connection.execute(_SQL["settle_runs"], _STEP))


async def give_up(connection: Connection) -> int:
    """End runs that the gateway did not accept within a day; return how many."""
    return affected_rows(await connection.execute(_SQL["give_up_runs"], GIVEN_UP_AFTER_S, _GIVEN_UP))


async def list_next_waiting(connection: Connection, but: Collection[UUID], most: int) -> list[UUID]:
    """Return schedules with a run that may begin now, except those in `but`, by owner in turn."""
    return [row["id"] for row in await connection.fetch(_SQL["list_next_waiting"], list(but), most)]


async def lock_next_waiting(
    connection: Connection, ids: Sequence[UUID]
) -> list[tuple[StoredSchedule, UUID, datetime]]:
    """Return the oldest waiting run of each schedule without an active one: schedule, run id and due time."""
    rows = await connection.fetch(_SQL["lock_next_waiting"], list(ids))
    return [(_schedule(row), row["run_id"], row["run_due_at"]) for row in rows]


async def fire_waiting(connection: Connection, run_ids: Sequence[UUID], *, now: datetime) -> set[UUID]:
    """Fire waiting runs; return the ids of those that were still waiting."""
    rows = await connection.fetch(_SQL["fire_waiting"], list(run_ids), now)
    return {row["id"] for row in rows}


async def refuse(connection: Connection, refused: Sequence[RefuseRun]) -> None:
    """Store the reasons why runs that had fired were not accepted."""
    await connection.execute(
        _SQL["refuse_runs"],
        [run.run_id for run in refused],
        [run.owner_id for run in refused],
        [run.code for run in refused],
        [run.detail for run in refused],
    )


async def find_run_of_request(connection: Connection, schedule_id: UUID, request_key: str) -> UUID | None:
    """Return the id of the run that a request with the same key has created."""
    found: UUID | None = await connection.fetchval(_SQL["find_run_of_request"], schedule_id, request_key)
    return found


async def get_run(connection: Connection, schedule_id: UUID, run_id: UUID) -> ScheduleRun:
    """Return an existing run of the schedule."""
    [row] = await connection.fetch(_SQL["list_runs"], [schedule_id], 1, run_id, *[None] * 5)
    return _run(row)


async def list_runs(connection: Connection, wanted: ListScheduleRuns, *, limit: int) -> list[ScheduleRun]:
    """Return runs of a schedule, newest first."""
    rows = await connection.fetch(
        _SQL["list_runs"],
        [wanted.schedule_id],
        limit,
        None,
        wanted.before,
        wanted.status or None,
        wanted.trigger or None,
        wanted.created_after,
        wanted.created_before,
    )
    return [_run(row) for row in rows]


async def last_runs(
    connection: Connection, schedules: Sequence[StoredSchedule]
) -> Mapping[UUID, ScheduleRun]:
    """Return the newest run of each schedule that has one."""
    ids = [schedule.id for schedule in schedules]
    rows = await connection.fetch(_SQL["list_runs"], ids, 1, *[None] * 6)
    return {row["schedule_id"]: _run(row) for row in rows}


async def count_late(connection: Connection) -> int:
    """Return how many schedules and runs are past the time of their next step."""
    return int(await connection.fetchval(_SQL["count_late"], float(ON_TIME_S)))


async def clean(connection: Connection, *, days: int) -> bool:
    """Remove old runs and request keys, up to a number; return whether there may be more."""
    removed = max(
        affected_rows(await connection.execute(_SQL["remove_old_runs"], _STEP, days)),
        affected_rows(await connection.execute(_SQL["forget_schedule_requests"], _STEP)),
        affected_rows(await connection.execute(_SQL["forget_run_requests"], _STEP)),
    )
    return removed == _STEP


def _schedule(row: asyncpg.Record) -> StoredSchedule:
    return StoredSchedule(**{name: row[name] for name in _FIELDS})


def _run(row: asyncpg.Record) -> ScheduleRun:
    status: RunStatus = row["shown_status"]
    return ScheduleRun(
        id=row["id"],
        schedule_id=row["schedule_id"],
        due_at=row["due_at"],
        trigger=row["trigger"],
        status=status,
        created_at=row["created_at"],
        fired_at=row["fired_at"],
        # Its end is noted within a second.
        ended_at=row["ended_at"] or row["batch_finished_at"],
        # A retried batch may have ended with another status since.
        outcome=row["batch_status"] or row["outcome"],
        code=row["code"],
        detail=row["detail"],
        next=_next_of(status, row["fired_at"], is_held=row["is_held"]),
    )


def _next_of(status: RunStatus, fired_at: datetime | None, *, is_held: bool) -> Next | None:
    if status == "waiting":
        what = "its owner resumes the schedule" if is_held else "the end of the previous run"
        return Next(what=what, by=None)
    if status == "fired" and fired_at is not None:
        return Next(what="its batch or task is accepted", by=fired_at + timedelta(seconds=ON_TIME_S))
    if status == "accepted":
        return Next(what="its batch or task ends", by=None)
    return None
