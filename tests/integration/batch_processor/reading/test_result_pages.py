"""Pages of results: in input order, exact, without a gap while a batch runs, each at the same cost."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from batch_processor.execution.worker import ChunkTiming
from batch_processor.intake import handlers
from chassis import queries
from chassis.broker.envelope import new_id
from contracts.batches import ListResults, Results
from support.batch_stack import BatchProcessors, Caller, Stage
from support.waiting import until

LINES = 200_000


async def page_of(caller: Caller, batch_id: UUID, **changes: Any) -> Results:
    request = ListResults(batch_id=batch_id, owner_id=caller.owner, **changes)
    page: Results = await caller.ask(request, Results)
    return page


async def running_batch(house: BatchProcessors, caller: Caller, stage: Stage, *, count: int) -> UUID:
    """Return a batch of which all items but two have ended: the one at position 3 and the last."""
    service = await house.start()
    service.worker.timing = ChunkTiming(checkpoint_s=0.05)
    stage.held |= {3, count - 1}
    batch_id = await caller.submit("held", list(range(count)))
    ended = "SELECT count(*) FROM results WHERE batch_id = $1"
    await until(lambda: _equals(caller, ended, batch_id, count - 2))
    return batch_id


async def _equals(caller: Caller, statement: str, batch_id: UUID, value: int) -> bool:
    return bool(await caller.database.fetchval(statement, batch_id) == value)


async def test_a_running_batch_shows_its_finished_prefix_and_later_all_of_it(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    batch_id = await running_batch(house, caller, stage, count=30)
    early = await page_of(caller, batch_id)
    assert ([row.position for row in early.data], early.next_cursor, early.complete) == (
        [0, 1, 2],
        None,
        False,
    )
    some = await page_of(caller, batch_id, limit=2)
    assert ([row.position for row in some.data], some.next_cursor, some.complete) == ([0, 1], "1", False)
    stage.go.set()
    await caller.reach(batch_id)
    # Whoever goes on where the first page ended misses nothing.
    late = await page_of(caller, batch_id, cursor=some.next_cursor)
    assert ([row.position for row in late.data], late.complete) == (list(range(2, 30)), True)


async def test_results_of_one_status_are_a_prefix_too(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    batch_id = await running_batch(house, caller, stage, count=30)
    early = await page_of(caller, batch_id, status="succeeded")
    assert ([row.position for row in early.data], early.complete) == ([0, 1, 2], False)
    running = await page_of(caller, batch_id, status="running")
    assert [row.position for row in running.data] == [3, 29]
    stage.go.set()


async def test_items_without_a_result_are_listed_by_their_state(
    house: BatchProcessors, caller: Caller, stage: Stage
) -> None:
    await house.start(worker_concurrency=1)
    batch_id = await caller.submit("gated", list(range(40)))
    await stage.begun.wait()
    running = await page_of(caller, batch_id, status="running")
    pending = await page_of(caller, batch_id, status="pending", limit=20)
    assert [row.position for row in running.data] == list(range(10))
    assert [row.position for row in pending.data] == list(range(10, 30))
    rest = await page_of(caller, batch_id, status="pending", limit=20, cursor=pending.next_cursor)
    assert ([row.position for row in rest.data], rest.next_cursor) == (list(range(30, 40)), None)
    stage.go.set()
    await caller.reach(batch_id)
    assert (await page_of(caller, batch_id, status="pending")).data == []


async def test_results_are_passed_on_as_they_were_stored(house: BatchProcessors, caller: Caller) -> None:
    await house.start()
    payloads = [10**30, -(2**63), 0.1, 1e300, 'ä \u2028 \x00 "quoted"', {"z": 1, "a": [None, True]}, []]
    batch_id = await caller.submit("echo", payloads)
    await caller.reach(batch_id)
    page = await page_of(caller, batch_id)
    assert [row.result for row in page.data] == payloads
    assert [row.attempts for row in page.data] == [1] * len(payloads)


async def test_a_page_of_large_results_ends_before_it_is_too_large_for_a_message(
    house: BatchProcessors, caller: Caller
) -> None:
    await house.start()
    batch_id = await caller.submit("echo", ["x" * 200_000] * 7)
    await caller.reach(batch_id)
    sizes = []
    cursor: str | None = None
    while True:
        page = await page_of(caller, batch_id, cursor=cursor)
        sizes.append(len(page.data))
        cursor = page.next_cursor
        if cursor is None:
            break
    assert (sum(sizes), max(sizes)) == (7, 4)


async def test_a_refused_batch_of_many_items_has_one_empty_page(
    house: BatchProcessors, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There is no other replica that could know the operation.
    monkeypatch.setattr(handlers, "TRIES_LEFT_TO_OTHERS", 0)
    await house.start()
    batch_id = await caller.submit("no.such", list(range(500)))
    await caller.reach(batch_id)
    page = await page_of(caller, batch_id, limit=10)
    assert (page.data, page.next_cursor, page.complete) == ([], None, True)


@pytest.fixture
async def large(house: BatchProcessors, caller: Caller) -> UUID:
    """Return a finished batch of many items, loaded without a word to the planner's statistics."""
    await house.start(roles=("coordinator",))
    async with caller.database.acquire() as connection:
        return await _load(connection, LINES)


