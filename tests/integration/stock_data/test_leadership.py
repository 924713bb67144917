from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from chassis.errors import DatabaseUnavailable
from native.postgres import Postgres
from stock_data.replay.leadership import Leadership
from support.databases import FreshDatabase
from support.waiting import until

_PIDS = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()"


class Replica:
    """Counts how often it was made leader, and knows whether it is."""

    def __init__(self, dsn: str) -> None:
        self.leadership = Leadership(dsn, check_s=0.05)
        self.terms = 0
        self.leads = False
        self.error: Exception | None = None

    async def work(self) -> None:
        self.terms += 1
        self.leads = True
        try:
            if self.error is not None:
                raise self.error
            await asyncio.Event().wait()
        finally:
            self.leads = False


@asynccontextmanager
async def running(replica: Replica) -> AsyncIterator[None]:
    task = asyncio.create_task(replica.leadership.lead(replica.work))
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def dsn(fresh_database: FreshDatabase) -> str:
    return str(await fresh_database())


async def test_one_of_two_leads_and_the_other_follows_when_it_ends(dsn: str) -> None:
    first, second = Replica(dsn), Replica(dsn)
    async with running(second):
        async with running(first):
            await until(lambda: first.leads or second.leads)
            leader, other = (first, second) if first.leads else (second, first)
            for _ in range(5):
                await asyncio.sleep(0.05)
                assert leader.leads
                assert not other.leads
        await until(lambda: second.leads)
        assert not first.leads


async def test_a_lost_connection_ends_the_work_and_the_lock_is_taken_again(dsn: str) -> None:
    replica = Replica(dsn)
    admin = await asyncpg.connect(dsn)
    async with running(replica):
        for term in (1, 2, 3):
            await until(lambda term=term: replica.leads and replica.terms == term)
            pid = await admin.fetchval(_PIDS)
            await admin.execute("SELECT pg_terminate_backend($1)", pid)
            await until(lambda term=term: not replica.leads or replica.terms > term)
        await until(lambda: replica.terms == 4)
    await admin.close()


async def test_work_that_loses_the_database_is_started_again(dsn: str) -> None:
    replica = Replica(dsn)
    replica.error = DatabaseUnavailable("away")
    async with running(replica):
        await until(lambda: replica.terms >= 2)
        replica.error = None
        await until(lambda: replica.leads)


async def test_a_mistake_in_the_work_is_not_hidden(dsn: str) -> None:
    replica = Replica(dsn)
    replica.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await replica.leadership.lead(replica.work)


async def test_a_server_that_is_away_is_waited_for(postgres_server: Postgres, dsn: str) -> None:
    port = str(postgres_server.ports.postgres)
    replica = Replica(dsn.replace(f":{port}/", ":1/"))
    async with running(replica):
        await asyncio.sleep(0.2)
        assert replica.terms == 0


async def test_nothing_holds_the_lock_after_the_end(dsn: str) -> None:
    replica = Replica(dsn)
    async with running(replica):
        await until(lambda: replica.leads)
    admin = await asyncpg.connect(dsn)
    await until(lambda: _is_free(admin))
    await admin.close()


async def _is_free(admin: asyncpg.Connection[asyncpg.Record]) -> bool:
    return await admin.fetchval(_PIDS) is None
