"""Schedules on a real database: each due time runs once, whoever fires it and whenever it dies."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from batch_processor.errors import ScheduleBusy, ScheduleMoved, ScheduleNotFound, TooManySchedules
from batch_processor.schedules.answers import MOST_PAGE_BYTES
from chassis.broker.envelope import Delivery, new_id
from chassis.errors import InvalidInput
from chassis.metrics import SCHEDULES_LATE
from contracts.message import Next
from contracts.schedules import (
    DeleteSchedule,
    ListSchedules,
    RefuseRun,
    Schedule,
    ScheduleRun,
)
from support.measured import value_of
from support.schedule_world import HOUR, SOON, ScheduleWorld


def reported(runs: list[ScheduleRun]) -> list[tuple[str, str]]:
    return [(run.trigger, run.status) for run in runs]


async def delete(world: ScheduleWorld, schedule: Schedule, revision: int | None = None) -> None:
    request = DeleteSchedule(schedule_id=schedule.id, owner_id="7", revision=revision)
    await world.answers.delete(request, SOON)


async def test_several_coordinators_run_a_due_time_once(world: ScheduleWorld) -> None:
    schedules = [await world.create() for _ in range(5)]
    for schedule in schedules:
        await world.make_due(schedule)
    coordinators = [world.coordinator() for _ in range(4)]
    await asyncio.gather(*(one.fire() for one in coordinators for _ in range(2)))
    assert [reported(await world.runs(one)) for one in schedules] == [[("due", "fired")]] * 5
    assert {event.schedule_id for event in await world.events()} == {one.id for one in schedules}
    assert len(await world.events()) == 5
    # Also where one has not seen what another did: the due time itself runs once.
    [run] = await world.runs(schedules[0])
    await world.rows(
        "UPDATE schedules SET due_at = $2, fire_at = $2 WHERE id = $1", schedules[0].id, run.due_at
    )
    await world.firing.fire()
    assert len(await world.events()) == 5


async def test_a_coordinator_that_is_killed_while_it_fires_leaves_the_due_time_to_another(
    world: ScheduleWorld,
) -> None:
    schedule = await world.create()
    due_at = await world.make_due(schedule)

    async def fire_and_die() -> None:
        async with world.postgres.transaction() as connection:
            assert await world.firing.fire_some(connection, [schedule.id], now=datetime.now(UTC)) == 1
            # Killed before its commit. Until the database notices, nobody else takes the schedule.
            await world.coordinator().fire()
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await fire_and_die()
    assert (await world.runs(schedule), await world.events()) == ([], [])
    await world.coordinator().fire()
    [run], [event] = await world.runs(schedule), await world.events()
    assert (run.due_at, run.id, event.due_at) == (due_at, event.run_id, due_at)
    assert (event.owner_id, event.made_by, event.template) == ("7", "key", schedule.template)
    assert world.woken


async def test_runs_report_the_outcome_of_the_work_that_they_made(world: ScheduleWorld) -> None:
    schedule = await world.create()
    run = await world.fire(schedule)
    assert run.next is not None
    assert run.next.by is not None
    await world.begin(run)
    [begun] = await world.runs(schedule)
    assert (begun.status, begun.outcome) == ("accepted", "running")
    await world.end(run, "failed")
    for _ in range(2):
        [ended] = await world.runs(schedule, status=["ended"])
        assert (ended.status, ended.outcome, ended.next) == ("ended", "failed", None)
        assert ended.ended_at is not None
        # The batch itself is removed one day.
        await world.firing.follow()
        await world.rows("DELETE FROM batches")
    assert (await world.get(schedule)).last_run == ended
    assert await world.runs(schedule, status=["accepted", "fired"]) == []


async def test_a_due_time_is_skipped_while_the_run_before_has_not_ended(world: ScheduleWorld) -> None:
    schedule = await world.create(overlap="skip")
    first = await world.fire(schedule)
    assert (await world.fire(schedule)).status == "skipped"
    await world.begin(first)
    skipped = await world.fire(schedule)
    assert (skipped.status, skipped.code) == ("skipped", "overlap")
    with pytest.raises(ScheduleBusy):
        await world.run(schedule)
    await world.end(first)
    assert (await world.fire(schedule)).status == "fired"


async def test_queued_runs_follow_one_after_the_other(world: ScheduleWorld) -> None:
    schedule = await world.create(overlap="queue")
    await world.make_due(schedule)
    await world.firing.fire()
    await world.run(schedule)
    third = await world.run(schedule)
    assert third.status == "waiting"
    order = [run.id for run in await world.runs(schedule)]
    for number in range(3):
        # However many coordinators look, one run follows.
        await asyncio.gather(*(world.coordinator().follow() for _ in range(3)))
        runs = await world.runs(schedule)
        assert [run.id for run in runs if run.status == "fired"] == order[number : number + 1]
        await world.begin(runs[number])
        await world.end(runs[number])
    await world.firing.follow()
    assert [event.run_id for event in await world.events()] == order


async def test_due_times_that_nothing_could_run_are_caught_up_as_the_schedule_says(
    world: ScheduleWorld,
) -> None:
    skipping, once, everything = [await world.create(missed=missed) for missed in ("skip", "once", "all")]
    noon = datetime(2026, 11, 27, 12, tzinfo=UTC)
    for schedule in (skipping, once, everything):
        await world.make_due_at(schedule, noon)
    async with world.postgres.transaction() as connection:
        ids = [schedule.id for schedule in (skipping, once, everything)]
        await world.firing.fire_some(connection, ids, now=noon + 2 * HOUR + timedelta(minutes=2))
    caught_up = {
        schedule.missed: [run for run in await world.runs(schedule) if run.trigger == "catch-up"]
        for schedule in (skipping, once, everything)
    }
    assert {name: len(runs) for name, runs in caught_up.items()} == {"skip": 0, "once": 1, "all": 3}
    assert caught_up["once"][0].due_at == noon + 2 * HOUR
    assert [run.status for run in await world.runs(skipping, status=["missed"])] == ["missed"]
    assert [run.due_at for run in caught_up["all"]] == [noon + number * HOUR for number in range(3)]


async def test_runs_that_are_due_while_a_schedule_is_paused_do_not_happen(world: ScheduleWorld) -> None:
    schedule = await world.create()
    await world.make_due(schedule, ago=3 * HOUR)
    paused = await world.pause(schedule)
    assert (paused.status, paused.next_runs, paused.revision) == ("paused", [], 2)
    assert (await world.pause(schedule)).revision == 2
    await world.firing.fire()
    assert await world.runs(schedule) == []
    assert (await world.run(paused)).status == "fired"
    resumed = await world.pause(schedule, paused=False)
    assert (resumed.status, resumed.revision) == ("active", 3)
    assert resumed.next_runs[0] > datetime.now(UTC)
    await world.firing.fire()
    assert reported(await world.runs(schedule)) == [("manual", "fired")]


async def test_runs_that_wait_do_not_begin_while_their_schedule_is_paused(world: ScheduleWorld) -> None:
    schedule = await world.create(overlap="queue")

    async def next_after(run: ScheduleRun) -> list[UUID]:
        await world.begin(run)
        await world.end(run)
        await world.firing.follow()
        return [one.id for one in await world.runs(schedule, status=["fired"])]

    first, due = await world.run(schedule), await world.fire(schedule)
    asked = await world.run(await world.pause(schedule))
    # What somebody asks for begins in a pause, too.
    assert await next_after(first) == [asked.id]
    [held] = await world.runs(schedule, status=["waiting"])
    assert (held.id, held.next) == (due.id, Next(what="its owner resumes the schedule", by=None))
    assert await next_after(asked) == []
    await world.pause(schedule, paused=False)
    await world.firing.follow()
    assert [one.id for one in await world.runs(schedule, status=["fired"])] == [due.id]


async def test_the_same_request_makes_one_schedule_and_one_run(world: ScheduleWorld) -> None:
    made = await asyncio.gather(*(world.create(request_key="k") for _ in range(3)))
    assert len({one.id for one in made}) == 1
    assert (await world.create("8", request_key="k")).id != made[0].id
    runs = await asyncio.gather(*(world.run(made[0], request_key="r") for _ in range(3)))
    assert len({run.id for run in runs}) == 1
    assert len(await world.events()) == 1


async def test_no_owner_has_more_than_its_number_of_schedules_however_it_asks(world: ScheduleWorld) -> None:
    made = await asyncio.gather(*(world.create() for _ in range(8)), return_exceptions=True)
    refused = [one for one in made if isinstance(one, TooManySchedules)]
    assert (len(made) - len(refused), len(refused)) == (5, 3)
    await world.create("8")
    kept = [one for one in made if isinstance(one, Schedule)]
    await delete(world, kept[0])
    await world.create()


async def test_a_schedule_of_another_owner_is_not_found(world: ScheduleWorld) -> None:
    schedule = await world.create()
    with pytest.raises(ScheduleNotFound):
        await world.get(schedule, "8")
    with pytest.raises(ScheduleNotFound):
        await world.answers.delete(DeleteSchedule(schedule_id=schedule.id, owner_id="8"), SOON)
    assert (await world.answers.list(ListSchedules(owner_id="8"), SOON)).data == []


async def test_schedules_are_listed_newest_first_in_pages_and_by_filters(world: ScheduleWorld) -> None:
    made = [await world.create(operation="ab"[number % 2]) for number in range(5)]
    await world.pause(made[1])
    first = await world.answers.list(ListSchedules(owner_id="7", limit=3), SOON)
    rest = await world.answers.list(ListSchedules(owner_id="7", before=first.next_cursor), SOON)
    assert [one.id for one in first.data + rest.data] == [one.id for one in reversed(made)]
    assert (rest.next_cursor, {len(one.next_runs) for one in first.data}) == (None, {1})
    paused = await world.answers.list(ListSchedules(owner_id="7", status=["paused"]), SOON)
    assert [one.id for one in paused.data] == [made[1].id]
    of_a = await world.answers.list(ListSchedules(owner_id="7", operations=["a"]), SOON)
    assert len(of_a.data) == 3


async def test_a_page_of_long_templates_ends_early_and_leads_on(world: ScheduleWorld) -> None:
    long = f'{{"operation":"echo","payload":"{"x" * 60_000}"}}'
    made = [await world.create(template=long) for _ in range(5)]
    found: list[UUID] = []
    before = None
    while len(found) < len(made):
        page = await world.answers.list(ListSchedules(owner_id="7", before=before), SOON)
        assert 0 < sum(len(one.template) for one in page.data) <= MOST_PAGE_BYTES
        found += [one.id for one in page.data]
        before = page.next_cursor
    assert found == [one.id for one in reversed(made)]
    assert before is None


async def test_a_change_needs_the_revision_that_was_seen_and_takes_the_rights_of_its_maker(
    world: ScheduleWorld,
) -> None:
    schedule = await world.create(template='{"a": 1.10}')
    changed = await world.change(schedule, cron="30 4 * * *", time_zone="Asia/Kathmandu", made_by="other")
    assert (changed.revision, changed.template) == (2, '{"a": 1.10}')
    assert f"{changed.next_runs[0]:%H:%M}" == "22:45"
    with pytest.raises(ScheduleMoved):
        await world.change(schedule, name="late")
    with pytest.raises(ScheduleMoved):
        await delete(world, schedule, revision=1)
    with pytest.raises(ScheduleMoved):
        await world.run(schedule)
    await world.run(changed)
    of_token = await world.change(changed, made_by="jwt:1", scopes=["batches:write"])
    await world.run(of_token)
    changed = await world.change(of_token, made_by="key")
    await world.run(changed)
    made = await world.create(made_by="jwt:2", scopes=["quotes:read"])
    await world.run(made)
    assert [(event.made_by, event.scopes) for event in await world.events()] == [
        ("other", None),
        ("jwt:1", ["batches:write"]),
        ("key", None),
        ("jwt:2", ["quotes:read"]),
    ]
    await world.make_due(changed)
    renamed = await world.change(changed, name="renamed", revision=None)
    assert renamed.next_runs[0] <= datetime.now(UTC), "what it waits for already stays"


@pytest.mark.parametrize(
    ("wanted", "pointer"),
    [
        ({"cron": "* * *"}, "/cron"),
        ({"cron": "0 0 */29 2 1#5"}, "/cron"),
        ({"time_zone": "Mars/Olympus"}, "/time_zone"),
        ({"missed": "all", "overlap": "skip"}, "/missed"),
    ],
)
async def test_a_schedule_that_could_not_run_is_refused_with_a_pointer(
    world: ScheduleWorld, wanted: dict[str, str], pointer: str
) -> None:
    schedule = await world.create()
    for attempt in (world.create(**wanted), world.change(schedule, **wanted)):
        with pytest.raises(InvalidInput) as caught:
            await attempt
        assert [error.pointer for error in caught.value.errors] == [pointer]
    await world.pause(schedule)
    with pytest.raises(InvalidInput):
        await world.change(schedule, revision=None, **wanted)


async def test_a_refusal_ends_a_run_that_has_fired_and_no_other(world: ScheduleWorld) -> None:
    schedule = await world.create()
    first, second = await world.fire(schedule), await world.run(schedule)

    async def refuse(run_id: UUID, owner_id: str) -> None:
        command = RefuseRun(run_id=run_id, owner_id=owner_id, code="forbidden", detail="no more")
        async with world.postgres.transaction() as connection:
            await world.firing.refuse(connection, [Delivery(command, new_id(), 1, owner_id, {})])

    await refuse(second.id, "8")
    await refuse(first.id, "7")
    assert reported(await world.runs(schedule)) == [("due", "refused"), ("manual", "fired")]
    [refused] = await world.runs(schedule, status=["refused"])
    assert (refused.code, refused.detail) == ("forbidden", "no more")


async def test_a_schedule_that_cannot_be_planned_any_more_is_paused_and_others_run(
    world: ScheduleWorld,
) -> None:
    bad, good = await world.create(), await world.create()
    await world.rows("UPDATE schedules SET time_zone = 'Mars/Olympus' WHERE id = $1", bad.id)
    assert (await world.get(bad)).next_runs == []
    await world.make_due(bad, ago=timedelta(seconds=1))
    assert (await world.fire(good)).status == "fired"
    paused = await world.get(bad)
    assert paused.status == "paused"
    assert paused.paused_reason is not None
    assert "Mars/Olympus" in paused.paused_reason


async def test_a_schedule_keeps_its_newest_runs_and_those_that_have_not_ended(world: ScheduleWorld) -> None:
    schedule = await world.create(overlap="skip")
    at_work = await world.fire(schedule)
    for _ in range(25):
        skipped = await world.fire(schedule)
        await world.rows("UPDATE schedule_runs SET due_at = due_at - interval '1 day'")
    runs = await world.runs(schedule, limit=200)
    assert (len(runs), runs[0].id, runs[-1].id) == (22, at_work.id, skipped.id)


async def test_runs_that_are_past_their_retention_go_and_those_never_accepted_end(
    world: ScheduleWorld,
) -> None:
    schedule = await world.create()
    run = await world.fire(schedule)
    await world.rows("UPDATE schedule_runs SET fired_at = now() - interval '25 hours'")
    await world.firing.clean()
    [given_up] = await world.runs(schedule)
    assert (given_up.id, given_up.status, given_up.code) == (run.id, "refused", "not-accepted")
    await world.rows("UPDATE schedule_runs SET ended_at = now() - interval '31 days'")
    await world.firing.clean()
    assert await world.runs(schedule) == []


async def test_schedules_past_their_next_step_are_counted(world: ScheduleWorld) -> None:
    schedule = await world.create()
    run = await world.fire(schedule)
    await world.firing.follow()
    assert value_of(SCHEDULES_LATE) == 0
    await world.make_due(schedule, ago=timedelta(seconds=90))
    await world.rows("UPDATE schedule_runs SET fired_at = now() - interval '2 minutes'")
    await world.firing.follow()
    assert value_of(SCHEDULES_LATE) == 2
    await world.begin(run)
    await world.firing.fire()
    await world.firing.follow()
    assert value_of(SCHEDULES_LATE) == 0


async def test_a_coordinator_is_busy_while_something_is_due_at_work_or_waiting(world: ScheduleWorld) -> None:
    schedule = await world.create(overlap="queue")

    async def is_busy() -> bool:
        await world.firing.look()
        return world.firing.is_busy

    SCHEDULES_LATE.set(1)
    assert (await is_busy(), value_of(SCHEDULES_LATE)) == (False, 0)
    await world.make_due(schedule)
    assert await is_busy()
    await world.firing.fire()
    assert await is_busy()
    waiting = await world.run(schedule)
    [run, _] = await world.runs(schedule)
    await world.begin(run)
    await world.end(run)
    await world.rows("UPDATE schedule_runs SET status = 'ended' WHERE id = $1", run.id)
    assert await is_busy()
    await world.firing.follow()
    await world.begin(waiting)
    await world.end(waiting)
    await world.firing.follow()
    assert not await is_busy()


async def test_a_deleted_schedule_does_not_run_again(world: ScheduleWorld) -> None:
    schedule = await world.create(overlap="queue")
    await world.run(schedule)
    await world.run(schedule)
    await delete(world, schedule, revision=1)
    await world.firing.fire()
    await world.firing.follow()
    assert len(await world.events()) == 1
    with pytest.raises(ScheduleNotFound):
        await world.runs(schedule)
