"""Batches of an operation that no replica has, or has any more, wait for it or fail, and delay no others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from batch_processor.errors import OperationNotHere
from batch_processor.intake.validation import Validation
from batch_processor.sources.copying import Sources
from chassis.broker.envelope import new_id
from contracts.batches import (
    INTAKE,
    AppendItems,
    BatchFinished,
    CancelBatch,
    CreateBatch,
    Item,
    RetryBatch,
    SealBatch,
    Source,
)
from contracts.message import Command
from support.batch_engine import BatchEngine
from support.batch_stack import BatchProcessors, Caller, Stage
from support.waiting import until
from support.waiting_messages import waiting_messages


async def test_a_retry_of_an_operation_that_is_not_here_waits_for_it_and_holds_up_no_cancel(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    async with house.running():
        batch_id = await caller.submit("grumpy", [1, 2, 3])
        assert (await caller.reach(batch_id)).counts.failed == 1
    stage.removed = {"grumpy"}
    async with house.running():
        await caller.send(RetryBatch(batch_id=batch_id, owner_id="ann"))
        taken = "SELECT retry_codes IS NULL AND failed = 0 FROM batches WHERE id = $1"
        await until(lambda: caller.database.fetchval(taken, batch_id))
        later = await caller.submit("echo", [1], not_before=datetime.now(UTC) + timedelta(hours=1))
        await caller.reach(later, "queued")
        await caller.send(CancelBatch(batch_id=later, owner_id="ann"))
        assert (await caller.reach(later)).counts.cancelled == 1
    stage.removed = set()
    async with house.running():
        assert (await caller.reach(batch_id)).counts.failed == 1


async def test_an_upload_that_is_checked_when_its_operation_is_gone_fails_with_the_reason(
    engine: BatchEngine,
) -> None:
    """The operation was there when the upload was sealed."""
    batch_id = new_id()
    await engine.handle(
        CreateBatch(batch_id=batch_id, owner_id="ann", operation="echo", accepted_at=datetime.now(UTC))
    )
    await engine.execute(
        "UPDATE batches SET status = 'validating', operation = 'gone', total = 3, received = 3 WHERE id = $1",
        batch_id,
    )
    async with engine.postgres.transaction() as connection:
        await engine.intake.begin(connection, batch_id, None)
    found = await engine.get(batch_id)
    assert found is not None
    assert (found.status, found.error_code, found.skipped) == ("failed", "unknown-operation", 3)


async def test_work_of_an_operation_that_only_newer_replicas_have_waits_for_one_of_them(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    def waiting() -> float:
        labels = {"queue": INTAKE, "type": CreateBatch.message_type, "outcome": "retry"}
        return REGISTRY.get_sample_value("tickwire_messages_consumed_total", labels) or 0

    stage.removed, before = {"counted"}, waiting()
    async with house.running():
        batch_id = await caller.submit("counted", [1, 2])
        task_id = await caller.submit("counted", [3], kind="task")
        known = await caller.submit("echo", [4])
        assert (await caller.reach(known)).status == "completed"
        await until(lambda: waiting() == before + 2)
    stage.removed = set()
    async with house.running():
        assert (await caller.reach(batch_id)).counts.succeeded == 2
        assert (await caller.reach(task_id)).status == "completed"


def messages_of(kind: str, id_: UUID) -> list[Command]:
    """Return messages that make a batch of an operation that is not here; the last one completes it."""
    now, items = datetime.now(UTC), [Item(payload=1)]
    creation = CreateBatch(batch_id=id_, owner_id="ann", operation="later", accepted_at=now)
    append = AppendItems(batch_id=id_, owner_id="ann", offset=0, items=items)
    seal = SealBatch(batch_id=id_, owner_id="ann", operation="later", accepted_at=now, total=1)
    whole = creation.model_copy(update={"items": items})
    found: dict[str, list[Command]] = {
        "batch": [whole],
        "task": [whole.model_copy(update={"kind": "task"})],
        "upload, its seal last": [append, seal],
        "upload, its items last": [seal, append],
    }
    return found[kind]


@pytest.mark.parametrize("kind", ["batch", "task", "upload, its seal last", "upload, its items last"])
async def test_work_that_was_left_to_others_for_a_while_fails_when_no_replica_has_its_operation(
    engine: BatchEngine, kind: str
) -> None:
    *others, last = messages_of(kind, new_id())
    for message in others:
        await engine.handle(message)
    for attempt in range(1, 5):
        with pytest.raises(OperationNotHere, match="later"):
            await engine.handle(last, attempt=attempt)
    await engine.handle(last, attempt=5)
    [row] = await engine.fetch("SELECT status, error_code, error_detail, skipped FROM batches")
    assert (row["status"], row["error_code"], row["skipped"]) == ("failed", "unknown-operation", 1)
    assert "later" in row["error_detail"]
    async with engine.postgres.connection() as connection:
        [ended] = await waiting_messages(connection)
    assert ended.message_type == BatchFinished.message_type


@pytest.mark.parametrize("kind", ["batch", "upload, its items last"])
async def test_a_cancelled_item_does_not_wait_for_its_operation(engine: BatchEngine, kind: str) -> None:
    id_ = new_id()
    *others, last = messages_of(kind, id_)
    for message in others:
        await engine.handle(message)
    await engine.handle(CancelBatch(batch_id=id_, owner_id="ann"))
    await engine.handle(last)
    [row] = await engine.fetch("SELECT status, cancelled FROM batches")
    assert (row["status"], row["cancelled"]) == ("cancelled", 1)


@pytest.mark.parametrize("waits", ["validating", "source"])
async def test_a_check_or_a_copy_for_an_operation_that_is_not_here_is_left_to_others_for_a_while(
    engine: BatchEngine, waits: str
) -> None:
    source = Source(batch_id=new_id()) if waits == "source" else None
    creation = CreateBatch(
        batch_id=new_id(), owner_id="ann", operation="later", accepted_at=datetime.now(UTC), source=source
    )
    await engine.handle(creation)
    if source is None:
        await engine.execute(
            "UPDATE batches SET status = 'validating', total = 3, received = 3, validating_since = now()"
        )
    intake, names = engine.intake, ["echo"]
    validation = Validation(engine.postgres, intake.begin, operations=names, begun=lambda: None)
    sources = Sources(engine.postgres, intake, operations=names, begun=lambda: None)

    async def take_one() -> bool:
        return await (sources.copy() if source else validation.check("oldest"))

    assert not await take_one()
    past = "UPDATE batches SET validating_since = now() - $1::interval, accepted_at = now() - $1::interval"
    await engine.execute(past, timedelta(seconds=301))
    assert await take_one()
    found = await engine.get(creation.batch_id)
    assert found is not None
    assert found.status == "failed"
    assert found.error_code == ("source-not-usable" if source else "unknown-operation")
