"""Answers to requests about schedules: each owner creates, sees, changes and deletes only its own."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from batch_processor.errors import ScheduleBusy, ScheduleMoved, ScheduleNotFound, TooManySchedules
from batch_processor.schedules import planning, repository
from batch_processor.schedules.due_times import DueTimes, InvalidCron, UnknownTimeZone
from batch_processor.schedules.firing import store_runs
from batch_processor.schedules.planning import Load, StoredSchedule
from batch_processor.schedules.repository import NewRun
from chassis import metrics, threads
from chassis.deadlines import Deadline
from chassis.errors import InvalidInput
from chassis.paging import page_of
from chassis.postgres import Connection, Postgres
from contracts import schedules as contract
from contracts.message import FieldError, Next
from contracts.schedules import (
    ON_TIME_S,
    ChangeSchedule,
    CreateSchedule,
    DeleteSchedule,
    GetSchedule,
    ListScheduleRuns,
    ListSchedules,
    PauseSchedule,
    RunReply,
    RunSchedule,
    ScheduleRun,
    ScheduleRuns,
    Schedules,
)

# Bytes of the templates on a page: a message may have at most a megabyte.
MOST_PAGE_BYTES = 256 * 1024
_NEXT_RUNS = 5
# Attempts at a schedule that changes while its update is computed.
_MOST_LOOKS = 5
_NEXT_RUNS_IN_LIST = 1
_CHANGEABLE = (
    "name", "cron", "time_zone", "overlap", "missed", "catch_up_window_s", "jitter_s", "kind", "operation",
    "template",
)  # fmt: skip


class ScheduleAnswers:
    """Answers requests about schedules. Another owner's schedule is reported as not found.

    Due times are computed in a thread: some cron expressions are searched years ahead.
    """

    def __init__(
        self, postgres: Postgres, *, most_of_owner: int, runs_kept: int, fired: Callable[[], None]
    ) -> None:
        self._postgres = postgres
        self._most_of_owner = most_of_owner
        self._runs_kept = runs_kept
        self._fired = fired

    async def create(self, request: CreateSchedule, _: Deadline) -> contract.Schedule:
        """Store a schedule; its first due time is after now. Raise `InvalidInput` or `TooManySchedules`."""
        now = datetime.now(UTC)
        wanted = StoredSchedule(
            id=request.schedule_id,
            owner_id=request.owner_id,
            made_by=request.made_by,
            scopes=request.scopes,
            **{name: getattr(request, name) for name in _CHANGEABLE},
            revision=1,
            created_at=now,
            changed_at=now,
        )
        planned = await threads.run(partial(_activated, wanted, now=now))
        async with self._postgres.transaction() as connection:
            await repository.lock_owner(connection, request.owner_id)
            known = None
            if request.request_key is not None:
                known = await repository.find_of_request(connection, request.owner_id, request.request_key)
            if known is None:
                if await repository.count(connection, request.owner_id) >= self._most_of_owner:
                    raise TooManySchedules(self._most_of_owner)
                known = await repository.insert(
                    connection, request, due_at=planned.due_at, fire_at=planned.fire_at
                )
        return await self._show(known, None)

    async def get(self, request: GetSchedule, _: Deadline) -> contract.Schedule:
        """Return a schedule with its next due times. Raise `ScheduleNotFound`."""
        async with self._postgres.connection() as connection:
            found = await _own(connection, request.schedule_id, request.owner_id)
            last = await repository.last_runs(connection, [found])
        return await self._show(found, last.get(found.id), most=request.next_runs)

    async def list(self, request: ListSchedules, _: Deadline) -> Schedules:
        """Return a page of the owner's schedules, newest first; one with long templates has fewer."""
        async with self._postgres.connection() as connection:
            found = await repository.page(connection, request, limit=request.limit + 1)
            sizes = itertools.accumulate(len(one.template.encode()) for one in found)
            # A template has only a fraction of these bytes, so every page has some.
            fitting = sum(size <= MOST_PAGE_BYTES for size in sizes)
            page, following = page_of(found, min(request.limit, fitting), lambda one: one.id)
            last = await repository.last_runs(connection, page)
        shown = await threads.run(
            lambda: [_view(one, last.get(one.id), most=_NEXT_RUNS_IN_LIST) for one in page]
        )
        return Schedules(data=shown, next_cursor=following)

    async def change(self, request: ChangeSchedule, _: Deadline) -> contract.Schedule:
        """Change a schedule, which keeps its next due time unless its cron or time zone changes.

        Raise `ScheduleNotFound`, `ScheduleMoved` or `InvalidInput`.
        """
        given = {name: value for name in _CHANGEABLE if (value := getattr(request, name)) is not None}

        def change(found: StoredSchedule) -> StoredSchedule:
            _require_revision(found, request.revision)
            wanted = replace(found, **given, made_by=request.made_by, scopes=request.scopes)
            # A paused schedule is checked, too, but gets no next due time.
            active = _rescheduled(wanted, before=found, now=datetime.now(UTC))
            return wanted if found.is_paused else active

        return await self._update(request, change)

    async def pause(self, request: PauseSchedule, _: Deadline) -> contract.Schedule:
        """Pause or resume a schedule; runs that were due meanwhile are not made up for."""

        def pause_or_resume(found: StoredSchedule) -> StoredSchedule:
            if found.is_paused == request.paused:
                return found
            if request.paused:
                return replace(found, is_paused=True, due_at=None, fire_at=None)
            resumed = replace(found, is_paused=False, paused_reason=None)
            return _activated(resumed, now=datetime.now(UTC))

        return await self._update(request, pause_or_resume)

    async def delete(self, request: DeleteSchedule, _: Deadline) -> contract.Schedule:
        """Delete a schedule with its waiting runs, and return its last state."""
        async with self._postgres.transaction() as connection:
            found = await _own(connection, request.schedule_id, request.owner_id, lock=True)
            _require_revision(found, request.revision)
            await repository.delete(connection, found.id)
        return await self._show(found, None)

    async def run(self, request: RunSchedule, _: Deadline) -> RunReply:
        """Run a schedule now, even if it is paused. Raise `ScheduleBusy` when `overlap` forbids it."""
        now = datetime.now(UTC)
        async with self._postgres.transaction() as connection:
            found = await _own(connection, request.schedule_id, request.owner_id, lock=True)
            known = None
            if request.request_key is not None:
                known = await repository.find_run_of_request(connection, found.id, request.request_key)
            if known is None:
                # The caller's rights were compared with what this revision runs.
                _require_revision(found, request.revision)
                known = await self._run_now(connection, found, request, now=now)
            run = await repository.get_run(connection, found.id, known)
        self._fired()
        return RunReply(run=run)

    async def runs(self, request: ListScheduleRuns, _: Deadline) -> ScheduleRuns:
        """Return a page of the runs of a schedule, newest first."""
        async with self._postgres.connection() as connection:
            await _own(connection, request.schedule_id, request.owner_id)
            found = await repository.list_runs(connection, request, limit=request.limit + 1)
        page, following = page_of(found, request.limit, lambda run: run.id)
        return ScheduleRuns(data=page, next_cursor=following)

    async def _update(
        self, request: ChangeSchedule | PauseSchedule, change: Callable[[StoredSchedule], StoredSchedule]
    ) -> contract.Schedule:
        """Store the result of `change` for a schedule.

        It runs in a thread, and meanwhile nothing is locked and no connection is held, because the threads
        may be busy with others. If the schedule has fired or was changed meanwhile, it is computed again.
        """
        for _ in range(_MOST_LOOKS):
            async with self._postgres.connection() as connection:
                before = await _own(connection, request.schedule_id, request.owner_id)
            after = await threads.run(partial(change, before))
            async with self._postgres.transaction() as connection:
                found = await _own(connection, request.schedule_id, request.owner_id, lock=True)
                if found != before:
                    continue
                changed = found if after is before else await repository.update(connection, after)
                last = await repository.last_runs(connection, [changed])
            return await self._show(changed, last.get(changed.id))
        raise ScheduleMoved

    async def _run_now(
        self, connection: Connection, schedule: StoredSchedule, request: RunSchedule, *, now: datetime
    ) -> UUID:
        loads = await repository.loads(connection, [schedule])
        planned = planning.admit(schedule, loads.get(schedule.id, Load()), now, "manual")
        if planned.status == "skipped":
            raise ScheduleBusy(f"{planned.detail} Try again when it has ended, or change `overlap`.")
        run = NewRun(request.run_id, schedule, planned, request.request_key)
        await store_runs(connection, [run], now=now)
        await repository.trim_runs(connection, [schedule.id], keep=self._runs_kept)
        metrics.SCHEDULE_RUNS.labels(planned.status).inc()
        return run.id

    async def _show(
        self, schedule: StoredSchedule, last: ScheduleRun | None, *, most: int = _NEXT_RUNS
    ) -> contract.Schedule:
        return await threads.run(partial(_view, schedule, last, most=most))


