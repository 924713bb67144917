"""The looks for deliveries that are due."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from chassis.egress.client import GuardedClient
from chassis.egress.destinations import InternalTargets
from chassis.loop_turns import LoopTurns
from chassis.postgres import Postgres
from gateway.webhooks.deliverer import Deliverer
from gateway.webhooks.secret_safe import SecretSafe
from support.background import in_background
from support.waiting import until


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


async def test_after_a_long_look_the_database_is_left_alone_for_four_times_as_long() -> None:
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


class BrokenOnce(SlowDatabase):
    """A database whose first answer cannot be understood; there is no news."""

    async def fetch(self, *_: Any) -> list[Any]:
        self.looks += 1
        if self.looks == 1:
            raise ValueError("not understood")
        return []


async def test_a_look_that_fails_unexpectedly_is_followed_by_one_without_news() -> None:
    database = BrokenOnce()
    client, safe = GuardedClient(InternalTargets()), SecretSafe("a pepper")
    deliverer = Deliverer(cast("Postgres", database), safe, client, turns=LoopTurns())
    await deliverer.begin()
    with pytest.raises(ValueError, match="not understood"):
        await deliverer.run()
    async with in_background(deliverer.run()):
        await until(lambda: database.looks == 2)


async def test_a_deliverer_that_is_closed_looks_no_more_and_runs_until_it_is_cancelled() -> None:
    database = BrokenOnce()
    database.looks = 1
    client, safe = GuardedClient(InternalTargets()), SecretSafe("a pepper")
    deliverer = Deliverer(cast("Postgres", database), safe, client, turns=LoopTurns())
    await deliverer.begin()
    running = asyncio.create_task(deliverer.run())
    await until(lambda: database.looks == 2)
    await deliverer.close()
    deliverer.wake()
    ended, _ = await asyncio.wait({running}, timeout=0.3)
    running.cancel()
    assert (ended, database.looks) == (set(), 2)
