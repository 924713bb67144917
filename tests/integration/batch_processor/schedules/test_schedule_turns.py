"""Many schedules are due at once: owners take turns, transactions are small, and each failure stays alone."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID

import asyncpg
import pytest

from batch_processor.background import backoff
from batch_processor.schedules import planning, turns
from batch_processor.schedules.planning import Load, Plan, StoredSchedule
from chassis.errors import DatabaseUnavailable
from contracts import schedules as contract
from support.schedule_world import ScheduleWorld


async def copies(
    world: ScheduleWorld, original: contract.Schedule, number: int, *, owner_id: str
) -> list[UUID]:
    """Return copies of a schedule, all due for a second."""
    rows = await world.rows(
        "INSERT INTO schedules (id, owner_id, made_by, name, cron, time_zone, overlap, missed, jitter_s,"
        " kind, catch_up_window_s, operation, template, due_at, fire_at)"
        " SELECT gen_random_uuid(), $2, made_by, name, cron, time_zone, overlap, missed, jitter_s,"
        " kind, catch_up_window_s, operation, template, now() - interval '1 s', now() - interval '1 s'"
        " FROM schedules, generate_series(1, $3) WHERE id = $1 RETURNING id",
        original.id,
        owner_id,
        number,
    )
    return [row["id"] for row in rows]


async def most_of_a_transaction(world: ScheduleWorld, table: str) -> int:
    """Return the most rows of a table that one transaction has written."""
    [row] = await world.rows(
        f"SELECT max(n) AS most FROM (SELECT count(*) AS n FROM {table} GROUP BY xmin::text) AS t"
    )
    return int(row["most"])


async def test_owners_take_turns_twenty_schedules_a_transaction(world: ScheduleWorld) -> None:
    original = await world.create()
    await copies(world, original, 100, owner_id="crowd")
    late = await world.create("8")
    await world.make_due(late)
    await world.firing.fire()
    owners = [event.owner_id for event in await world.events()]
    assert (len(owners), owners.index("8") < 20) == (101, True)
    assert await most_of_a_transaction(world, "schedule_runs") <= 20


async def test_a_schedule_that_becomes_due_meanwhile_does_not_wait_for_the_end_of_a_long_list(
    world: ScheduleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LISTED", 40)
    original, late = await world.create(), await world.create("8")
    await copies(world, original, 200, owner_id="crowd")
    fire_some = world.firing.fire_some

    async def and_then_late_is_due(connection: asyncpg.Connection, ids: list[UUID], *, now: datetime) -> int:
        if not await world.events():
            await world.make_due(late)
        return await fire_some(connection, ids, now=now)

    monkeypatch.setattr(world.firing, "fire_some", and_then_late_is_due)
    await world.firing.fire()
    owners = [event.owner_id for event in await world.events()]
    assert len(owners) == 201
    assert 20 <= owners.index("8") <= 60


async def test_a_schedule_that_cannot_be_stored_does_not_affect_others_and_is_tried_again_later(
    world: ScheduleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = await world.create()
    ids = await copies(world, original, 30, owner_id="crowd")
    unplannable, unstorable = ids[3], ids[17]

    def plan(schedule: StoredSchedule, load: Load, *, now: datetime) -> Plan:
        if schedule.id == unplannable:
            raise RuntimeError("no plan for this")
        return planning_plan(schedule, load, now=now)

    planning_plan = planning.plan
    monkeypatch.setattr(planning, "plan", plan)
    await world.rows(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$"
    )
    await world.rows(
        "CREATE TRIGGER refuse BEFORE INSERT ON schedule_runs FOR EACH ROW"
        f" WHEN (new.schedule_id = '{unstorable}') EXECUTE FUNCTION refuse()"
    )
    await world.firing.fire()
    fired = {event.schedule_id for event in await world.events()}
    assert fired == set(ids) - {unplannable, unstorable}
    # Tried again, but not at once: nobody pays for them at every look.
    monkeypatch.undo()
    await world.rows("DROP TRIGGER refuse ON schedule_runs")
    await world.rows("DROP FUNCTION refuse")
    await world.firing.fire()
    assert len(await world.events()) == 28
    # As if the minute were over.
    over = time.monotonic() + 61
    monkeypatch.setattr(backoff, "time", SimpleNamespace(monotonic=lambda: over))
    await world.firing.fire()
    assert {event.schedule_id for event in await world.events()} == set(ids)


async def test_waiting_runs_of_owners_take_turns_too(world: ScheduleWorld) -> None:
    original = await world.create(overlap="queue")
    crowd = await copies(world, original, 100, owner_id="crowd")
    [single] = await copies(world, original, 1, owner_id="8")
    await world.rows(
        "INSERT INTO schedule_runs (id, schedule_id, owner_id, due_at, trigger, status)"
        " SELECT gen_random_uuid(), id, owner_id, now(), 'due', 'waiting' FROM schedules WHERE id = ANY($1)",
        [*crowd, single],
    )
    await world.firing.follow()
    owners = [event.owner_id for event in await world.events()]
    assert (len(owners), owners.index("8") < 20) == (101, True)
    assert await most_of_a_transaction(world, "outbox") <= 20


async def test_many_missed_due_times_are_caught_up_in_several_transactions(world: ScheduleWorld) -> None:
    original = await world.create(missed="all", cron="* * * * *")
    ids = await copies(world, original, 10, owner_id="crowd")
    since = datetime.now(UTC) - timedelta(minutes=60)
    await world.rows("UPDATE schedules SET due_at = $1, fire_at = $1 WHERE id = ANY($2)", since, ids)
    await world.firing.fire()
    # The original may be due by now as well: a minute has begun.
    counts = "SELECT count(DISTINCT schedule_id) AS n, count(*) AS runs FROM schedule_runs"
    [row] = await world.rows(f"{counts} WHERE schedule_id = ANY($1)", ids)
    assert (row["n"], row["runs"] > 500) == (10, True)
    # The run that reaches the bound is the last of a transaction.
    assert await most_of_a_transaction(world, "schedule_runs") < 100 + 62


async def test_a_database_that_is_away_fails_the_round_and_sets_nothing_aside(
    world: ScheduleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = await world.create()
    await world.make_due(schedule)

    async def away(*_: object, **__: object) -> int:
        raise DatabaseUnavailable("away")

    async def no_answer() -> bool:
        return False

    monkeypatch.setattr(world.firing, "fire_some", away)
    monkeypatch.setattr(world.postgres, "ping", no_answer)
    with pytest.raises(DatabaseUnavailable):
        await world.firing.fire()
    monkeypatch.undo()
    await world.firing.fire()
    assert len(await world.events()) == 1
