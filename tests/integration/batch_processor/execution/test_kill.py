"""The whole service as a process: ready, killed under load, stopped."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import httpx
import pytest

from support.batch_process import Spawn
from support.batch_stack import Caller
from support.waiting import until


async def _stored(caller: Caller, batch_id: Any) -> int:
    row = "SELECT succeeded FROM batches WHERE id = $1"
    return int(await caller.database.fetchval(row, batch_id) or 0)


async def test_a_killed_service_loses_and_doubles_nothing(spawn: Spawn, caller: Caller) -> None:
    total, part = 20_000, 500
    # What the killed one had in hand waits for the end of its lease, each time.
    settings = {"BATCH_PROCESSOR_LEASE_S": "5"}
    child, _ = await spawn(**settings)
    creation = caller.creation("echo", None)
    id_ = creation.batch_id
    await caller.send(creation)
    for offset in range(0, total, part):
        await caller.send(caller.append(id_, offset, list(range(offset, offset + part))))
        if offset == 5_000:
            # In the middle of the intake ...
            child.kill()
            await child.wait()
    await caller.send(caller.seal(id_, total))
    child, _ = await spawn(**settings)
    # ... and in the middle of the work.
    await until(lambda: _stored(caller, id_))
    child.kill()
    await child.wait()
    await spawn(**settings)
    batch = await caller.reach(id_, timeout_s=40)
    assert (batch.status, batch.counts.succeeded, batch.counts.total) == ("completed", total, total)
    rows = await caller.database.fetch("SELECT position, result FROM results ORDER BY position")
    assert [(row["position"], row["result"]) for row in rows] == [(n, str(n)) for n in range(total)]
    assert len(await caller.finished_events()) == 1


@pytest.mark.long
async def test_a_killed_worker_and_a_killed_coordinator_lose_and_double_nothing(
    spawn: Spawn, caller: Caller
) -> None:
    total, roles = 10_000, ("coordinator", "worker")
    settings = {"BATCH_PROCESSOR_LEASE_S": "5"}
    children = {role: (await spawn(BATCH_PROCESSOR_ROLES=role, **settings))[0] for role in roles}
    for role in reversed(roles):
        id_ = await caller.submit("echo", list(range(total)))
        await until(lambda: _stored(caller, id_))  # noqa: B023 - awaited before the next round
        # The other one goes on meanwhile, and its successor takes over.
        children[role].kill()
        await children[role].wait()
        await spawn(BATCH_PROCESSOR_ROLES=role, **settings)
        batch = await caller.reach(id_, timeout_s=40)
        assert (batch.status, batch.counts.succeeded, batch.counts.total) == ("completed", total, total)
        results = "SELECT position, result FROM results WHERE batch_id = $1 ORDER BY position"
        rows = await caller.database.fetch(results, id_)
        assert [(row["position"], row["result"]) for row in rows] == [(n, str(n)) for n in range(total)]
    assert len(await caller.finished_events()) == 2


async def test_a_stop_is_prompt_and_clean(spawn: Spawn, caller: Caller) -> None:
    child, port = await spawn()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/livez")).json() == {"status": "alive"}
        assert "tickwire_batch_items" in (await client.get("/metrics")).text
    batch_id = await caller.submit("echo", [1])
    await caller.reach(batch_id)
    child.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(child.wait(), 15) == 0
