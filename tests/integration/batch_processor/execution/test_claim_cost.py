"""The rows that a claim reads: with some chunks, with 100,000, and while old rows must stay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest

from batch_processor.coordination import repository
from batch_processor.coordination.repository import ChunkBacklog
from batch_processor.execution import claim_repository
from batch_processor.execution.lanes import Lanes
from chassis import queries
from support import explained
from support.batch_stack import BatchProcessors
from support.waiting_chunks import plant

_SQL = queries.of("batch_processor")
_OWNERS = 64


@pytest.fixture
async def database(house: BatchProcessors, dsn: str) -> AsyncIterator[asyncpg.Connection]:
    # The coordinator makes the tables; nobody claims.
    await house.start(roles=("coordinator",))
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def plant_tasks(database: asyncpg.Connection, count: int) -> None:
    await database.execute(
        """
        INSERT INTO batches
            (id, owner_id, kind, operation, status, accepted_at, total, received, chunk_count)
        SELECT gen_random_uuid(), 'ann', 'task', 'echo', 'queued', now(), 1, 1, 1
        FROM generate_series(1, $1::int)
        """,
        count,
    )
    await database.execute("INSERT INTO items (batch_id, position, payload) SELECT id, 0, '1' FROM batches")
    await database.execute(
        """
        INSERT INTO chunks (
            batch_id, number, state, first_position, last_position, remaining, due_at, owner_id, priority
        )
        SELECT id, 0, 'ready', 0, 0, 1, now(), owner_id, 5 FROM batches
        """
    )


async def buffers_of_claim(database: asyncpg.Connection, lanes: Lanes) -> int:
    """Return the buffers that a look for lanes and a claim of 16 chunks read; the claim is taken back."""
    found = await lanes.look(database, most=_OWNERS)
    columns = [list(column) for column in zip(*found, strict=True)]
    looks = (
        ("follow_lanes", (*columns, lanes.seen[0])),
        ("lanes_of_stamps", (lanes.seen[1],)),
        (
            "claim_chunks",
            (
                *columns,
                16,
                12,
                15.0,
                lanes.in_flight_from,
                ["echo"],
                claim_repository.MOST_RIDERS,
                [],
                16_384,
            ),
        ),
    )
    return sum([await explained.buffers(database, name, *arguments) for name, arguments in looks])


async def claim_many(database: asyncpg.Connection, lanes: Lanes, times: int) -> None:
    for _ in range(times):
        found = await lanes.look(database, most=_OWNERS)
        taken = await claim_repository.claim(database, found, most=500, for_any=500, lease_s=15)
        await claim_repository.finish(database, taken)


async def test_a_claim_reads_no_more_with_ten_thousand_batches_than_with_a_hundred(
    database: asyncpg.Connection,
) -> None:
    await plant(database, 0, 200)
    lanes = Lanes()
    few = await buffers_of_claim(database, lanes)
    await plant(database, 200, 10_000)
    stale = await buffers_of_claim(database, lanes)
    await database.execute("ANALYZE batches, chunks")
    many = await buffers_of_claim(database, lanes)
    print(f"buffers of a claim: {few} of 2,000 chunks, {stale} of 100,000, {many} with fresh statistics")
    # An index of 100,000 rows is a level or two higher.
    assert max(stale, many) < 3 * few


async def test_a_claim_of_tasks_stays_cheap_when_statistics_say_that_none_is_ready(
    database: asyncpg.Connection,
) -> None:
    """Statistics of a queue are of a minute in which it was empty, or everything at work."""
    for table in ("batches", "chunks", "items"):
        await database.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
    await plant_tasks(database, 300)
    unknown = await buffers_of_claim(database, Lanes())
    await database.execute("ANALYZE batches, chunks, items")
    fresh = await buffers_of_claim(database, Lanes())
    await database.execute("UPDATE batches SET status = 'running'")
    await database.execute("UPDATE chunks SET state = 'running'")
    await database.execute("ANALYZE batches, chunks, items")
    await database.execute("TRUNCATE batches, chunks, items")
    await plant_tasks(database, 300)
    stale = await buffers_of_claim(database, Lanes())
    print(f"buffers of a claim of tasks: {fresh} with statistics, {unknown} without, {stale} with old ones")
    assert max(unknown, stale) < 1.5 * fresh


async def test_a_look_for_work_reads_no_more_with_ten_thousand_batches_whatever_the_planner_knows(
    database: asyncpg.Connection,
) -> None:
    await database.execute("ALTER TABLE batches SET (autovacuum_enabled = false)")
    await plant(database, 0, 10_000)
    arguments = (86_400, 0, datetime.now(UTC) - repository.DUE_MARGIN, 0.5)
    stale = await explained.buffers(database, "look_for_work", *arguments)
    await database.execute("ANALYZE batches")
    fresh = await explained.buffers(database, "look_for_work", *arguments)
    print(f"buffers of a look for work: {stale} before, {fresh} with statistics")
    assert max(stale, fresh) < 30


async def test_nothing_reads_more_while_a_held_snapshot_keeps_ten_thousand_chunks_that_are_done(
    database: asyncpg.Connection, dsn: str
) -> None:
    await plant(database, 0, 2_000)
    lanes, coordinator = Lanes(), ChunkBacklog()
    before = await buffers_of_claim(database, lanes)
    holder = await asyncpg.connect(dsn)
    async with holder.transaction(isolation="repeatable_read"):
        await holder.fetchval("SELECT count(*) FROM chunks")
        await claim_many(database, lanes, 20)
        # Each second it reads where the chunks at work begin.
        lanes.in_flight_from = await database.fetchval(_SQL["first_in_flight"], 0)
        during = await buffers_of_claim(database, lanes)
        marks = await repository.measure(database, coordinator)
        measured = await explained.buffers(
            database, "measure_chunks", marks.ready_from, marks.in_flight_from, 100
        )
        swept = await explained.buffers(database, "sweep_chunks", marks.in_flight_from)
        due_from = datetime.now(UTC) - repository.DUE_MARGIN
        looked = await explained.buffers(database, "look_for_work", 86_400, marks.ready_from, due_from, 0.5)
    await holder.close()
    print(f"buffers of a claim: {before} at first, {during} after 10,000 chunks under a held snapshot")
    print(f"buffers of the measurement: {measured}, of the sweep: {swept}, of a look for work: {looked}")
    assert during < 2 * before
    assert measured + swept + looked < 500