async def _own(
    connection: Connection, schedule_id: UUID, owner_id: str, *, lock: bool = False
) -> StoredSchedule:
    found = await repository.get(connection, schedule_id, owner_id, lock=lock)
    if found is None:
        raise ScheduleNotFound(f"There is no schedule {schedule_id}.")
    return found


def _require_revision(schedule: StoredSchedule, revision: int | None) -> None:
    if revision is not None and revision != schedule.revision:
        raise ScheduleMoved


def _require_valid(schedule: StoredSchedule) -> DueTimes:
    """Return the due times of a schedule. Raise `InvalidInput` for a schedule that could not run."""
    if schedule.missed == "all" and schedule.overlap == "skip":
        raise _invalid("/missed", "must be skip or once with overlap skip, which lets only one of them run")
    try:
        return DueTimes.of(schedule.cron, schedule.time_zone)
    except UnknownTimeZone as error:
        raise _invalid("/time_zone", str(error)) from None
    except InvalidCron as error:
        raise _invalid("/cron", str(error)) from None


def _activated(schedule: StoredSchedule, *, now: datetime) -> StoredSchedule:
    """Return a schedule that waits for its first due time after `now`. Raise `InvalidInput`."""
    waiting = planning.wait_for(schedule, _require_valid(schedule), after=now)
    if waiting.due_at is None:
        raise _invalid("/cron", "must match a future time: there is none within 50 years")
    return waiting


