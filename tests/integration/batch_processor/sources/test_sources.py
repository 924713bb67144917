"""Batches whose items are those of another batch."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from batch_processor.batches import life_cycle
from batch_processor.batches.life_cycle import StoredBatch
from batch_processor.resources import Resources
from batch_processor.sources import copying, repository
from chassis.broker.envelope import new_id
from chassis.postgres import Connection
from contracts.batches import CancelBatch, CreateBatch, Item, RetryBatch, Source
from support.batch_engine import BatchEngine
from support.batch_stack import BatchProcessors, Caller


@pytest.fixture
async def service(house: BatchProcessors, monkeypatch: pytest.MonkeyPatch) -> Resources:
    monkeypatch.setattr(copying, "STEP", 10)
    # Read once, when the service starts.
    monkeypatch.setattr(copying, "PAUSE_S", 0.3)
    return await house.start()


async def test_results_become_payloads_and_failed_items_keep_theirs(
    service: Resources, caller: Caller
) -> None:
    items = [Item(custom_id=f"item-{n}", payload=n) for n in range(45)]
    first = caller.creation("grumpy", None).model_copy(update={"items": items})
    await caller.send(first)
    await caller.reach(first.batch_id)
    # Exactly three steps of ten, and fifteen.
    wanted = Source(batch_id=first.batch_id, status="succeeded")
    second = await caller.submit_from("echo", wanted)
    batch = await caller.reach(second)
    assert (batch.status, batch.counts.succeeded) == ("completed", 30)
    results = await caller.results(second)
    expected = [(f"item-{n}", n) for n in range(45) if n % 3]
    assert [(result.custom_id, result.result) for result in results] == expected
    again = await caller.submit_from("echo", Source(batch_id=first.batch_id, status="failed"))
    await caller.reach(again)
    assert [result.result for result in await caller.results(again)] == list(range(0, 45, 3))


@pytest.mark.parametrize("is_begun", [False, True])
async def test_items_of_a_cancelled_batch_are_copied_whether_it_had_begun_or_not(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch, is_begun: bool
) -> None:
    monkeypatch.setattr(copying, "STEP", 2)
    first = await engine.give("ann", items=5)
    if is_begun:
        await engine.handle(CancelBatch(batch_id=first, owner_id="ann"))
        await engine.coordinator.cancel()
    else:
        # It was open: a cancel ends it at once.
        await engine.execute("DELETE FROM chunks")
        await engine.execute("UPDATE batches SET status = 'open', total = NULL, chunk_count = 0")
        await engine.handle(CancelBatch(batch_id=first, owner_id="ann"))
    source = Source(batch_id=first, status="cancelled")
    second = await engine.give("ann", items=None, source=source)
    filling = copying.Sources(engine.postgres, engine.intake, operations=["echo"], begun=lambda: None)
    while await filling.copy():
        pass
    items = await engine.fetch("SELECT position, payload FROM items WHERE batch_id = $1 ORDER BY 1", second)
    assert [tuple(row) for row in items] == [(n, str(n)) for n in range(5)]
    batch = await engine.get(second)
    assert batch is not None
    assert (batch.status, batch.total) == ("queued", 5)


async def test_a_step_copies_some_bytes_and_one_item_however_large(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "STEP_BYTES", 250)
    known = CreateBatch(
        batch_id=new_id(),
        owner_id="ann",
        operation="echo",
        accepted_at=datetime.now(UTC),
        items=[Item(payload="x" * size) for size in (98, 98, 98, 598, 98, 98)],
    )
    copy = known.model_copy(
        update={"batch_id": new_id(), "items": None, "source": Source(batch_id=known.batch_id)}
    )
    await engine.handle(known)
    await engine.execute(
        "INSERT INTO results (batch_id, position, status, attempts, result) "
        "SELECT batch_id, position, 'succeeded', 1, payload FROM items"
    )
    await engine.execute("UPDATE batches SET status = 'completed', finished_at = now()")
    await engine.handle(copy)
    filling = copying.Sources(engine.postgres, engine.intake, operations=["echo"], begun=lambda: None)
    received = []
    while await filling.copy():
        batch = await engine.get(copy.batch_id)
        assert batch is not None
        received.append((batch.received, batch.total))
    assert received == [(3, None), (4, None), (6, 6)]
    payloads = "SELECT payload FROM items WHERE batch_id = $1 ORDER BY position"
    assert await engine.fetch(payloads, copy.batch_id) == await engine.fetch(payloads, known.batch_id)


async def test_a_source_without_matching_items_makes_an_empty_batch(
    service: Resources, caller: Caller
) -> None:
    first = await caller.submit("echo", [1])
    await caller.reach(first)
    batch = await caller.reach(await caller.submit_from("echo", Source(batch_id=first, status="failed")))
    assert (batch.status, batch.counts.total) == ("completed", 0)


async def test_a_source_that_cannot_be_used_fails_the_batch(service: Resources, caller: Caller) -> None:
    caller.owner = "eve"
    foreign = await caller.submit("echo", [1])
    await caller.reach(foreign)
    caller.owner = "ann"
    running = await caller.submit("gated", [1])
    await caller.reach(running, "running")
    for source in (new_id(), foreign, running):
        batch = await caller.reach(await caller.submit_from("echo", Source(batch_id=source)))
        assert (batch.status, batch.error["code"]) == ("failed", "source-not-usable")


async def test_batches_are_filled_in_turns(service: Resources, caller: Caller) -> None:
    large = await caller.submit("echo", list(range(200)))
    small = await caller.submit("echo", [1])
    await caller.reach(large)
    await caller.reach(small)
    # Stored together: the large one is the first, and has twenty steps to go.
    first = await caller.submit_from("echo", Source(batch_id=large))
    second = await caller.submit_from("echo", Source(batch_id=small))
    await caller.reach(second)
    await caller.reach(first)
    begun = await caller.database.fetch(
        "SELECT id FROM batches WHERE id = ANY($1) ORDER BY started_at", [first, second]
    )
    assert [row["id"] for row in begun] == [second, first]


async def test_a_batch_that_cannot_be_filled_delays_no_other_and_fails_after_some_tries(
    service: Resources, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive, tries = life_cycle.receive, 0

    def receive_most(batch: StoredBatch, items: int, *, now: datetime) -> StoredBatch:
        nonlocal tries
        if '"failed"' in (batch.source or ""):
            tries += 1
            raise ValueError("bad \ud800 items")
        return receive(batch, items, now=now)

    monkeypatch.setattr(life_cycle, "receive", receive_most)
    known = await caller.submit("echo", [1])
    await caller.reach(known)
    broken = await caller.submit_from("echo", Source(batch_id=known, status="failed"))
    await caller.reach(broken, "open")
    assert (
        await caller.reach(await caller.submit_from("echo", Source(batch_id=known)))
    ).status == "completed"
    batch = await caller.reach(broken)
    assert (batch.status, batch.error["code"], tries) == ("failed", "source-not-usable", 3)


async def test_a_source_that_is_retried_between_two_steps_fails_the_copy_instead_of_mixing_two_runs(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "STEP", 2)
    first = await engine.give("ann", items=5)
    await engine.work(succeeds=False)
    copy = await engine.give("ann", items=None, source=Source(batch_id=first, status="failed"))
    filling = copying.Sources(engine.postgres, engine.intake, operations=["echo"], begun=lambda: None)
    assert await filling.copy()
    await engine.handle(RetryBatch(batch_id=first, owner_id="ann"))
    await engine.coordinator.redrive()
    await engine.work(succeeds=True)
    while await filling.copy():
        pass
    await _expect_unusable(engine, copy)


async def test_a_source_that_is_retried_while_its_items_are_looked_up_fails_the_copy(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await engine.give("ann", items=5)
    await engine.work(succeeds=False)
    copy = await engine.give("ann", items=None, source=Source(batch_id=first, status="failed"))
    look_up = repository.list_ended_positions

    async def look_up_too_late(connection: Connection, source: Source, *, after: int, most: int) -> list[int]:
        await engine.handle(RetryBatch(batch_id=first, owner_id="ann"))
        await engine.coordinator.redrive()
        return await look_up(connection, source, after=after, most=most)

    monkeypatch.setattr(repository, "list_ended_positions", look_up_too_late)
    filling = copying.Sources(engine.postgres, engine.intake, operations=["echo"], begun=lambda: None)
    assert await filling.copy()
    await _expect_unusable(engine, copy)


async def _expect_unusable(engine: BatchEngine, batch_id: UUID) -> None:
    batch = await engine.get(batch_id)
    assert batch is not None
    assert (batch.status, batch.error_code) == ("failed", "source-not-usable")
    assert "was retried" in (batch.error_detail or "")
    assert await engine.fetch("SELECT FROM chunks WHERE batch_id = $1", batch_id) == []
