"""Batches are removed after the retention, however many and however large they are."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from batch_processor.coordination import coordinator, repository
from batch_processor.errors import BatchNotFound
from batch_processor.reading.answers import BatchAnswers
from chassis import metrics
from chassis.deadlines import Deadline
from chassis.postgres import Connection
from contracts.batches import ListResults
from support import explained
from support.batch_stack import BatchProcessors, Caller
from support.measured import value_of
from support.waiting import until

_TASKS = """
    INSERT INTO batches (id, owner_id, kind, operation, status, total, received, succeeded, chunk_count,
        finished_at)
    SELECT gen_random_uuid(), 'ann', 'task', 'echo', 'completed', 1, 1, 1, 1, now() - interval '40 days'
    FROM generate_series(1, $1)
"""
_ITEMS = """
    INSERT INTO items (batch_id, position, payload)
    SELECT id, n, '1' FROM batches, generate_series(0, $1 - 1) AS n
    WHERE NOT EXISTS (SELECT FROM items WHERE batch_id = id)
"""
_RESULTS = """
    INSERT INTO results (batch_id, position, status, attempts, result)
    SELECT batch_id, position, 'succeeded', 1, '1' FROM items
    ON CONFLICT DO NOTHING
"""


async def test_batches_that_finished_long_ago_are_removed_and_newer_ones_are_kept(
    house: BatchProcessors, caller: Caller
) -> None:
    service = await house.start(retention_days=7)
    old, new = [await caller.submit("grumpy", list(range(30))) for _ in range(2)]
    await caller.reach(old)
    await caller.reach(new)
    moved = "UPDATE batches SET finished_at = now() - interval '8 days' WHERE id = $1"
    await caller.database.execute(moved, old)
    await service.coordinator.remove()
    for table in ("items", "results", "failures"):
        rows = await caller.database.fetch(f"SELECT DISTINCT batch_id FROM {table}")
        assert [row["batch_id"] for row in rows] == [new]
    assert await caller.database.fetchval("SELECT array_agg(id) FROM batches") == [new]


async def test_one_pass_removes_all_due_batches_however_many(house: BatchProcessors, caller: Caller) -> None:
    service = await house.start(roles=("worker",))
    await _fill(caller, tasks=3_000, items=1)
    await service.coordinator.remove()
    assert await _rows(caller) == {"batches": 0, "items": 0, "results": 0}


async def test_one_pass_removes_a_batch_that_is_larger_than_a_step(
    house: BatchProcessors, caller: Caller
) -> None:
    service = await house.start(roles=("worker",))
    await _fill(caller, tasks=2, items=2 * coordinator.REMOVE_ROWS + 1)
    await service.coordinator.remove()
    assert await _rows(caller) == {"batches": 0, "items": 0, "results": 0}


async def ended_eight_days_ago(caller: Caller) -> UUID:
    """Return a batch of thirty items that is to be removed."""
    old = await caller.submit("grumpy", list(range(30)))
    await caller.reach(old)
    moved = "UPDATE batches SET finished_at = now() - interval '8 days' WHERE id = $1"
    await caller.database.execute(moved, old)
    return old


async def test_nobody_finds_or_retries_a_batch_of_which_a_part_has_been_removed(
    house: BatchProcessors, caller: Caller
) -> None:
    service = await house.start(retention_days=7)
    old = await ended_eight_days_ago(caller)
    # Somebody who retries it holds its row.
    async with caller.database.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM batches WHERE id = $1 FOR UPDATE", old)
        await service.coordinator.remove()
        assert await _rows(caller) == {"batches": 1, "items": 30, "results": 30}
    # A coordinator that is killed between two steps.
    async with caller.database.acquire() as connection:
        begun = await repository.begin_removals(connection, days=7, most=500)
        assert (begun.batches, begun.tasks) == (1, 0)
        assert not await repository.remove_rows(connection, [old], most=10)
    assert await _rows(caller) == {"batches": 0, "items": 20, "results": 20}
    answers = BatchAnswers(service.runtime.postgres, service.limits, upload_expires_s=60)
    with pytest.raises(BatchNotFound):
        await answers.results(ListResults(batch_id=old, owner_id="ann"), Deadline.after(5))
    await service.coordinator.remove()
    assert await _rows(caller) == {"batches": 0, "items": 0, "results": 0}
    assert await caller.database.fetchval("SELECT count(*) FROM removals") == 0


async def test_a_page_of_a_batch_that_is_removed_meanwhile_is_not_taken_for_a_whole_one(
    house: BatchProcessors, caller: Caller
) -> None:
    service = await house.start(retention_days=7)
    old = await ended_eight_days_ago(caller)
    async with caller.database.acquire() as connection:
        async with connection.transaction():
            await connection.execute("LOCK TABLE results IN ACCESS EXCLUSIVE MODE")
            question = ListResults(batch_id=old, owner_id="ann")
            answers = BatchAnswers(service.runtime.postgres, service.limits, upload_expires_s=60)
            page = asyncio.create_task(answers.results(question, Deadline.after(20)))
            # It has found the batch.
            await until(lambda: _waits_for_results(connection))
            await connection.execute("DELETE FROM results WHERE position > 10")
            await connection.execute("DELETE FROM batches")
        with pytest.raises(BatchNotFound):
            await page


async def _waits_for_results(connection: Connection) -> bool:
    waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'results'::regclass AND NOT granted"
    return bool(await connection.fetchval(waiting))


async def test_metrics_show_what_was_removed_and_how_far_removal_is_behind(
    house: BatchProcessors, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await house.start(roles=("worker",), retention_days=30)
    await _fill(caller, tasks=3, items=1)
    await caller.database.execute(
        "UPDATE batches SET kind = 'batch' WHERE id = (SELECT min(id::text)::uuid FROM batches)"
    )
    counters = [metrics.BATCHES_REMOVED.labels(kind) for kind in ("batch", "task")]
    before = [value_of(counter) for counter in counters]
    late: list[float] = []
    monkeypatch.setattr(metrics.BATCH_REMOVAL_LATE, "set", late.append)
    gone_for_an_hour = (
        "INSERT INTO removals (batch_id, since) VALUES (gen_random_uuid(), now() - interval '1 h')"
    )
    await caller.database.execute(gone_for_an_hour)
    await service.coordinator.remove()
    # The rows of one that was gone before, what ended 40 days ago, the rows of that, and nothing.
    day = 86_400
    assert late == pytest.approx([3_600, 10 * day, 0, 0, 0], abs=60)
    assert [value_of(counter) - was for counter, was in zip(counters, before, strict=True)] == [1, 2]


async def test_two_coordinators_remove_side_by_side(house: BatchProcessors, caller: Caller) -> None:
    services = [await house.start(roles=("worker",)) for _ in range(2)]
    await _fill(caller, tasks=2_000, items=1)
    await asyncio.gather(*(service.coordinator.remove() for service in services))
    assert await _rows(caller) == {"batches": 0, "items": 0, "results": 0}


async def test_a_step_of_removal_reads_no_more_with_twenty_times_as_much_that_stays(
    house: BatchProcessors, caller: Caller
) -> None:
    await house.start(roles=("worker",))
    read = []
    for stays in (500, 10_000):
        await _fill(caller, tasks=stays, items=1)
        await caller.database.execute("UPDATE batches SET finished_at = now()")
        await _fill(caller, tasks=500, items=1)
        await caller.database.execute("VACUUM ANALYZE batches, items, results")
        async with caller.database.acquire() as connection:
            ended = "SELECT id FROM batches WHERE finished_at < now() - interval '30 days'"
            tasks = [row["id"] for row in await connection.fetch(ended)]
            read.append(
                await explained.buffers(connection, "find_unused", 500)
                + await explained.buffers(connection, "list_removals", 500)
                + await explained.buffers(connection, "begin_removals", 500, 30)
                + await explained.buffers(connection, "remove_rows_of_tasks", tasks)
            )
    print(
        f"buffers of a step that removes 500 tasks: {read[0]} beside 500 that stay, {read[1]} beside 10,500"
    )
    # The indexes are a level higher.
    assert read[1] < 3 * read[0]


async def _fill(caller: Caller, *, tasks: int, items: int) -> None:
    async with caller.database.acquire() as connection:
        await connection.execute(_TASKS, tasks)
        await connection.execute(_ITEMS, items)
        await connection.execute(_RESULTS)


async def _rows(caller: Caller) -> dict[str, int]:
    tables = ("batches", "items", "results")
    return {table: await caller.database.fetchval(f"SELECT count(*) FROM {table}") for table in tables}


async def test_a_step_removes_a_bounded_number_of_attempts_and_of_failures_too(
    house: BatchProcessors, caller: Caller
) -> None:
    await house.start(roles=("worker",))
    await _fill(caller, tasks=1, items=1)
    tried = "INSERT INTO attempts SELECT id, 0, nth, 'c', 'd' FROM batches, generate_series(1, 25) AS nth"
    await caller.database.execute(tried)
    failed = "INSERT INTO failures SELECT id, n, 1 FROM batches, generate_series(1, 35) AS n"
    await caller.database.execute(failed)
    ids = [row["id"] for row in await caller.database.fetch("SELECT id FROM batches")]
    left = []
    count = "SELECT ARRAY[(SELECT count(*) FROM attempts), (SELECT count(*) FROM failures)]"
    async with caller.database.acquire() as connection:
        while not await repository.remove_rows(connection, ids, most=10):
            left.append(await connection.fetchval(count))
        left.append(await connection.fetchval(count))
    assert left == [[15, 25], [5, 15], [0, 5], [0, 0]]
