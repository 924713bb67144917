"""What a claim reads of the tables: with some chunks, with 100,000, and while old rows must stay."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import asyncpg
import pytest

from batch_processor.execution import claims
from chassis import queries
from support.batch_stack import House

_SQL = queries.load("batch_processor")
_OWNERS = 64

_PLANT = (
    """
    INSERT INTO batches (id, owner_id, operation, status, accepted_at, total, received, chunk_count)
    SELECT md5(n::text)::uuid, 'owner' || n % 100, 'echo', 'queued', now(), 10, 10, 10
    FROM generate_series($1::int, $2::int - 1) AS n
    """,
    """
    INSERT INTO chunks (
        batch_id, number, state, first_position, last_position, remaining, due_at, owner_id, priority
    )
    SELECT md5(n::text)::uuid, number, 'ready', number, number, 1, now(), 'owner' || n % 100, 5
    FROM generate_series($1::int, $2::int - 1) AS n CROSS JOIN generate_series(0, 9) AS number
    """,
)


@pytest.fixture
async def database(house: House, dsn: str) -> AsyncIterator[asyncpg.Connection]:
    # The coordinator makes the tables; nobody claims.
    await house.start(roles=("coordinator",))
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def plant(database: asyncpg.Connection, first: int, end: int) -> None:
    for statement in _PLANT:
        await database.execute(statement, first, end)


async def buffers(database: asyncpg.Connection) -> int:
    """Return the buffers that a look for owners and a claim of 16 chunks read; the claim is taken back."""
    owners = await claims.next_owners(database, "", most=_OWNERS)
    looks = (("next_owners", ("", _OWNERS)), ("claim_chunks", (owners, 16, 12, 15.0)))
    read = 0
    transaction = database.transaction()
    await transaction.start()
    for name, arguments in looks:
        explained = await database.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {_SQL[name]}", *arguments
        )
        plan = json.loads(explained)[0]["Plan"]
        read += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    await transaction.rollback()
    return read


async def claim_many(database: asyncpg.Connection, times: int) -> None:
    for _ in range(times):
        owners = await claims.next_owners(database, "", most=_OWNERS)
        taken = await claims.claim(database, owners, most=500, for_any=500, lease_s=15)
        await claims.finish(database, taken)


async def test_a_claim_reads_no_more_with_ten_thousand_batches_than_with_a_hundred(
    database: asyncpg.Connection,
) -> None:
    await plant(database, 0, 200)
    few = await buffers(database)
    await plant(database, 200, 10_000)
    stale = await buffers(database)
    await database.execute("ANALYZE batches, chunks")
    many = await buffers(database)
    print(f"buffers of a claim: {few} of 2,000 chunks, {stale} of 100,000, {many} with fresh statistics")
    # An index of 100,000 rows is a level or two higher.
    assert max(stale, many) < 3 * few


async def test_a_claim_reads_three_buffers_at_most_for_each_chunk_that_a_held_snapshot_keeps(
    database: asyncpg.Connection, dsn: str
) -> None:
    await plant(database, 0, 2_000)
    before = await buffers(database)
    holder = await asyncpg.connect(dsn)
    async with holder.transaction(isolation="repeatable_read"):
        await holder.fetchval("SELECT count(*) FROM chunks")
        await claim_many(database, 20)
        during = await buffers(database)
    await holder.close()
    print(f"buffers of a claim: {before} at first, {during} after 10,000 chunks under a held snapshot")
    assert during < before + 3 * 10_000
