"""Ready chunks of paused or cancelled batches, which cannot begin, take no turn from other owners."""

from __future__ import annotations

from typing import Any

import pytest

from batch_processor.execution.worker import Worker
from batch_processor.operations.echo import OPERATION as ECHO
from chassis.deadlines import Deadline
from contracts.batches import CancelBatch, PauseBatch
from contracts.pauses import PauseWork
from support.batch_engine import BatchEngine
from support.waiting_chunks import plant


@pytest.mark.parametrize("order", [PauseBatch, CancelBatch])
async def test_the_only_free_slot_goes_to_an_owner_whose_work_can_begin(
    engine: BatchEngine, order: type[PauseBatch | CancelBatch]
) -> None:
    for owner in ("ann", "cid"):
        blocked = await engine.give(owner, items=30)
        await engine.handle(order(batch_id=blocked, owner_id=owner))
    wanted = await engine.give("bob")
    [claimed] = await engine.claim(most=1, for_any=0)
    assert claimed.claim.batch_id == wanted


async def test_work_of_a_paused_operation_leaves_the_only_free_slot_to_others(engine: BatchEngine) -> None:
    await engine.give("ann", items=30)
    pause = PauseWork(kind="operation", name="echo", reason="", paused_by="key")
    await engine.pauses.pause(pause, Deadline.after(5))
    await engine.execute("UPDATE batches SET operation = 'other' WHERE id = $1", await engine.give("bob"))
    [claimed] = await engine.claim(most=1, for_any=0)
    assert claimed.claim.owner_id == "bob"


async def test_a_worker_looks_once_at_each_of_many_owners_of_whom_none_has_anything_to_claim(
    engine: BatchEngine,
) -> None:
    async with engine.postgres.connection() as connection:
        await plant(connection, 0, 50)
    await engine.execute("INSERT INTO pauses (kind, name, paused_by) VALUES ('operation', 'echo', 'key')")
    runs: Any = None
    worker = Worker(engine.postgres, engine.settlement, {"echo": ECHO}, runs=runs, slots=1)
    # Thirty-two at a time; the next wake-up looks at all again.
    assert [await worker.pull() for _ in range(4)] == [True, False, True, False]