def _rescheduled(schedule: StoredSchedule, *, before: StoredSchedule, now: datetime) -> StoredSchedule:
    """Return a changed schedule; its next due time stays unless its cron or time zone has changed."""
    due_times = _require_valid(schedule)
    is_same = (before.cron, before.time_zone) == (schedule.cron, schedule.time_zone)
    if is_same and before.due_at is not None:
        return replace(schedule, fire_at=planning.fire_at(schedule, due_times, before.due_at))
    return _activated(schedule, now=now)


def _invalid(pointer: str, detail: str) -> InvalidInput:
    return InvalidInput(f"{pointer[1:]} {detail}", errors=[FieldError(pointer=pointer, detail=detail)])


def _view(schedule: StoredSchedule, last: ScheduleRun | None, *, most: int) -> contract.Schedule:
    upcoming: Sequence[datetime] = ()
    following = Next(what="its owner resumes it", by=None)
    if schedule.due_at is not None and schedule.fire_at is not None:
        # A zone may be missing from the installed database; the coordinator then pauses the schedule.
        with contextlib.suppress(InvalidCron, UnknownTimeZone):
            due_times = DueTimes.of(schedule.cron, schedule.time_zone)
            upcoming = [schedule.due_at, *due_times.following(schedule.due_at, most=most - 1)]
        following = Next(what="its next run", by=schedule.fire_at + timedelta(seconds=ON_TIME_S))
    return contract.Schedule(
        id=schedule.id,
        **{name: getattr(schedule, name) for name in _CHANGEABLE},
        status="paused" if schedule.is_paused else "active",
        revision=schedule.revision,
        created_at=schedule.created_at,
        changed_at=schedule.changed_at,
        paused_reason=schedule.paused_reason,
        next_runs=list(upcoming),
        last_run=last,
        next=following,
    )
