"""Ten items of one owner begin and end at once, whatever another owner has at work."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from uuid import UUID

import pytest

from chassis.broker.envelope import new_id
from support import harmful_operation
from support.batch_process import Spawn
from support.batch_stack import Caller
from support.waiting import until

# The objective is 1 s. What is asserted is less than a turn of the other owner would take, so that a busy
# machine does not fail it; the measured times are printed. Whatever the machine does, the ten items have the
# next turn: of the claims that can see them, one may have looked for owners before.
_SOONER_THAN_S = 5.0
_SLOTS = 16

_NOTE_CLAIMS = """
CREATE TABLE turns (owner_id text, batch_id uuid, stored_by bigint, seen pg_snapshot, claimed_by bigint);
CREATE FUNCTION note_turn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO turns VALUES (new.owner_id, new.batch_id, old.stamp, pg_current_snapshot(), new.stamp);
    RETURN NULL;
END $$;
CREATE TRIGGER note_turn AFTER UPDATE ON chunks FOR EACH ROW
    WHEN (old.state = 'ready' AND new.state = 'running') EXECUTE FUNCTION note_turn()
"""
# The chunks of the other owner that were claimed while the ten items could be claimed, and were not.
_CLAIMED_BEFORE = """
SELECT count(*) FROM turns AS own JOIN turns AS other ON other.owner_id = 'bob'
WHERE own.batch_id = $1 AND pg_visible_in_snapshot(own.stored_by::text::xid8, other.seen)
    AND other.claimed_by < own.claimed_by
"""

_PLANT_BATCHES = """
INSERT INTO batches (
    id, owner_id, operation, status, accepted_at, total, received, chunk_count
)
SELECT id, $5, $2, 'queued', now(), $3::int, $3, ($3 + $4::int - 1) / $4 FROM unnest($1::uuid[]) AS id
"""
_PLANT_ITEMS = """
INSERT INTO items (batch_id, position, payload)
SELECT id, position, $3 FROM unnest($1::uuid[]) AS id CROSS JOIN generate_series(0, $2::int - 1) AS position
"""
_PLANT_CHUNKS = """
INSERT INTO chunks (
    batch_id, number, state, first_position, last_position, remaining, due_at, owner_id, priority
)
SELECT id, number, 'ready', number * $3::int, least($2::int, (number + 1) * $3) - 1, $3, now(), $4, 5
FROM unnest($1::uuid[]) AS id CROSS JOIN generate_series(0, ($2::int + $3::int - 1) / $3::int - 1) AS number
"""


async def plant(
    caller: Caller,
    operation: str,
    payload: str,
    *,
    batches: int = 1,
    items: int = 1,
    chunk: int = 1,
    owner: str = "bob",
) -> list[UUID]:
    """Store batches of the other owner as if they had been queued just now."""
    ids = [new_id() for _ in range(batches)]
    async with caller.database.acquire() as connection, connection.transaction():
        await connection.execute(_PLANT_ITEMS, ids, items, payload)
        await connection.execute(_PLANT_BATCHES, ids, operation, items, chunk, owner)
        await connection.execute(_PLANT_CHUNKS, ids, items, chunk, owner)
    return ids


async def has_ended(caller: Caller, least: int) -> bool:
    ended = "SELECT sum(succeeded + failed) >= $1 FROM batches WHERE owner_id = 'bob'"
    return bool(await caller.database.fetchval(ended, least))


async def at_work(caller: Caller, least: int) -> bool:
    running = "SELECT count(*) >= $1 FROM chunks WHERE state = 'running' AND owner_id = 'bob'"
    return bool(await caller.database.fetchval(running, least))


async def begin_and_end(caller: Caller, name: str) -> None:
    """Run ten items three times, and say how long each took from being stored to its first and last item."""
    times = []
    for _ in range(3):
        batch_id = await caller.submit("echo", list(range(10)))
        await caller.reach(batch_id)
        row = await caller.database.fetchrow(
            "SELECT extract(epoch FROM started_at - created_at)::float8 AS begun, "
            "extract(epoch FROM finished_at - created_at)::float8 AS ended FROM batches WHERE id = $1",
            batch_id,
        )
        assert row is not None
        times.append((row["begun"], row["ended"]))
        claims = "SELECT count(*) FROM turns WHERE batch_id = $1"
        assert await caller.database.fetchval(claims, batch_id) == 1
        before = await caller.database.fetchval(_CLAIMED_BEFORE, batch_id)
        print(f"chunks of the other owner that were claimed before: {before}")
        assert before <= _SLOTS
        await asyncio.sleep(0.3)
    reported = ", ".join(f"{begun:.2f} and {ended:.2f} s" for begun, ended in times)
    print(f"ten items beside {name}: begun and ended after {reported}")
    assert max(ended for _, ended in times) < _SOONER_THAN_S


async def remove(caller: Caller) -> None:
    """End what the other owner has, so that the next scene begins."""
    await caller.database.execute("UPDATE batches SET status = 'cancelling' WHERE owner_id = 'bob'")
    left = "SELECT count(*) = 0 FROM chunks WHERE owner_id = 'bob'"
    await until(lambda: caller.database.fetchval(left), timeout_s=60)


@pytest.fixture
async def started(spawn: Spawn, caller: Caller, tmp_path: Path) -> None:
    plugins = harmful_operation.install(tmp_path / "plugins")
    tests = Path(harmful_operation.__file__).parents[1]
    path = os.pathsep.join([str(plugins), str(tests), str(tests.parent / "deploy")])
    await spawn(PYTHONPATH=path)
    await caller.database.execute(_NOTE_CLAIMS)


async def test_ten_items_do_not_wait_for_long_items_or_thousands_of_tasks_of_another_owner(
    started: None, caller: Caller
) -> None:
    await plant(caller, "sleepy", "6", batches=16, items=10)
    await until(lambda: at_work(caller, 12))
    await begin_and_end(caller, "160 items of 6 s")
    assert not await has_ended(caller, 160)
    await remove(caller)
    await plant(caller, "sleepy", "0.2", batches=5_000)
    await until(lambda: has_ended(caller, 1))
    await begin_and_end(caller, "5,000 tasks of 0.2 s")
    assert not await has_ended(caller, 5_000)


async def test_ten_items_do_not_wait_for_a_million_items_of_another_owner(
    started: None, caller: Caller
) -> None:
    await plant(caller, "echo", "1", items=1_000_000, chunk=500)
    await until(lambda: has_ended(caller, 1))
    await begin_and_end(caller, "a batch of 1,000,000 items")
    assert not await has_ended(caller, 1_000_000)


async def test_ten_items_do_not_wait_for_items_of_another_owner_that_kill_their_processes(
    started: None, caller: Caller
) -> None:
    await plant(caller, "sleepy", "-1", batches=4, items=500, chunk=100)
    await until(lambda: at_work(caller, 1))
    await begin_and_end(caller, "2,000 items that kill their processes")
    # Of an owner with nothing else at work: among those of bob it would have its turns much later.
    [batch_id] = await plant(caller, "sleepy", "-1", owner="carol")
    await until(
        lambda: caller.database.fetchval("SELECT failed = 1 FROM batches WHERE id = $1", batch_id),
        timeout_s=60,
    )
    code = "SELECT error_code FROM results WHERE batch_id = $1"
    assert await caller.database.fetchval(code, batch_id) == "worker-died"
