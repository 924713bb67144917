"""Operations and owners are paused: running work ends, no other begins, and none is lost."""

from __future__ import annotations

import asyncio
from uuid import UUID

from contracts.batches import Batch
from contracts.pauses import ListPauses, PauseKind, Pauses, PauseWork, ResumeWork
from support.batch_stack import BatchProcessors, Caller, Stage
from support.waiting import until


async def pause(caller: Caller, kind: PauseKind, name: str) -> Pauses:
    request = PauseWork(kind=kind, name=name, reason="maintenance", paused_by="key")
    found: Pauses = await caller.ask(request, Pauses)
    return found


async def resume(caller: Caller, kind: PauseKind, name: str) -> Pauses:
    found: Pauses = await caller.ask(ResumeWork(kind=kind, name=name), Pauses)
    return found


async def waits_for(caller: Caller, batch_id: UUID, what: str) -> Batch:
    async def says_so() -> bool:
        batch = await caller.get(batch_id)
        return batch.next is not None and batch.next.what == what

    await until(says_so)
    return await caller.get(batch_id)


async def test_a_paused_operation_starts_nothing_until_it_is_resumed_and_other_work_goes_on(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    """Sixty items in six chunks, two items of which are at work when the operation is paused."""
    await house.start(worker_concurrency=1)
    batch_id = await caller.submit("gated", list(range(60)))
    await caller.reach(batch_id, "running")
    await asyncio.wait_for(stage.begun.wait(), 20)
    await pause(caller, "operation", "gated")
    [reported] = (await pause(caller, "operation", "gated")).data
    assert (reported.kind, reported.name, reported.reason, reported.paused_by) == (
        "operation",
        "gated",
        "maintenance",
        "key",
    )
    # A worker knows of it within a second, and its chunk begins nothing more.
    await asyncio.sleep(1.7)
    stage.go.set()
    later = await caller.submit("gated", [1, 2, 3])
    others = [await caller.submit("echo", [1, 2, 3]) for _ in range(3)]
    for other in others:
        assert (await caller.reach(other)).status == "completed"
    await waits_for(caller, later, "an administrator resumes the operation gated")
    begun = stage.runs.total()
    assert begun < 10
    await asyncio.sleep(1)
    assert stage.runs.total() == begun
    assert (await caller.get(batch_id)).status == "running"
    assert (await resume(caller, "operation", "gated")).data == []
    assert (await caller.reach(batch_id)).counts.succeeded == 60
    assert (await caller.reach(later)).counts.succeeded == 3
    assert set(stage.runs.values()) == {1}


async def test_a_pause_of_an_owner_outlives_a_restart_and_affects_nobody_else(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    async with house.running():
        await pause(caller, "owner", "ann")
    async with house.running(roles=("coordinator",)):
        batch_id = await caller.submit("counted", list(range(20)))
        limited = await caller.submit("counted", [1, 2], options={"max_concurrency": 1})
        await caller.reach(batch_id, "queued")
        await caller.reach(limited, "queued")
    await house.start()
    [reported] = (await caller.ask(ListPauses(), Pauses)).data
    assert (reported.kind, reported.name) == ("owner", "ann")
    caller.owner = "bob"
    assert (await caller.reach(await caller.submit("counted", [1, 2, 3]))).counts.succeeded == 3
    caller.owner = "ann"
    await waits_for(caller, batch_id, "an administrator resumes its owner's work")
    held = "SELECT count(*) = 0 FROM chunks WHERE owner_id = 'ann' AND state <> 'held'"
    await until(lambda: caller.database.fetchval(held))
    assert not [position for id_, position in stage.runs if id_ in (batch_id, limited)]
    # What waits for an administrator is not late.
    await caller.database.execute("UPDATE batches SET accepted_at = now() - interval '1 hour'")
    late = """
        SELECT count(*) FROM batches AS b WHERE status = 'queued'
            AND NOT EXISTS (SELECT FROM chunks WHERE batch_id = b.id AND state IN ('waiting', 'held'))
    """
    assert await caller.database.fetchval(late) == 0
    await resume(caller, "owner", "ann")
    assert (await resume(caller, "owner", "ann")).data == []
    assert (await caller.reach(batch_id)).counts.succeeded == 20
    assert (await caller.reach(limited)).counts.succeeded == 2
