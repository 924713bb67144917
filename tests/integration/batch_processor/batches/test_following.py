"""The task that follows the end of a batch, in combination with what else may happen to the batch."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from batch_processor.sources import copying
from chassis.broker.envelope import new_id
from contracts.batches import AppendItems, CancelBatch, CreateBatch, FollowUp, RetryBatch, SealBatch, Source
from contracts.items import Item
from support.batch_engine import BatchEngine

FOLLOWING = FollowUp(operation="echo", payload='"over"')


async def test_another_task_follows_when_a_retried_batch_ends_again(engine: BatchEngine) -> None:
    batch_id = await engine.give("ann", items=2, on_finished=FOLLOWING)
    await engine.work(succeeds=False)
    await engine.handle(RetryBatch(batch_id=batch_id, owner_id="ann", scopes=["quotes:read"]))
    await engine.coordinator.redrive()
    assert len(await _following(engine)) == 1
    await engine.work(succeeds=True)
    first, again = await _following(engine)
    assert first["batch_id"] != again["batch_id"]
    assert again["scopes"] == ["quotes:read"]
    assert first["metadata"] == again["metadata"] == _about(batch_id, "completed")


async def test_a_retry_of_errors_that_no_item_has_changes_nothing_and_is_followed_by_nothing(
    engine: BatchEngine,
) -> None:
    batch_id = await engine.give("ann", items=2, on_finished=FOLLOWING)
    await engine.work(succeeds=False)
    ended = await engine.get(batch_id)
    await engine.handle(RetryBatch(batch_id=batch_id, owner_id="ann", codes=["timeout", "no-such-code"]))
    await engine.coordinator.redrive()
    assert await engine.get(batch_id) == ended
    assert len(await _following(engine)) == 1
    # What it is retried for and what it is not may arrive together.
    await engine.handle(RetryBatch(batch_id=batch_id, owner_id="ann", codes=["timeout", "closed"]))
    await engine.coordinator.redrive()
    await engine.handle(RetryBatch(batch_id=batch_id, owner_id="ann", codes=["timeout"]))
    await engine.work(succeeds=True)
    again = await engine.get(batch_id)
    assert again is not None
    assert (again.status, again.succeeded) == ("completed", 2)
    assert len(await _following(engine)) == 2


async def test_a_task_that_is_made_again_with_the_same_id_is_followed_by_another_task(
    engine: BatchEngine,
) -> None:
    """The task that follows the first one may still wait."""
    task_id = await engine.give("ann", kind="task", on_finished=FOLLOWING)
    await engine.work(succeeds=True)
    aged = (
        "UPDATE batches SET finished_at = now() - interval '9 days', accepted_at = now() - interval '9 days'"
    )
    await engine.execute(aged)
    await engine.give("ann", kind="task", on_finished=FOLLOWING, batch_id=task_id)
    await engine.work(succeeds=True)
    first, again = await _following(engine)
    assert first["batch_id"] != again["batch_id"]


async def test_one_task_follows_an_upload_that_is_cancelled_before_its_items_and_its_seal_arrive(
    engine: BatchEngine,
) -> None:
    batch_id = new_id()
    about: dict[str, Any] = {"batch_id": batch_id, "owner_id": "ann"}
    await engine.handle(AppendItems(**about, offset=0, items=[Item(payload=1)]))
    await engine.handle(CancelBatch(**about))
    seal = SealBatch(**about, operation="echo", accepted_at=datetime.now(UTC), total=2, on_finished=FOLLOWING)
    for _ in range(2):
        await engine.handle(seal)
        await engine.handle(AppendItems(**about, offset=1, items=[Item(payload=2)]))
        await engine.handle(CancelBatch(**about))
    [task] = await _following(engine)
    assert task["metadata"] == _about(batch_id, "cancelled")


async def test_a_batch_whose_source_is_removed_while_it_waits_fails_and_is_followed(
    engine: BatchEngine,
) -> None:
    source_id = await engine.give("ann", items=2)
    await engine.work(succeeds=True)
    copy = await engine.give("ann", items=None, source=Source(batch_id=source_id), on_finished=FOLLOWING)
    await engine.execute(
        "UPDATE batches SET finished_at = now() - interval '1 year' WHERE id = $1", source_id
    )
    await engine.coordinator.remove()
    filling = copying.Sources(engine.postgres, engine.intake, operations=["echo"], begun=lambda: None)
    assert await filling.copy()
    batch = await engine.get(copy)
    assert batch is not None
    assert (batch.status, batch.error_code, batch.received) == ("failed", "source-not-usable", 0)
    [task] = await _following(engine)
    assert task["metadata"] == _about(copy, "failed")


@pytest.mark.parametrize("fails_first", [False, True])
async def test_the_task_that_follows_is_stored_once_and_is_followed_by_none(
    engine: BatchEngine, fails_first: bool
) -> None:
    await engine.give("ann", items=1, on_finished=FOLLOWING)
    await engine.work(succeeds=not fails_first)
    [task] = await _following(engine)
    for _ in range(2):
        await engine.handle(CreateBatch.model_validate(task))
    stored = await engine.fetch("SELECT id FROM batches WHERE kind = 'task'")
    assert [str(row["id"]) for row in stored] == [task["batch_id"]]
    await engine.work(succeeds=True)
    assert len(await _following(engine)) == 1


async def _following(engine: BatchEngine) -> list[Any]:
    """Return the commands in the outbox that make tasks."""
    find = "SELECT body FROM outbox WHERE message_type = $1 ORDER BY id"
    return [json.loads(row["body"]) for row in await engine.fetch(find, CreateBatch.message_type)]


def _about(batch_id: UUID, status: str) -> dict[str, str]:
    return {"finished_id": str(batch_id), "finished_status": status}
