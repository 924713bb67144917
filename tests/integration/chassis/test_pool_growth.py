"""A pool of connections grows when none comes back in a moment, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

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
    assert pool.get_size() == 1


async def test_a_statement_gets_a_new_connection_while_the_others_are_kept(pool: Pool[Record]) -> None:
    growth = PoolGrowth(moment_s=0.01)
    kept = [await growth.acquire(pool, timeout_s=5) for _ in range(2)]
    assert pool.get_size() == 2
    for connection in kept:
        await pool.release(connection)
