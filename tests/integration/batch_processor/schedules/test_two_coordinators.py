"""Two coordinators, each a process of its own, of which one is killed while schedules are due."""

from __future__ import annotations

import asyncio

import aiormq
import pytest

from contracts.schedules import ScheduleFired
from contracts.topology import GATEWAY
from support.batch_process import Spawn
from support.batch_stack import Caller
from support.bundled import messages_in
from support.schedule_world import opened
from support.waiting import until

SCHEDULES = 40
# Nothing is due by itself meanwhile.
RARELY = "0 0 29 2 *"


async def fired(broker_url: str) -> list[ScheduleFired]:
    """Return the events that reached the gateway's queue, taken from it."""
    found: list[ScheduleFired] = []
    connection = await aiormq.connect(broker_url)
    try:
        channel = await connection.channel()
        while messages := messages_in(await channel.basic_get(f"{GATEWAY}.events", no_ack=True)):
            found += [
                ScheduleFired.model_validate_json(message.body)
                for message in messages
                if message.message_type == ScheduleFired.message_type
            ]
    finally:
        await connection.close()
    return found


# Three processes start, which takes a minute on a busy machine.
@pytest.mark.timeout(400)
async def test_due_times_run_once_with_two_coordinators_of_which_one_is_killed_each_time(
    spawn: Spawn, caller: Caller, dsn: str
) -> None:
    spawned = await asyncio.gather(*(spawn(BATCH_PROCESSOR_ROLES="coordinator") for _ in range(2)))
    children = [child for child, _ in spawned]

    async def runs(least: int) -> bool:
        return bool(await caller.database.fetchval("SELECT count(*) >= $1 FROM schedule_runs", least))

    async with opened(dsn) as world:
        for owner in range(SCHEDULES):
            await world.create(str(owner), cron=RARELY)
        for done in range(2):
            await world.rows("UPDATE schedules SET due_at = now(), fire_at = now()")
            await until(lambda: runs(done * SCHEDULES + 1))  # noqa: B023 - awaited before the next round
            # The other one fires the rest, and the next time its successor does.
            children[done].kill()
            await children[done].wait()
            await until(lambda: runs((done + 1) * SCHEDULES))  # noqa: B023
            if done == 0:
                await spawn(BATCH_PROCESSOR_ROLES="coordinator")
        await until(caller.outbox_is_empty)
        made = await world.rows("SELECT id, schedule_id, due_at FROM schedule_runs")
    assert len(made) == len({(run["schedule_id"], run["due_at"]) for run in made}) == 2 * SCHEDULES
    schedules = {run["schedule_id"] for run in made}
    # An event may come twice, with one id; what other tests have left is of other schedules.
    events = [event for event in await fired(caller.broker_url) if event.schedule_id in schedules]
    assert {event.run_id for event in events} == {run["id"] for run in made}
