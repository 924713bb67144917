"""Batches are paused, resumed, retried, moved and expire, on real servers with a worker at work."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from batch_processor.coordination import repository
from batch_processor.resources import Resources
from contracts.batches import (
    CancelBatch,
    FollowUp,
    MoveBatch,
    PauseBatch,
    ResumeBatch,
    RetryBatch,
)
from support.batch_stack import BatchProcessors, Caller, Stage
from support.waiting import until


@pytest.fixture
async def service(house: BatchProcessors) -> Resources:
    return await house.start()


async def test_a_paused_batch_begins_nothing_until_it_is_resumed(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    """Sixty items in six chunks, one of which is at work."""
    await house.start(worker_concurrency=1)
    batch_id = await caller.submit("gated", list(range(60)))
    await caller.reach(batch_id, "running")
    await caller.send(PauseBatch(batch_id=batch_id, owner_id="ann"))
    paused = await caller.reach(batch_id, "paused")
    assert paused.next is not None
    assert paused.next.what == "its owner resumes it"
    assert (paused.counts.pending, paused.counts.running) == (50, 10)
    # Those at work may finish, and everything else is put aside.
    stage.go.set()
    await until(lambda: _chunks(caller, batch_id, {"held"}))
    begun = stage.runs.total()
    other = await caller.reach(await caller.submit("echo", [1, 2, 3]))
    assert other.status == "completed"
    await asyncio.sleep(0.5)
    assert stage.runs.total() == begun < 60
    assert (await caller.get(batch_id)).status == "paused"
    await caller.send(ResumeBatch(batch_id=batch_id, owner_id="ann"))
    batch = await caller.reach(batch_id)
    assert (batch.status, batch.counts.succeeded) == ("completed", 60)
    assert max(stage.runs.values()) == 1
    assert len(await caller.finished_events()) == 2


async def test_a_batch_of_which_too_many_items_fail_is_stopped_and_says_why(
    house: BatchProcessors, caller: Caller
) -> None:
    await house.start(worker_concurrency=1)
    options = {"priority": "high", "tolerated_failure": {"count": 5}}
    batch = await caller.reach(await caller.submit("grumpy", [3] * 200, options=options))
    assert (batch.status, batch.error["code"]) == ("failed", "too-many-failures")
    assert (batch.counts.failed + batch.counts.cancelled, batch.counts.pending) == (200, 0)
    assert 5 < batch.counts.failed < 200
    assert await caller.database.fetchval("SELECT priority FROM batches") == 8
    assert len(await caller.finished_events()) == 1


async def test_a_batch_that_is_paused_can_be_cancelled(
    service: Resources, caller: Caller, stage: Stage
) -> None:
    due = datetime.now(UTC) + timedelta(hours=1)
    batch_id = await caller.submit("echo", [1, 2], not_before=due)
    await caller.reach(batch_id, "queued")
    await caller.send(PauseBatch(batch_id=batch_id, owner_id="ann"))
    await caller.reach(batch_id, "paused")
    await caller.send(CancelBatch(batch_id=batch_id, owner_id="ann"))
    batch = await caller.reach(batch_id)
    assert (batch.status, batch.counts.cancelled) == ("cancelled", 2)


async def test_only_the_failed_items_run_again_and_their_errors_are_kept(
    service: Resources, caller: Caller, stage: Stage
) -> None:
    """Items that fail three times: their operation gives up after the third, and one succeeds at last."""
    batch_id = await caller.submit("flaky", [0, 3, 9, 0])
    batch = await caller.reach(batch_id)
    assert (batch.counts.succeeded, batch.errors) == (2, {"service-unavailable": 2})
    runs = dict(stage.runs)
    await caller.send(RetryBatch(batch_id=batch_id, owner_id="ann"))
    await until(lambda: stage.runs[batch_id, 2] == 6)
    batch = await caller.reach(batch_id)
    assert (batch.status, batch.counts.succeeded, batch.counts.failed) == ("completed", 2, 2)
    assert (stage.runs[batch_id, 0], stage.runs[batch_id, 3]) == (runs[batch_id, 0], runs[batch_id, 3])
    rows = await caller.database.fetch("SELECT position, nth, code, detail FROM attempts ORDER BY 1, 2")
    assert [(row["position"], row["nth"]) for row in rows] == [(p, n) for p in (1, 2) for n in range(1, 6)]
    assert rows[1]["detail"] == "attempt 2"
    assert len(await caller.finished_events()) == 2


async def test_a_batch_that_is_retried_without_end_keeps_the_newest_failed_attempts_of_each_item(
    service: Resources, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "MOST_ATTEMPTS", 2)
    batch_id = await caller.submit("grumpy", list(range(4)))
    failed = (await caller.reach(batch_id)).counts.failed
    for retry in range(1, 5):
        await caller.send(RetryBatch(batch_id=batch_id, owner_id="ann"))
        await until(lambda: _is_retried(caller, retry))  # noqa: B023 - awaited at once
        assert (await caller.reach(batch_id)).counts.failed == failed
    rows = await caller.database.fetch("SELECT nth FROM attempts ORDER BY nth")
    assert [row["nth"] for row in rows] == [nth for nth in (3, 4) for _ in range(failed)]


async def test_a_large_retry_goes_in_steps_and_takes_each_failed_item_once(
    house: BatchProcessors, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch_processor.coordination.coordinator.REDRIVE_STEP", 7)
    await house.start()
    batch_id = await caller.submit("grumpy", list(range(100)))
    assert (await caller.reach(batch_id)).counts.failed == 34
    await caller.send(RetryBatch(batch_id=batch_id, owner_id="ann", codes=["conflict"]))
    await until(lambda: _failures_kept(caller, 34))
    batch = await caller.reach(batch_id)
    assert (batch.status, batch.counts.failed, batch.errors) == ("completed", 34, {"conflict": 34})
    assert len(await caller.results(batch_id, limit=30)) == 100


async def test_a_task_that_waits_for_its_time_is_moved(service: Resources, caller: Caller) -> None:
    due = datetime.now(UTC) + timedelta(hours=1)
    task_id = await caller.submit("echo", [7], kind="task", not_before=due)
    assert (await caller.reach(task_id, "queued")).run_at == due
    later = due + timedelta(hours=1)
    await caller.send(MoveBatch(batch_id=task_id, owner_id="ann", not_before=later))
    await until(lambda: _is_due(caller, task_id, later))
    await caller.send(MoveBatch(batch_id=task_id, owner_id="ann", not_before=datetime.now(UTC)))
    task = await caller.reach(task_id)
    assert (task.status, task.result) == ("completed", 7)


async def test_a_task_begins_at_its_time_and_not_at_the_next_poll(
    house: BatchProcessors, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch_processor.coordination.coordinator.PROMOTE_EVERY_S", 3600)
    await house.start()
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    later = await caller.submit("echo", [2], kind="task", not_before=soon + timedelta(seconds=0.3))
    sooner = await caller.submit("echo", [1], kind="task", not_before=soon)
    assert [(await caller.reach(task_id)).result for task_id in (sooner, later)] == [1, 2]
    assert datetime.now(UTC) > soon + timedelta(seconds=0.3)


async def test_a_batch_past_its_deadline_expires_with_the_results_that_it_has(
    service: Resources, caller: Caller, stage: Stage
) -> None:
    stage.free = 3
    soon = datetime.now(UTC) + timedelta(seconds=1)
    batch_id = await caller.submit("gated", list(range(30)), expires_at=soon)
    batch = await caller.reach(batch_id)
    assert (batch.status, batch.counts.succeeded, batch.counts.cancelled) == ("expired", 3, 27)
    assert batch.error["code"] == "deadline-exceeded"
    assert len(await caller.results(batch_id)) == 30
    # What never ran of uploads is removed; the results of this one are kept.
    await service.coordinator.remove()
    assert len(await caller.results(batch_id, status="succeeded")) == 3


async def test_a_task_follows_the_end_of_a_batch_with_its_rights(service: Resources, caller: Caller) -> None:
    wanted = FollowUp(operation="guarded", payload='{"n": 1.10}')
    about = {"on_finished": wanted, "scopes": ["quotes:read"], "metadata": {"order": "7"}}
    batch_id = await caller.submit("echo", [1], **about)
    assert (await caller.reach(batch_id)).metadata == {"order": "7"}
    find = "SELECT id FROM batches WHERE id <> $1"
    await until(lambda: caller.database.fetchval(find, batch_id))
    task = await caller.reach(await caller.database.fetchval(find, batch_id))
    assert (task.kind, task.operation, task.status) == ("task", "guarded", "completed")
    assert task.metadata == {"finished_id": str(batch_id), "finished_status": "completed"}
    payload = await caller.database.fetchval("SELECT payload FROM items WHERE batch_id = $1", task.id)
    assert payload == '{"n": 1.10}'


async def test_a_follow_up_task_without_the_scopes_that_it_needs_fails_visibly(
    service: Resources, caller: Caller
) -> None:
    wanted = FollowUp(operation="guarded")
    batch_id = await caller.submit("echo", [1], on_finished=wanted, scopes=["batches:write"])
    await caller.reach(batch_id)
    find = "SELECT id FROM batches WHERE id <> $1"
    await until(lambda: caller.database.fetchval(find, batch_id))
    task = await caller.reach(await caller.database.fetchval(find, batch_id))
    assert (task.status, task.error["code"]) == ("failed", "insufficient-scope")


async def _chunks(caller: Caller, batch_id: UUID, states: set[str]) -> bool:
    rows = await caller.database.fetch("SELECT DISTINCT state FROM chunks WHERE batch_id = $1", batch_id)
    return {row["state"] for row in rows} == states


async def _is_retried(caller: Caller, times: int) -> bool:
    return bool(await caller.database.fetchval("SELECT max(nth) = $1 FROM attempts", times))


async def _failures_kept(caller: Caller, count: int) -> bool:
    return bool(await caller.database.fetchval("SELECT count(*) FROM attempts") == count)


async def _is_due(caller: Caller, batch_id: UUID, due: datetime) -> bool:
    find = "SELECT due_at FROM chunks WHERE batch_id = $1"
    return bool(await caller.database.fetchval(find, batch_id) == due)
