"""What workers report is stored, and told, once."""

from __future__ import annotations

from datetime import UTC, datetime

from batch_processor.execution.running_chunk import Failure, Outcomes
from batch_processor.execution.settlement import Report
from chassis.broker.envelope import new_id
from contracts.batches import CreateBatch, RetryBatch
from contracts.items import Item
from support.batch_engine import Engine


async def test_a_batch_that_a_checkpoint_has_ended_is_announced_once(engine: Engine) -> None:
    batch_id, now = new_id(), datetime.now(UTC)
    items = [Item(payload=number) for number in range(3)]
    creation = CreateBatch(batch_id=batch_id, owner_id="ann", operation="echo", accepted_at=now, items=items)
    await engine.handle(creation)
    [loaded] = await engine.claim(most=1, for_any=1)
    # All items had ended when the worker said that the chunk is alive; then it says that it is done.
    outcomes = Outcomes(positions=[0, 1, 2], results=["0", "1", "2"])
    await engine.store([Report(loaded.claim, "running", outcomes)])
    await engine.store([Report(loaded.claim, "done")])
    batch = await engine.get(batch_id)
    assert batch is not None
    assert (batch.status, batch.succeeded) == ("completed", 3)
    events = await engine.fetch("SELECT message_id FROM outbox WHERE message_type = 'batch.finished.v1'")
    assert len(events) == 1


async def test_a_chunk_whose_worker_died_after_its_last_result_is_gone_and_a_retry_runs_items_once(
    engine: Engine,
) -> None:
    batch_id, now = new_id(), datetime.now(UTC)
    items = [Item(payload=number) for number in range(3)]
    creation = CreateBatch(batch_id=batch_id, owner_id="ann", operation="echo", accepted_at=now, items=items)
    await engine.handle(creation)
    [loaded] = await engine.claim(most=1, for_any=1)
    outcomes = Outcomes(failures=[Failure(position, "early", "no") for position in range(3)])
    await engine.store([Report(loaded.claim, "running", outcomes)])
    await engine.execute("UPDATE chunks SET leased_until = now() - interval '1 s'")
    await engine.coordinator.sweep()
    assert await engine.fetch("SELECT * FROM chunks") == []
    await engine.handle(RetryBatch(batch_id=batch_id, owner_id="ann"))
    await engine.coordinator.redrive()
    claimed = await engine.claim(most=4, for_any=4)
    assert [item.position for each in claimed for item in each.items] == [0, 1, 2]
