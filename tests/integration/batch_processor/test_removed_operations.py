"""An operation is uninstalled while batches of it are there: these wait or fail, and nobody else notices."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from chassis.broker.envelope import new_id
from contracts.batches import CancelBatch, CreateBatch, RetryBatch
from support.batch_engine import Engine
from support.batch_stack import Caller, House, Stage
from support.waiting import until


async def test_a_retry_of_an_operation_that_is_not_here_waits_for_it_and_holds_up_no_cancel(
    house: House, caller: Caller, stage: Stage
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


async def test_an_upload_that_is_checked_when_its_operation_is_gone_fails_and_says_so(engine: Engine) -> None:
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
