"""batch-processor on real servers, with operations for tests, and a caller that plays the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from chassis.broker.messaging import Messaging
from chassis.health import Health
from chassis.supervision import Tasks
from contracts.topology import GATEWAY, TOPOLOGIES
from native.postgres import PostgresServer
from support.batch_engine import BatchEngine
from support.batch_process import Spawn, spawning
from support.batch_stack import BatchProcessors, Caller, Stage
from support.databases import FreshDatabase
from support.schedule_world import ScheduleWorld, on_server
from support.waiting import until


@pytest.fixture
async def dsn(fresh_database: FreshDatabase) -> str:
    return await fresh_database("batch_processor")


@pytest.fixture
async def caller(broker_url: str, dsn: str) -> AsyncIterator[Caller]:
    messaging, tasks, health = Messaging(broker_url, TOPOLOGIES[GATEWAY]), Tasks(), Health()
    messaging.start(tasks, health)
    try:
        async with asyncpg.create_pool(dsn, min_size=1, max_size=2) as database:
            await until(lambda: not health.reasons(), what=lambda: str(health.reasons()))
            yield Caller(messaging, database, broker_url)
    finally:
        await tasks.close()
        await messaging.close()


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
async def house(broker_url: str, dsn: str, stage: Stage) -> AsyncIterator[BatchProcessors]:
    async with AsyncExitStack() as stack:
        yield BatchProcessors(broker_url, dsn, stage, stack)


@pytest.fixture
async def engine(dsn: str) -> AsyncIterator[BatchEngine]:
    engine = BatchEngine(dsn)
    await engine.open()
    yield engine
    await engine.close()


@pytest.fixture
async def spawn(broker_url: str, dsn: str) -> AsyncIterator[Spawn]:
    async with spawning(broker_url, dsn) as start:
        yield start


@pytest.fixture(scope="module")
async def shared_world(postgres_server: PostgresServer) -> AsyncIterator[ScheduleWorld]:
    async with on_server(postgres_server.url) as made:
        yield made


@pytest.fixture
async def world(shared_world: ScheduleWorld) -> ScheduleWorld:
    """Return a world without schedules."""
    await shared_world.clear()
    return shared_world
