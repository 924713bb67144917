"""Planning, as pure functions: whether a due time of a schedule runs, waits, is skipped or missed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from batch_processor.schedules.due_times import DueTimes
from contracts.batches import Kind
from contracts.schedules import ON_TIME_S, Missed, Overlap, Trigger

# Limits of one schedule: missed due times that run later at once, waiting runs, and active runs.
MOST_CAUGHT_UP = 100
MOST_WAITING = 100
MOST_AT_WORK = 100

_ON_TIME = timedelta(seconds=ON_TIME_S)
_CAUGHT_UP: dict[Missed, int] = {"skip": 0, "once": 1, "all": MOST_CAUGHT_UP}


@dataclass(frozen=True, slots=True)
class StoredSchedule:
    """A schedule as its row describes it. `due_at` and `fire_at` are None while it is paused."""

    id: UUID
    owner_id: str
    made_by: str
    name: str
    cron: str
    time_zone: str
    overlap: Overlap
    missed: Missed
    catch_up_window_s: int
    jitter_s: int
    kind: Kind
    operation: str
    template: str
    revision: int
    created_at: datetime
    changed_at: datetime
    is_paused: bool = False
    paused_reason: str | None = None
    due_at: datetime | None = None
    fire_at: datetime | None = None
    scopes: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """The numbers of active runs of a schedule, and of runs that wait for them."""

    at_work: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run to store: fired now, waiting, or left out for the reason in `code` and `detail`."""

    due_at: datetime
    trigger: Trigger
    status: Literal["fired", "waiting", "skipped", "missed"]
    code: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs for the due times that have passed, and the schedule with its next due time."""

    schedule: StoredSchedule
    runs: Sequence[PlannedRun] = field(default_factory=tuple)


def fire_at(schedule: StoredSchedule, due_times: DueTimes, due_at: datetime) -> datetime:
    """Return `due_at` with the schedule's jitter: the same for the same due time, and before the next one."""
    if not schedule.jitter_s:
        return due_at
    following = due_times.after(due_at)
    gap_s = schedule.jitter_s if following is None else int((following - due_at).total_seconds()) - 1
    drawn = hashlib.sha256(f"{schedule.id}:{due_at.timestamp():.0f}".encode()).digest()
    return due_at + timedelta(seconds=int.from_bytes(drawn[:8]) % (min(schedule.jitter_s, gap_s) + 1))


def wait_for(schedule: StoredSchedule, due_times: DueTimes, *, after: datetime) -> StoredSchedule:
    """Return the schedule waiting for its first due time later than `after`."""
    due_at = due_times.after(after)
    at = None if due_at is None else fire_at(schedule, due_times, due_at)
    return replace(schedule, due_at=due_at, fire_at=at)


def plan(schedule: StoredSchedule, load: Load, *, now: datetime) -> Plan:
    """Return the plan for the due times of a schedule that have passed.

    One that is on time runs, others only as `missed` says. Raise `UnknownTimeZone` or `InvalidCron` for a
    schedule that the installed time zones or cron parser no longer support.
    """
    due_at, at = schedule.due_at, schedule.fire_at
    if due_at is None or at is None or at > now:
        return Plan(schedule)
    due_times = DueTimes.of(schedule.cron, schedule.time_zone)
    if at >= now - _ON_TIME:
        following = wait_for(schedule, due_times, after=due_at)
        return Plan(following, [admit(schedule, load, due_at, "due")])
    # The first due time that is not missed: the next round runs it, if it has passed.
    after = max(due_at, now - _ON_TIME - timedelta(seconds=schedule.jitter_s + 1))
    following = wait_for(schedule, due_times, after=after)
    while following.fire_at is not None and following.fire_at < now - _ON_TIME:
        assert following.due_at is not None, "it has a time to fire at"
        following = wait_for(schedule, due_times, after=following.due_at)
    caught_up = _catch_up(schedule, due_times, until=following.due_at, now=now)
    runs: list[PlannedRun] = []
    if due_at not in caught_up:
        until = caught_up[0] if caught_up else following.due_at
        runs.append(_missed(due_at, until))
    for each in caught_up:
        run = admit(schedule, load, each, "catch-up")
        load = Load(load.at_work + (run.status == "fired"), load.waiting + (run.status == "waiting"))
        runs.append(run)
    return Plan(following, runs)


def admit(schedule: StoredSchedule, load: Load, due_at: datetime, trigger: Trigger) -> PlannedRun:
    """Return the run of a due time, as `overlap` says in view of the runs that have not ended."""
    if schedule.overlap == "allow":
        if load.at_work < MOST_AT_WORK:
            return PlannedRun(due_at, trigger, "fired")
        return PlannedRun(due_at, trigger, "skipped", "too-many-runs", f"{load.at_work} runs have not ended.")
    if not (load.at_work or load.waiting):
        return PlannedRun(due_at, trigger, "fired")
    if schedule.overlap == "skip":
        return PlannedRun(due_at, trigger, "skipped", "overlap", "The previous run has not ended.")
    if load.waiting < MOST_WAITING:
        return PlannedRun(due_at, trigger, "waiting")
    return PlannedRun(
        due_at, trigger, "skipped", "too-many-runs", f"{load.waiting} runs are already waiting."
    )


def _catch_up(
    schedule: StoredSchedule, due_times: DueTimes, *, until: datetime | None, now: datetime
) -> list[datetime]:
    """Return the missed due times that run after all, in order."""
    most = _CAUGHT_UP[schedule.missed]
    assert schedule.due_at is not None, "it has passed"
    # The due time itself is among them, if it is within the window.
    first = schedule.due_at - timedelta(seconds=1)
    since = max(first, now - timedelta(seconds=schedule.catch_up_window_s))
    last = now if until is None else min(now, until - timedelta(seconds=1))
    return due_times.newest(since=since, until=last, most=most) if most and since < last else []


def _missed(due_at: datetime, until: datetime | None) -> PlannedRun:
    others = "" if until is None else f", and every other before {until:%Y-%m-%dT%H:%M:%SZ},"
    detail = f"This due time{others} was missed: no coordinator was running, or the database was down."
    return PlannedRun(due_at, "due", "missed", "missed", detail)