async def _load(connection: Any, count: int) -> UUID:
    batch_id = new_id()
    for table in ("items", "results", "batches"):
        await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
    await connection.execute(
        "INSERT INTO batches (id, owner_id, operation, status, total, received, succeeded, failed, "
        "chunk_count, finished_at) "
        "VALUES ($1, 'ann', 'echo', 'completed', $2, $2, $2 - 2, 2, 400, now())",
        batch_id,
        count,
    )
    await connection.execute(
        "INSERT INTO items SELECT $1, n, 'item-' || n, n::text FROM generate_series(0, $2 - 1) AS n",
        batch_id,
        count,
    )
    await connection.execute(
        "INSERT INTO results (batch_id, position, status, attempts, result) "
        "SELECT $1, n, (CASE WHEN n IN (7, $2 - 7) THEN 'failed' ELSE 'succeeded' END)::item_status, 1, "
        "n::text FROM generate_series(0, $2 - 1) AS n",
        batch_id,
        count,
    )
    return batch_id


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
async def test_every_page_of_a_large_batch_reads_as_much_as_the_first(
    caller: Caller, large: UUID, plans: str
) -> None:
    async with caller.database.acquire() as connection:
        await connection.execute(f"SET plan_cache_mode = {plans}")
        read = [await _pages_read(connection, large, cursor) for cursor in (-1, 50_000, LINES - 1_001)]
    # At worst some blocks a row, with a look into an index for each; never what lies around the page.
    assert max(read) < 5 * 1_000
    assert max(read) < 2 * min(read)


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
async def test_the_first_batch_of_a_database_is_read_row_by_row(
    house: BatchProcessors, caller: Caller, plans: str
) -> None:
    await house.start(roles=("coordinator",))
    async with caller.database.acquire() as connection:
        # The statistics are those of tables that were empty.
        await connection.execute("ANALYZE items, results")
        batch_id = await _load(connection, 1_000)
        await connection.execute(f"SET plan_cache_mode = {plans}")
        assert await _pages_read(connection, batch_id, -1) < 5 * 1_000
        statement = queries.of("batch_processor")["list_items"]
        await connection.execute(f"PREPARE items_of (uuid, int, int, int, int) AS {statement}")
        assert await _blocks(connection, f"EXECUTE items_of ('{batch_id}', -1, 999, 700000, 100)") < 8 * 1_000


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
async def test_what_waits_at_both_ends_of_a_large_batch_is_found_without_reading_what_is_between(
    house: BatchProcessors, caller: Caller, plans: str
) -> None:
    await house.start(roles=("coordinator",))
    async with caller.database.acquire() as connection:
        batch_id = await _load(connection, count := 20_000)
        await connection.execute("UPDATE batches SET status = 'paused', finished_at = NULL")
        await connection.execute("DELETE FROM results WHERE position < 10 OR position >= $1", count - 10)
        await connection.execute(
            "INSERT INTO chunks (batch_id, number, state, first_position, last_position, remaining, due_at) "
            "SELECT $1, n, 'held', at, at + 9, 10, now() FROM unnest($2::int[]) WITH ORDINALITY AS c (at, n)",
            batch_id,
            [0, count - 10],
        )
        await connection.execute("ANALYZE items, results")
        await connection.execute(f"SET plan_cache_mode = {plans}")
        statement = queries.of("batch_processor")["list_unfinished"]
        types = "uuid, int, int, int, boolean, int, text"
        await connection.execute(f"PREPARE list_unfinished ({types}) AS {statement}")
        for status in ("pending", "running"):
            execute = f"EXECUTE list_unfinished ('{batch_id}', -1, 100, 700000, true, 500, '{status}')"
            assert await _blocks(connection, execute) < 5 * 500
    first = await page_of(caller, batch_id, status="pending", limit=100)
    second = await page_of(caller, batch_id, status="pending", limit=100, cursor=first.next_cursor)
    ends = [*range(10), *range(count - 10, count)]
    assert [row.position for page in (first, second) for row in page.data] == ends
    assert second.next_cursor is None


async def _pages_read(connection: Any, batch_id: UUID, after: int) -> int:
    statement = queries.of("batch_processor")["list_results"]
    types = "uuid, int, int, text, int, int, boolean"
    name = f"page_{after + 1}"
    await connection.execute(f"PREPARE {name} ({types}) AS {statement}")
    execute = f"EXECUTE {name} ('{batch_id}', {after}, {after + 1000}, NULL, 1000, 700000, true)"
    page = await connection.fetchval(execute)
    assert len(page.splitlines()) == 1000
    return await _blocks(connection, execute)


async def _blocks(connection: Any, execute: str) -> int:
    plan = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {execute}")
    whole = json.loads(plan)[0]["Plan"]
    return int(whole["Shared Hit Blocks"] + whole["Shared Read Blocks"])


async def test_the_few_failures_of_a_large_batch_are_found_in_one_page_each(
    caller: Caller, large: UUID
) -> None:
    first = await page_of(caller, large, status="failed")
    second = await page_of(caller, large, status="failed", cursor=first.next_cursor)
    assert [row.position for page in (first, second) for row in page.data] == [7, LINES - 7]
    assert second.next_cursor is None


async def test_a_large_batch_is_listed_whole_and_once(caller: Caller, large: UUID) -> None:
    positions = [row.position for row in await caller.results(large, limit=5000)]
    assert positions == list(range(LINES))


async def test_a_cursor_behind_the_end_finds_nothing(caller: Caller, large: UUID) -> None:
    page = await page_of(caller, large, cursor=str(LINES + 5))
    assert (page.data, page.next_cursor) == ([], None)
