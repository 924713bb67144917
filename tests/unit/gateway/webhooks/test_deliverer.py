"""The looks for deliveries that are due."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from chassis.egress.client import GuardedClient
from chassis.egress.destinations import InternalTargets
from chassis.loop_turns import LoopTurns
from chassis.postgres import Postgres
from gateway.webhooks.deliverer import Deliverer
from gateway.webhooks.secret_safe import SecretSafe


class SlowDatabase:
    """A database in which nothing is due, and which takes long to find that out; then there is news."""

    def __init__(self) -> None:
        self.looks = 0
        self.deliverer: Deliverer | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[SlowDatabase]:
        yield self

    async def fetch(self, *_: Any) -> list[Any]:
        self.looks += 1
        await asyncio.sleep(0.1)
        assert self.deliverer is not None
        self.deliverer.wake()
        return []


async def test_looks_that_take_long_leave_the_database_four_times_as_long_to_others() -> None:
    database = SlowDatabase()
    client, safe = GuardedClient(InternalTargets()), SecretSafe("a pepper")
    deliverer = Deliverer(cast("Postgres", database), safe, client, turns=LoopTurns())
    database.deliverer = deliverer
    await deliverer.begin()
    running = asyncio.create_task(deliverer.run())
    await asyncio.sleep(1.2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert 1 <= database.looks <= 3
