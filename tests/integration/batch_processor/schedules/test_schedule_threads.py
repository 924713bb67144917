"""Due times are computed in threads: whoever holds a lock does not wait for the threads of requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from support.busy_threads import busy_threads
from support.databases import FreshDatabase
from support.schedule_world import ScheduleWorld, opened
from support.waiting import until


@pytest.fixture
async def world(fresh_database: FreshDatabase) -> AsyncIterator[ScheduleWorld]:
    async with opened(await fresh_database("batch_processor")) as made:
        yield made


async def test_a_due_time_does_not_wait_for_the_threads_of_requests(world: ScheduleWorld) -> None:
    schedule = await world.create()
    await world.make_due(schedule)
    async with busy_threads():
        async with asyncio.timeout(20):
            await world.firing.fire()
    assert len(await world.runs(schedule)) == 1


@pytest.mark.parametrize("is_resumed", [False, True], ids=["change", "resume"])
async def test_a_change_that_waits_for_a_thread_locks_nothing_and_applies_to_the_row_as_it_is_then(
    world: ScheduleWorld, *, is_resumed: bool
) -> None:
    schedule = await world.create()
    if is_resumed:
        schedule = await world.pause(schedule)
    async with busy_threads() as count_waiting:
        coming = world.pause(schedule, paused=False) if is_resumed else world.change(schedule, name="mine")
        changing = asyncio.create_task(coming)
        await until(lambda: count_waiting() == 1)
        # It would wait for a lock until the change has its thread.
        async with asyncio.timeout(20):
            await world.rows("UPDATE schedules SET jitter_s = 7 WHERE id = $1", schedule.id)
    changed = await changing
    assert (changed.status, changed.revision) == ("active", schedule.revision + 1)
    assert (changed.jitter_s, changed.name) == (7, "hourly" if is_resumed else "mine")
