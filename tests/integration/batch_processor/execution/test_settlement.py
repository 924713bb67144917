"""The reports of workers are stored once and announced once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from batch_processor.batches import batch_repository
from batch_processor.coordination import coordinator, owner_turns
from batch_processor.execution import result_repository
from batch_processor.execution.claims import ChunkKey, RemainingItems
from batch_processor.execution.result_repository import Entry
from batch_processor.execution.running_chunk import ItemFailure, Outcomes, RunningChunk
from batch_processor.execution.settlement import ChunkReport, Settlement
from batch_processor.execution.worker import Worker
from batch_processor.intake import repository
from batch_processor.items.binary_copy import ItemRun
from batch_processor.operations.echo import OPERATION as ECHO
from chassis import supervision
from chassis.broker.envelope import new_id
from contracts.batches import CancelBatch, CreateBatch, RetryBatch
from contracts.items import Item
from support.batch_engine import BatchEngine, Quiet
from support.waiting import until


async def test_a_batch_that_a_checkpoint_has_ended_is_announced_once(engine: BatchEngine) -> None:
    batch_id, now = new_id(), datetime.now(UTC)
    items = [Item(payload=number) for number in range(3)]
    creation = CreateBatch(batch_id=batch_id, owner_id="ann", operation="echo", accepted_at=now, items=items)
    await engine.handle(creation)
    [loaded] = await engine.claim(most=1, for_any=1)
    # All items had ended when the worker said that the chunk is alive; then it says that it is done.
    outcomes = Outcomes(positions=[0, 1, 2], results=["0", "1", "2"])
    await engine.store([ChunkReport(loaded.claim, "running", outcomes)])
    await engine.store([ChunkReport(loaded.claim, "done")])
    batch = await engine.get(batch_id)
    assert batch is not None
    assert (batch.status, batch.succeeded) == ("completed", 3)
    events = await engine.fetch("SELECT message_id FROM outbox WHERE message_type = 'batch.finished.v1'")
    assert len(events) == 1


async def test_a_chunk_whose_worker_died_after_its_last_result_is_gone_and_a_retry_runs_items_once(
    engine: BatchEngine,
) -> None:
    batch_id, now = new_id(), datetime.now(UTC)
    items = [Item(payload=number) for number in range(3)]
    creation = CreateBatch(batch_id=batch_id, owner_id="ann", operation="echo", accepted_at=now, items=items)
    await engine.handle(creation)
    [loaded] = await engine.claim(most=1, for_any=1)
    outcomes = Outcomes(failures=[ItemFailure(position, "early", "no") for position in range(3)])
    await engine.store([ChunkReport(loaded.claim, "running", outcomes)])
    await engine.execute("UPDATE chunks SET leased_until = now() - interval '1 s'")
    await engine.coordinator.sweep()
    assert await engine.fetch("SELECT * FROM chunks") == []
    await engine.handle(RetryBatch(batch_id=batch_id, owner_id="ann"))
    await engine.coordinator.redrive()
    claimed = await engine.claim(most=4, for_any=4)
    assert [item.position for each in claimed for item in each.items] == [0, 1, 2]


async def test_a_chunk_of_a_lost_worker_of_the_release_before_is_ready_again(engine: BatchEngine) -> None:
    items = [Item(payload=1)]
    creation = CreateBatch(
        batch_id=new_id(), owner_id="ann", operation="echo", accepted_at=datetime.now(UTC), items=items
    )
    await engine.handle(creation)
    await engine.claim(most=1, for_any=1)
    await engine.execute("UPDATE chunks SET state = 'dispatched', leased_until = now() - interval '1 s'")
    await engine.coordinator.sweep()
    assert [tuple(row) for row in await engine.fetch("SELECT state FROM chunks")] == [("ready",)]


async def test_a_result_that_is_stored_already_stays_as_it_is_and_counts_once(
    engine: BatchEngine,
) -> None:
    batch_id = new_id()
    async with engine.postgres.transaction() as connection:
        first = await result_repository.store(connection, [Entry(batch_id, 1, Outcomes([1], ["1"]))])
        again = await result_repository.store(
            connection, [Entry(batch_id, 2, Outcomes([0, 1, 2], ["0", "9", "2"]))]
        )
    assert (first[batch_id].succeeded, again[batch_id].succeeded) == (1, 2)
    rows = await engine.fetch("SELECT result, attempts FROM results ORDER BY position")
    assert [tuple(row) for row in rows] == [("0", 2), ("1", 1), ("2", 2)]


async def test_many_results_are_stored_once_each_beside_those_that_are_there(engine: BatchEngine) -> None:
    batch_id, texts = new_id(), [f'"ü {place}"' for place in range(40)]
    early = Outcomes(list(range(25)), texts[:25])
    entries = [
        Entry(batch_id, 2, Outcomes(list(range(20)), texts[:20])),
        Entry(batch_id, 3, Outcomes(list(range(20, 40)), texts[20:])),
    ]
    async with engine.postgres.transaction() as connection:
        first = await result_repository.store(connection, [Entry(batch_id, 1, early)])
        again = await result_repository.store(connection, entries)
    assert (first[batch_id].succeeded, again[batch_id].succeeded) == (25, 15)
    rows = await engine.fetch("SELECT status, result, attempts FROM results ORDER BY position")
    assert [tuple(row) for row in rows] == [
        ("succeeded", text, 1 if place < 25 else 3) for place, text in enumerate(texts)
    ]


async def test_many_items_are_stored_once_each_with_their_names_and_lines(engine: BatchEngine) -> None:
    batch_id, other = new_id(), new_id()
    names = [None if place % 3 else f"Ä {place}" for place in range(30)]
    texts = [f'["☃",{place}.10]' for place in range(30)]
    run = ItemRun(batch_id, 5, names, [text.encode() for text in texts], list(range(11, 41)))
    rest = ItemRun(batch_id, 35, None, [b"1"], None)
    async with engine.postgres.transaction() as connection:
        assert await repository.add_items(connection, [run, rest]) == {batch_id: 31}
        assert await repository.add_items(connection, [run, rest._replace(batch_id=other)]) == {other: 1}
        assert await repository.add_items(connection, []) == {}
    rows = await engine.fetch(
        "SELECT position, custom_id, payload, line FROM items WHERE batch_id = $1 ORDER BY position", batch_id
    )
    stored = list(zip(range(5, 35), names, texts, range(11, 41), strict=True))
    assert [tuple(row) for row in rows] == [*stored, (35, None, "1", None)]


async def create_of_large_items(engine: BatchEngine) -> None:
    """Create a batch of three items, of which two fit into the memory of a claim."""
    items = [Item(payload="x" * 2_500_000) for _ in range(3)]
    creation = CreateBatch(
        batch_id=new_id(), owner_id="ann", operation="echo", accepted_at=datetime.now(UTC), items=items
    )
    await engine.handle(creation)


async def test_a_claim_has_the_items_without_a_result_and_leaves_those_that_do_not_fit_into_memory(
    engine: BatchEngine,
) -> None:
    await create_of_large_items(engine)
    [first] = await engine.claim(most=1, for_any=1)
    assert [item.position for item in first.items] == [0, 1]
    assert first.beyond is not None
    assert (first.beyond.first_position, first.beyond.last_position, first.beyond.items) == (2, 2, 1)
    await engine.store([ChunkReport(first.claim, "ready", Outcomes([2], ["0"]))])
    [second] = await engine.claim(most=1, for_any=1)
    assert ([item.position for item in second.items], second.beyond) == ([0, 1], None)
    await engine.store([ChunkReport(second.claim, "ready", Outcomes([0], ["0"]))])
    [third] = await engine.claim(most=1, for_any=1)
    assert [item.position for item in third.items] == [1]


async def test_a_chunk_of_listed_items_leaves_those_that_do_not_fit_into_memory_too(
    engine: BatchEngine,
) -> None:
    await create_of_large_items(engine)
    await engine.execute("UPDATE chunks SET positions = '{0,1,2}', lost = 1, suspect = true")
    [first] = await engine.claim(most=1, for_any=1)
    assert [item.position for item in first.items] == [0, 1]
    assert first.beyond is not None
    assert (first.beyond.positions, first.beyond.items) == ([2], 1)
    assert (first.beyond.lost, first.beyond.suspect) == (1, True)


async def test_a_cancel_does_not_wait_for_the_lease_of_a_worker_that_is_silent(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id, now = new_id(), datetime.now(UTC)
    items = [Item(payload=number) for number in range(6)]
    creation = CreateBatch(batch_id=batch_id, owner_id="ann", operation="echo", accepted_at=now, items=items)
    await engine.handle(creation)
    silent, alive = await engine.claim(most=2, for_any=2)
    await engine.store([ChunkReport(silent.claim, "running", Outcomes(positions=[0], results=["0"]))])
    # Three seconds after its last sign of life, and twelve before the end of its lease.
    lease = "UPDATE chunks SET leased_until = now() + make_interval(secs => $2) WHERE number = $1"
    await engine.execute(lease, silent.claim.number, 12)
    await engine.execute(lease, alive.claim.number, 15)
    await engine.handle(CancelBatch(batch_id=batch_id, owner_id="ann"))
    # After an outage of the database nobody knows who lives.
    with monkeypatch.context() as outage:
        outage.setattr(engine.coordinator, "sweep_from", math.inf)
        await engine.coordinator.cancel()
    assert len(await engine.fetch("SELECT * FROM chunks")) == 2
    await engine.coordinator.cancel()
    [left] = await engine.fetch("SELECT number FROM chunks")
    assert left["number"] == alive.claim.number
    # Silent as it was it may live: it has lost its chunk, and stores nothing more of it.
    late = ChunkReport(silent.claim, "done", Outcomes(positions=[1, 2], results=["1", "2"]))
    assert await engine.store([late]) == {}
    # Two of its items had begun.
    await engine.store([ChunkReport(alive.claim, "done", cancelled={3: 1, 4: 1, 5: 0})])
    batch = await engine.get(batch_id)
    assert batch is not None
    assert (batch.status, batch.succeeded, batch.cancelled) == ("cancelled", 1, 5)
    rows = await engine.fetch("SELECT position, attempts FROM results WHERE status = 'cancelled' ORDER BY 1")
    assert [tuple(row) for row in rows] == [(1, 0), (2, 0), (3, 1), (4, 1), (5, 0)]


async def test_a_cancel_takes_many_items_at_once_however_small_their_chunks_are(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = await engine.give("ann", items=900)
    assert len(await engine.fetch("SELECT * FROM chunks")) == 300
    await engine.handle(CancelBatch(batch_id=batch_id, owner_id="ann"))
    # One step, as on a machine that is busy.
    monkeypatch.setattr(owner_turns, "TURN_S", 0)
    monkeypatch.setattr(coordinator, "CANCEL_STEP", 600)
    await engine.coordinator.cancel()
    assert len(await engine.fetch("SELECT * FROM chunks")) == 100
    await engine.coordinator.cancel()
    batch = await engine.get(batch_id)
    assert batch is not None
    assert (batch.status, batch.cancelled) == ("cancelled", 900)


async def test_a_chunk_that_ends_while_its_worker_hears_of_a_cancel_makes_its_last_report(
    engine: BatchEngine,
) -> None:
    ended = asyncio.Event()

    class Waiting(RunningChunk):
        def stop_beginning(self) -> None:
            """Do nothing: all items have begun."""

        async def execute(self) -> None:
            await ended.wait()

    class Slow(Settlement):
        async def store(self, reports: Sequence[ChunkReport]) -> dict[ChunkKey, str]:
            statuses = await engine.store(reports)
            ended.set()
            # Until the run waits with its last report for the end of this one.
            for _ in range(10):
                await asyncio.sleep(0)
            return statuses

    quiet: Any = Quiet()
    worker = Worker(
        engine.postgres,
        Slow(engine.postgres, quiet, quiet, lease_s=60),
        {"echo": ECHO},
        runs=lambda claim, operation, items: Waiting(operation, items, attempt=claim.attempt),
        slots=1,
    )
    batch_id = await engine.give("ann", items=3)
    await worker.pull()
    await engine.handle(CancelBatch(batch_id=batch_id, owner_id="ann"))
    reporting = asyncio.create_task(worker.report_forever())
    await worker.checkpoint()

    async def is_cancelled() -> bool:
        batch = await engine.get(batch_id)
        return batch is not None and (batch.status, batch.cancelled) == ("cancelled", 3)

    await until(is_cancelled)
    await supervision.end([reporting])


async def test_a_task_that_waits_for_another_attempt_says_so(engine: BatchEngine) -> None:
    task_id, now = new_id(), datetime.now(UTC)
    creation = CreateBatch(batch_id=task_id, owner_id="ann", operation="echo", accepted_at=now, kind="task")
    await engine.handle(creation.model_copy(update={"items": [Item(payload=1)]}))
    [loaded] = await engine.claim(most=1, for_any=1)
    outcomes = Outcomes(setbacks=[ItemFailure(0, "timeout", "it took too long")])
    rests = [RemainingItems.of([0], 2, delay_s=30)]
    await engine.store([ChunkReport(loaded.claim, "done", outcomes, rests=rests)])
    batch = await engine.get(task_id)
    assert batch is not None
    async with engine.postgres.connection() as connection:
        around = (await batch_repository.surroundings(connection, [batch]))[task_id]
    assert [one.code for one in around.failed_attempts] == ["timeout"]
    [row] = await engine.fetch("SELECT due_at FROM chunks")
    assert (around.next_attempt, around.next_attempt_at) == (2, row["due_at"])
    await engine.handle(CancelBatch(batch_id=task_id, owner_id="ann"))
    await engine.coordinator.cancel()
    [result] = await engine.fetch("SELECT status, attempts FROM results")
    assert tuple(result) == ("cancelled", 1)
