"""Light tasks come along with a chunk whose turn it is, and take nobody's turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from batch_processor.execution.claim_repository import MOST_RIDER_BYTES, MOST_RIDERS
from batch_processor.execution.claims import Loaded
from chassis.broker.envelope import new_id
from contracts.batches import CancelBatch, CreateBatch
from contracts.items import Item
from support.batch_engine import BatchEngine
from support.batch_stack import BatchProcessors, Caller


async def give(
    engine: BatchEngine, owner: str, count: int, *, kind: str = "task", items: int = 1
) -> list[UUID]:
    """Store `count` batches or tasks of `owner`; return their ids."""
    ids = [new_id() for _ in range(count)]
    for id_ in ids:
        message = CreateBatch.model_validate(
            {
                "batch_id": id_,
                "owner_id": owner,
                "kind": kind,
                "operation": "echo",
                "accepted_at": datetime.now(UTC),
                "items": [Item(payload=number) for number in range(items)],
            }
        )
        await engine.handle(message)
    return ids


def reported(claimed: Sequence[Loaded]) -> Counter[tuple[str, bool]]:
    """Return the number of chunks of each owner that have a slot, and of those that ride."""
    return Counter((loaded.claim.owner_id, loaded.claim.rides) for loaded in claimed)


async def test_tasks_come_along_and_every_owner_has_its_turn(engine: BatchEngine) -> None:
    await give(engine, "ann", 20)
    await give(engine, "bob", 1)
    claimed = await engine.claim(most=4, for_any=3, light=["echo"])
    assert reported(claimed) == {("ann", False): 2, ("bob", False): 1, ("ann", True): 18}
    assert all(len(loaded.items) == 1 for loaded in claimed)
    assert not await engine.claim(most=4, for_any=3, light=["echo"])


async def test_no_more_tasks_come_along_than_the_limit_and_the_next_claim_takes_the_rest(
    engine: BatchEngine,
) -> None:
    await give(engine, "ann", MOST_RIDERS + 10)
    assert reported(await engine.claim(most=1, for_any=1, light=["echo"])) == {
        ("ann", False): 1,
        ("ann", True): MOST_RIDERS,
    }
    assert reported(await engine.claim(most=4, for_any=4, light=["echo"])) == {
        ("ann", False): 4,
        ("ann", True): 5,
    }


async def test_only_light_tasks_that_have_killed_no_process_come_along(engine: BatchEngine) -> None:
    first, lost, suspect, cancelled, last = await give(engine, "ann", 5)
    await give(engine, "ann", 3, kind="batch", items=1)
    await engine.execute("UPDATE chunks SET lost = 1 WHERE batch_id = $1", lost)
    await engine.execute("UPDATE chunks SET suspect = true WHERE batch_id = $1", suspect)
    await engine.handle(CancelBatch(batch_id=cancelled, owner_id="ann"))
    claimed = await engine.claim(most=1, for_any=1, light=["echo"])
    assert {loaded.claim.batch_id: loaded.claim.rides for loaded in claimed} == {first: False, last: True}


async def test_tasks_of_other_operations_come_alone(engine: BatchEngine) -> None:
    await give(engine, "ann", 5)
    assert reported(await engine.claim(most=2, for_any=2, light=["another"])) == {("ann", False): 2}


async def test_many_tasks_run_in_few_slots_each_once_and_leave_no_slot_taken(
    house: BatchProcessors, caller: Caller
) -> None:
    await house.start(worker_concurrency=1)
    ids = [await caller.submit("echo", [number], kind="task") for number in range(250)]
    for number, id_ in enumerate(ids):
        task = await caller.reach(id_)
        assert (task.status, task.result) == ("completed", number)
    assert len(await caller.finished_events()) == 250
    # Its only slot is free again.
    assert (await caller.reach(await caller.submit("echo", [1, 2]))).status == "completed"


async def test_large_tasks_come_alone_whatever_is_free(engine: BatchEngine) -> None:
    await give(engine, "ann", 3)
    await give(engine, "ann", 3)
    large = "UPDATE items SET payload = '\"' || repeat('x', $1) || '\"' WHERE batch_id = $2"
    for id_ in await give(engine, "ann", 5):
        await engine.execute(large, MOST_RIDER_BYTES, id_)
    claimed = await engine.claim(most=1, for_any=1, light=["echo"])
    assert reported(claimed) == {("ann", False): 1, ("ann", True): 5}
    assert all(len(loaded.items[0].payload) < MOST_RIDER_BYTES for loaded in claimed)
