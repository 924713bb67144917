"""Tasks that come together are stored together, each row once; an unusual one is handled by itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from batch_processor.execution.running_chunk import Outcomes
from batch_processor.execution.settlement import ChunkReport
from chassis.broker.envelope import Delivery, new_id
from contracts import headers
from contracts.batches import AppendItems, CancelBatch, CreateBatch, Item, SealBatch
from support.batch_engine import BatchEngine

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
WRITTEN = """
    SELECT relname, n_tup_ins, n_tup_upd FROM pg_stat_xact_user_tables
    WHERE relname IN ('batches', 'items', 'chunks') ORDER BY relname
"""


def delivery(operation: str = "echo", *, attempt: int = 1) -> Delivery[CreateBatch]:
    message = CreateBatch(
        batch_id=new_id(), owner_id="ann", kind="task", operation=operation, accepted_at=NOW,
        priority=7, scopes=["batches:write"], items=[Item(payload={"n": 1})],
    )  # fmt: skip
    about = {headers.TRACEPARENT: TRACE, headers.REQUEST_ID: "request"}
    return Delivery(message, message_id=message.batch_id, attempt=attempt, tenant="ann", headers=about)


async def test_a_new_task_is_one_row_in_three_tables_and_no_update(engine: BatchEngine) -> None:
    deliveries = [delivery() for _ in range(50)]
    async with engine.postgres.transaction() as connection:
        await engine.intake.create(connection, deliveries)
        written = [tuple(row) for row in await connection.fetch(WRITTEN)]
    assert written == [("batches", 50, 0), ("chunks", 50, 0), ("items", 50, 0)]
    [row] = await engine.fetch(
        "SELECT status, total, received, priority, traceparent, request_id, scopes, appended_at IS NOT NULL "
        "FROM batches WHERE id = $1", deliveries[0].message.batch_id
    )  # fmt: skip
    assert tuple(row) == ("queued", 1, 1, 7, TRACE, "request", ["batches:write"], True)
    assert len(engine.intake.take_changed()) == 50
    assert len(await engine.claim(most=64, for_any=64)) == 50


async def test_only_tasks_that_are_new_and_due_leave_the_coordinator_nothing_to_do(
    engine: BatchEngine,
) -> None:
    async def concern(*deliveries: Delivery[CreateBatch]) -> str:
        async with engine.postgres.transaction() as connection:
            await engine.intake.create(connection, deliveries)
        return engine.intake.concern

    known, delayed = delivery(), delivery()
    later = delayed.message.model_copy(update={"not_before": datetime.now(UTC) + timedelta(hours=1)})
    assert await concern(known, delivery()) == "worker"
    assert await concern(known, delivery()) == "all"
    assert await concern(delivery(), replace(delayed, message=later)) == "all"
    assert await concern(delivery("no.such", attempt=5)) == "all"


async def test_a_task_that_ended_long_ago_makes_way_for_one_that_was_accepted_again(
    engine: BatchEngine,
) -> None:
    """The gateway may remember tasks for a shorter time, and has forgotten it with its `unique_key`."""
    first = delivery()
    again = replace(first, message=first.message.model_copy(update={"accepted_at": NOW + timedelta(days=40)}))

    async def create(*deliveries: Delivery[CreateBatch]) -> list[tuple[object, ...]]:
        async with engine.postgres.transaction() as connection:
            await engine.intake.create(connection, deliveries)
        return [
            tuple(row) for row in await engine.fetch("SELECT status, accepted_at, succeeded FROM batches")
        ]

    await create(first)
    [loaded] = await engine.claim(most=1, for_any=1)
    assert await create(again) == [("queued", NOW, 0)]
    await engine.store([ChunkReport(loaded.claim, "done", Outcomes([0], ["0"]))])
    # After so short a time it is not forgotten by the gateway, but lost.
    ended = ("completed", NOW, 1)
    assert await create(again) == [ended]
    await engine.execute("UPDATE batches SET finished_at = now() - interval '25 h'")
    assert await create(first) == [ended]
    assert await create(again, delivery("no.such", attempt=5)) != [ended]
    [row] = await engine.fetch(
        "SELECT status, accepted_at, succeeded FROM batches WHERE id = $1", first.message.batch_id
    )
    assert tuple(row) == ("queued", NOW + timedelta(days=40), 0)
    [loaded] = await engine.claim(most=1, for_any=1)
    await engine.store([ChunkReport(loaded.claim, "done", Outcomes([0], ["1"]))])
    assert [tuple(row) for row in await engine.fetch("SELECT result FROM results")] == [("1",)]


async def test_items_concern_nobody_until_their_batch_is_complete(engine: BatchEngine) -> None:
    id_, items, concerns = new_id(), [Item(payload=1)], []
    seal = SealBatch(batch_id=id_, owner_id="ann", operation="echo", accepted_at=NOW, total=2)
    for offset in (0, 1):
        await engine.handle(AppendItems(batch_id=id_, owner_id="ann", offset=offset, items=items))
        concerns.append(engine.intake.concern)
        await engine.handle(seal)
    assert concerns == ["nobody", "all"]
    assert len(await engine.claim(most=4, for_any=4)) == 1


async def test_tasks_that_are_cancelled_refused_or_known_are_separated_from_new_ones(
    engine: BatchEngine,
) -> None:
    known, cancelled, new = delivery(attempt=5), delivery(attempt=5), delivery(attempt=5)
    # No replica had it at the tries before.
    refused = delivery("no.such", attempt=5)
    async with engine.postgres.transaction() as connection:
        await engine.intake.create(connection, [known])
    await engine.handle(CancelBatch(batch_id=cancelled.message.batch_id, owner_id="ann"))
    again = replace(new, message_id=new_id())
    async with engine.postgres.transaction() as connection:
        await engine.intake.create(connection, [known, cancelled, refused, new, again])
    statuses = []
    for one in (known, cancelled, refused, new):
        batch = await engine.get(one.message.batch_id)
        assert batch is not None
        assert batch.total == 1
        statuses.append(batch.status)
    assert statuses == ["queued", "cancelled", "failed", "queued"]
    assert await engine.fetch("SELECT count(*)::int FROM items") == [(4,)]
    assert await engine.fetch("SELECT count(*)::int FROM chunks") == [(2,)]
