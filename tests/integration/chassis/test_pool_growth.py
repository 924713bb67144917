"""A pool of connections grows when none comes back in a moment, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from asyncpg import Pool, Record

from chassis.pool_growth import PoolGrowth
from support.databases import FreshDatabase


@pytest.fixture
async def pool(fresh_database: FreshDatabase) -> AsyncIterator[Pool[Record]]:
    async with asyncpg.create_pool(await fresh_database(), min_size=1, max_size=2) as opened:
        yield opened


async def test_a_statement_waits_for_the_connection_that_another_one_returns(pool: Pool[Record]) -> None:
    growth = PoolGrowth(moment_s=60)
    first = await growth.acquire(pool, timeout_s=5)
    waiting = [asyncio.create_task(growth.acquire(pool, timeout_s=5)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    for task in waiting[1:]:
        await pool.release(first)
        growth.returned()
        first = await task
    await pool.release(first)
    growth.returned()
    assert pool.get_size() == 1


async def test_a_statement_gets_a_new_connection_while_the_others_are_kept(pool: Pool[Record]) -> None:
    growth = PoolGrowth(moment_s=0.01)
    kept = [await growth.acquire(pool, timeout_s=5) for _ in range(2)]
    assert pool.get_size() == 2
    for connection in kept:
        await pool.release(connection)


async def test_a_pool_with_little_work_shrinks_to_the_connection_that_was_used_last(
    pool: Pool[Record],
) -> None:
    growth = PoolGrowth(moment_s=0, shrinks_after_s=0)
    first, second = [await growth.acquire(pool, timeout_s=5) for _ in range(2)]
    pids = [connection.get_server_pid() for connection in (first, second)]
    for connection in (first, second):
        await pool.release(connection)
        growth.returned()
    await growth.shrink(pool)
    assert pool.get_size() == 2, "both were lent for all of the time"
    # So that this measurement has a length.
    await asyncio.sleep(0.05)
    await growth.shrink(pool)
    assert (pool.get_size(), pool.get_idle_size()) == (1, 1)
    async with pool.acquire() as kept:
        assert kept.get_server_pid() == pids[1]


async def test_a_pool_keeps_connections_that_are_busy_for_a_part_of_the_time(pool: Pool[Record]) -> None:
    growth = PoolGrowth(moment_s=0, shrinks_after_s=0)
    for connection in [await growth.acquire(pool, timeout_s=5) for _ in range(2)]:
        await pool.release(connection)
        growth.returned()
    await growth.shrink(pool)
    connection = await growth.acquire(pool, timeout_s=5)
    await asyncio.sleep(0.05)
    await pool.release(connection)
    growth.returned()
    await asyncio.sleep(0.05)
    await growth.shrink(pool)
    assert pool.get_size() == 2


async def test_the_next_statement_waits_as_long_as_opening_took(
    fresh_database: FreshDatabase,
) -> None:
    growth = PoolGrowth(moment_s=0)

    async def connect_slowly(*args: Any, **options: Any) -> asyncpg.Connection[Record]:
        await asyncio.sleep(0.1)
        made: asyncpg.Connection[Record] = await asyncpg.connect(*args, **options)
        return made

    dsn = await fresh_database()
    async with asyncpg.create_pool(dsn, min_size=1, max_size=3, connect=connect_slowly) as slow:
        lent = [await growth.acquire(slow, timeout_s=5) for _ in range(2)]
        waiting = asyncio.create_task(growth.acquire(slow, timeout_s=5))
        await asyncio.sleep(0.05)
        await slow.release(lent.pop())
        growth.returned()
        lent.append(await waiting)
        assert slow.get_size() == 2
        for connection in lent:
            await slow.release(connection)
