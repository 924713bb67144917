"""The servers that a benchmark needs, configured as in production: each commit is written to the disk."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from chassis.broker.messaging import Messaging
from chassis.broker.topology import declare
from chassis.health import Health
from chassis.supervision import Tasks
from contracts.topology import GATEWAY, TOPOLOGIES
from native import postgres, rabbitmq
from support.waiting import until


@asynccontextmanager
async def broker() -> AsyncIterator[str]:
    """Run RabbitMQ for the length of the block; yield its address."""
    with tempfile.TemporaryDirectory(prefix="tickwire-bench-") as folder:
        async with rabbitmq.start(Path(folder)) as server:
            yield server.url


@asynccontextmanager
async def database(name: str) -> AsyncIterator[str]:
    """Run PostgreSQL for the length of the block; yield the address of a service's database."""
    with tempfile.TemporaryDirectory(prefix="tickwire-bench-") as folder:
        async with postgres.start(Path(folder), fast=False) as server:
            try:
                yield server.dsn(name)
            finally:
                server.cluster.remove()


@asynccontextmanager
async def publishing(broker_url: str, *, to: str) -> AsyncIterator[Messaging]:
    """Publish as the gateway does to a service, whose queues are there when the block begins."""
    messaging, tasks, health = Messaging(broker_url, TOPOLOGIES[GATEWAY]), Tasks(), Health()

    async def declare_queues(_: object) -> None:
        await declare(await messaging.link.channel(confirms=False), TOPOLOGIES[to])

    messaging.listen(declare_queues)
    messaging.start(tasks, health)
    try:
        await until(lambda: not health.reasons(), what=lambda: str(health.reasons()))
        yield messaging
    finally:
        await tasks.close()
        await messaging.close()
