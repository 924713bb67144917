"""A small system of two services: one consumes and answers, the other publishes and asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from support.bench import Bench
from support.databases import FreshDatabase


@pytest.fixture
async def bench(broker_url: str, fresh_database: FreshDatabase) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(broker_url, fresh_database, stack)
