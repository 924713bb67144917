"""Work that its owner has lost the right to is stopped, even when accepted before, and nothing else is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from batch_processor.intake import handlers
from contracts.batches import CreateBatch, FollowUp, LimitOwner
from support.batch_stack import BatchProcessors, Caller, Stage
from support.waiting import until

LATER = timedelta(hours=1)
BOTH = ["batches:write", "quotes:read"]


def delayed(caller: Caller, operation: str, scopes: list[str] | None) -> CreateBatch:
    at = datetime.now(UTC) + LATER
    return caller.creation(operation, [1], kind="task", scopes=scopes, not_before=at)


async def test_accepted_work_that_needs_a_lost_right_ends_with_the_reason(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    await house.start(worker_concurrency=1)
    lost, kept, untold = (
        delayed(caller, "guarded", BOTH),
        delayed(caller, "echo", BOTH),
        delayed(caller, "guarded", None),
    )
    for creation in (lost, kept, untold):
        await caller.send(creation)
        await caller.reach(creation.batch_id, "queued")
    follow_up = FollowUp(operation="guarded", payload="1")
    running = await caller.submit("gated", [1, 2], scopes=BOTH, on_finished=follow_up)
    await caller.reach(running, "running")
    await caller.send(LimitOwner(owner_id="somebody", scopes=[]))
    await caller.send(LimitOwner(owner_id="ann", scopes=["batches:write"]))
    for creation in (lost, untold):
        ended = await caller.reach(creation.batch_id)
        assert (ended.status, ended.error and ended.error["code"]) == ("cancelled", "insufficient-scope")
    assert (await caller.get(kept.batch_id, kind="task")).status == "queued"
    # What runs and needs nothing of it goes on; what follows it has the rights of now.
    stage.go.set()
    assert (await caller.reach(running)).status == "completed"

    async def is_refused() -> bool:
        row = "SELECT error_code FROM batches WHERE operation = 'guarded' AND metadata LIKE '%finished_id%'"
        return bool(await caller.database.fetchval(row) == "insufficient-scope")

    await until(is_refused)
    assert not stage.runs.keys() & {(lost.batch_id, 0), (untold.batch_id, 0)}


async def test_an_owner_of_many_batches_is_limited_step_by_step(
    house: BatchProcessors, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "LIMITED_AT_ONCE", 3)
    await house.start()
    tasks = [delayed(caller, "guarded", BOTH) for _ in range(8)]
    for task in tasks:
        await caller.send(task)
    await caller.reach(tasks[-1].batch_id, "queued")
    await caller.send(LimitOwner(owner_id="ann", scopes=["batches:write"]))
    assert {(await caller.reach(task.batch_id)).status for task in tasks} == {"cancelled"}
