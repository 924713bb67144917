"""The plan for due times: on time, missed, caught up, beside other runs, with jitter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_processor.schedules import planning
from batch_processor.schedules.due_times import DueTimes, UnknownTimeZone
from batch_processor.schedules.planning import (
    MOST_AT_WORK,
    MOST_CAUGHT_UP,
    MOST_WAITING,
    Load,
    PlannedRun,
    StoredSchedule,
)

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def schedule(**changes: Any) -> StoredSchedule:
    """Return every hour in UTC, due at noon."""
    fields: dict[str, Any] = {
        "id": UUID(int=7),
        "owner_id": "ann",
        "made_by": "key",
        "name": "hourly",
        "cron": "0 * * * *",
        "time_zone": "UTC",
        "overlap": "skip",
        "missed": "once",
        "catch_up_window_s": 86_400,
        "jitter_s": 0,
        "kind": "task",
        "operation": "echo",
        "template": "{}",
        "revision": 1,
        "created_at": NOON,
        "changed_at": NOON,
        "due_at": NOON,
        "fire_at": NOON,
    }
    return StoredSchedule(**fields | changes)


def planned(one: StoredSchedule, *, late: timedelta, load: Load = Load()) -> list[tuple[str, str, str]]:  # noqa: B008
    """Return due time, trigger and status of each run."""
    made = planning.plan(one, load, now=NOON + late)
    return [(f"{run.due_at:%H:%M}", run.trigger, run.status) for run in made.runs]


def test_no_run_begins_before_its_time_or_while_the_schedule_is_paused() -> None:
    early = planning.plan(schedule(), Load(), now=NOON - MINUTE)
    assert (early.runs, early.schedule.due_at) == ((), NOON)
    assert planning.plan(schedule(due_at=None, fire_at=None), Load(), now=NOON).runs == ()


@pytest.mark.parametrize("late", [timedelta(), timedelta(seconds=60)])
def test_a_due_time_is_on_time_for_a_minute(late: timedelta) -> None:
    made = planning.plan(schedule(missed="skip"), Load(), now=NOON + late)
    assert list(made.runs) == [PlannedRun(NOON, "due", "fired")]
    assert made.schedule.due_at == made.schedule.fire_at == NOON + HOUR


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("skip", [("12:00", "due", "missed")]),
        ("once", [("12:00", "due", "missed"), ("15:00", "catch-up", "fired")]),
        ("all", [(f"{hour}:00", "catch-up", "fired") for hour in range(12, 16)]),
    ],
)
def test_missed_due_times_are_caught_up_as_the_schedule_says(
    missed: str, expected: list[tuple[str, str, str]]
) -> None:
    one = schedule(missed=missed, overlap="allow")
    assert planned(one, late=3 * HOUR + 2 * MINUTE) == expected
    following = planning.plan(one, Load(), now=NOON + 3 * HOUR + 2 * MINUTE).schedule
    assert following.due_at == NOON + 4 * HOUR


def test_the_last_due_time_after_missed_ones_is_on_time_in_the_next_round() -> None:
    one, now = schedule(missed="skip"), NOON + 2 * HOUR + timedelta(seconds=30)
    made = planning.plan(one, Load(), now=now)
    assert [run.status for run in made.runs] == ["missed"]
    assert made.schedule.due_at == NOON + 2 * HOUR
    assert list(planning.plan(made.schedule, Load(), now=now).runs) == [
        PlannedRun(NOON + 2 * HOUR, "due", "fired")
    ]


def test_only_the_catch_up_window_is_caught_up() -> None:
    one = schedule(missed="all", overlap="allow", catch_up_window_s=2 * 3600)
    assert planned(one, late=5 * HOUR + 2 * MINUTE) == [
        ("12:00", "due", "missed"),
        ("16:00", "catch-up", "fired"),
        ("17:00", "catch-up", "fired"),
    ]
    assert planned(schedule(missed="once", catch_up_window_s=60), late=30 * MINUTE) == [
        ("12:00", "due", "missed")
    ]


def test_the_newest_of_very_many_missed_due_times_are_caught_up() -> None:
    one = schedule(cron="* * * * *", missed="all", overlap="allow", catch_up_window_s=31 * 86_400)
    runs = planning.plan(one, Load(), now=NOON + timedelta(days=30)).runs
    assert [run.status for run in runs] == ["missed"] + ["fired"] * MOST_CAUGHT_UP
    assert runs[-1].due_at == NOON + timedelta(days=30) - 2 * MINUTE
    assert runs[0].detail is not None
    assert f"{runs[1].due_at:%Y-%m-%dT%H:%M:%SZ}" in runs[0].detail


@pytest.mark.parametrize(
    ("overlap", "load", "status", "code"),
    [
        ("skip", Load(), "fired", None),
        ("skip", Load(at_work=1), "skipped", "overlap"),
        ("skip", Load(waiting=1), "skipped", "overlap"),
        ("queue", Load(), "fired", None),
        ("queue", Load(at_work=1), "waiting", None),
        ("queue", Load(waiting=1), "waiting", None),
        ("queue", Load(at_work=1, waiting=MOST_WAITING), "skipped", "too-many-runs"),
        ("allow", Load(at_work=MOST_AT_WORK - 1, waiting=1), "fired", None),
        ("allow", Load(at_work=MOST_AT_WORK), "skipped", "too-many-runs"),
    ],
)
def test_a_run_stands_beside_others_as_overlap_says(
    overlap: Any, load: Load, status: str, code: str | None
) -> None:
    run = planning.admit(schedule(overlap=overlap), load, NOON, "due")
    assert (run.status, run.code) == (status, code)


def test_caught_up_runs_queue_behind_each_other() -> None:
    one = schedule(missed="all", overlap="queue")
    assert [status for *_, status in planned(one, late=2 * HOUR + 2 * MINUTE)] == [
        "fired",
        "waiting",
        "waiting",
    ]


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 3600), st.integers(0, 10_000), st.sampled_from(["* * * * *", "*/5 * * * *", "0 * * * *"])
)
def test_jitter_is_the_same_each_time_within_its_bound_and_before_the_next_due_time(
    jitter_s: int, minutes: int, cron: str
) -> None:
    one, due_times = schedule(cron=cron, jitter_s=jitter_s), DueTimes.of(cron, "UTC")
    due_at = due_times.after(NOON + minutes * MINUTE)
    assert due_at is not None
    following = due_times.after(due_at)
    assert following is not None
    at = planning.fire_at(one, due_times, due_at)
    assert at == planning.fire_at(one, due_times, due_at)
    assert due_at <= at <= due_at + timedelta(seconds=jitter_s)
    assert at < following


def test_jitter_spreads_schedules_that_are_due_together() -> None:
    due_times = DueTimes.of("0 * * * *", "UTC")
    drawn = {
        planning.fire_at(schedule(id=UUID(int=number), jitter_s=600), due_times, NOON) for number in range(50)
    }
    assert len(drawn) > 40


def test_a_run_that_is_late_by_its_jitter_only_is_not_missed() -> None:
    one = schedule(jitter_s=1800, missed="skip", fire_at=NOON + 29 * MINUTE)
    assert planned(one, late=28 * MINUTE) == []
    assert planned(one, late=29 * MINUTE) == [("12:00", "due", "fired")]


def test_a_time_zone_that_no_longer_exists_is_reported() -> None:
    with pytest.raises(UnknownTimeZone):
        planning.plan(schedule(time_zone="Mars/Olympus"), Load(), now=NOON)
