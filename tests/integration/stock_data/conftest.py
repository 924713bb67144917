"""An Alpaca provider and the double of the API that it asks; a database with alerts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from stock_data.providers.alpaca import AlpacaProvider
from support import alert_world
from support.alert_world import World
from support.alpaca_answers import provider_of
from support.databases import FreshDatabase
from support.doubles import alpaca as double
from support.doubles.alpaca import AlpacaDouble


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[AlpacaDouble]:
    async with double.running() as running:
        yield running


@pytest.fixture
def upstream(server: AlpacaDouble) -> AlpacaDouble:
    server.forget()
    server.bars["AAPL"] = [double.bar(f"2024-01-{day:02}", v=day) for day in range(2, 12)]
    server.snapshots["AAPL"] = double.snapshot(11, previous_close=10)
    server.snapshots["IBM"] = double.snapshot(162.35, previous_close=160.1)
    return server


@pytest.fixture
async def provider(upstream: AlpacaDouble) -> AsyncIterator[AlpacaProvider]:
    made = provider_of(upstream.url)
    yield made
    await made.close()


@pytest.fixture
async def world(fresh_database: FreshDatabase) -> AsyncIterator[World]:
    async with alert_world.opened(str(await fresh_database())) as opened:
        yield opened
