"""A task is moved beside all that has its chunk, and nobody waits in a circle for it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

from batch_processor.execution.running_chunk import Outcomes
from batch_processor.execution.settlement import ChunkReport
from chassis.broker.envelope import Delivery, new_id
from chassis.postgres import Connection
from contracts.batches import MoveBatch
from support.batch_engine import BatchEngine
from support.waiting import until

LATER = datetime.now(UTC) + timedelta(days=1)


async def move(engine: BatchEngine, *ids: UUID) -> None:
    """Handle a group of messages, as the consumer does."""
    deliveries = [
        Delivery(
            MoveBatch(batch_id=id_, owner_id="ann", not_before=LATER),
            message_id=new_id(),
            attempt=1,
            tenant="",
            headers={},
        )
        for id_ in ids
    ]
    async with engine.postgres.transaction() as connection:
        await engine.intake.move(connection, deliveries)


async def until_waiting(connection: Connection, *tasks: asyncio.Task[None]) -> None:
    """Wait until each of `tasks` that has not ended waits for a lock."""

    async def wait() -> bool:
        waiting = await connection.fetchval("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted")
        return bool(waiting >= sum(not task.done() for task in tasks))

    await until(wait)


async def test_a_task_is_moved_also_while_the_coordinator_has_its_chunk(engine: BatchEngine) -> None:
    task = await engine.give("ann", kind="task")
    async with engine.postgres.transaction() as connection:
        await connection.fetch("SELECT FROM chunks FOR UPDATE")
        moving = asyncio.create_task(move(engine, task))
        await until_waiting(connection, moving)
    await moving
    assert [tuple(row) for row in await engine.fetch("SELECT state, due_at FROM chunks")] == [
        ("delayed", LATER)
    ]


async def test_who_has_a_chunk_and_waits_for_a_batch_never_waits_for_a_move(engine: BatchEngine) -> None:
    """A move of two tasks waits for a step that has the chunk of one; a worker reports on the other."""
    waiting, begun = [await engine.give("ann", kind="task") for _ in range(2)]
    await engine.execute("UPDATE chunks SET state = 'waiting', gate = 'x' WHERE batch_id = $1", waiting)
    [loaded] = await engine.claim(most=1, for_any=1)
    assert loaded.claim.batch_id == begun
    async with engine.postgres.transaction() as connection:
        await connection.fetch("SELECT FROM chunks WHERE batch_id = $1 FOR UPDATE", waiting)
        moving = asyncio.create_task(move(engine, waiting, begun))
        await until_waiting(connection, moving)
        # The report takes the row of its task, for which the step could be waiting.
        await engine.store([ChunkReport(loaded.claim, "done", Outcomes([0], ["0"]))])
        await connection.fetch("SELECT FROM batches WHERE id = $1 FOR UPDATE", begun)
    await moving
    ended, moved = await engine.get(begun), await engine.get(waiting)
    assert ended is not None
    assert moved is not None
    assert (ended.status, moved.status, moved.not_before) == ("completed", "queued", LATER)
