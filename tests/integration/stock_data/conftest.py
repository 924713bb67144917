"""stock-data on real servers, an Alpaca provider with the double of its API, and a database with alerts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from contracts.stocks import Quote
from stock_data.providers.alpaca import AlpacaProvider
from support import alert_world
from support.alert_world import AlertWorld
from support.alpaca_answers import provider_of
from support.databases import FreshDatabase
from support.doubles import alpaca as double
from support.doubles.alpaca import AlpacaDouble
from support.stock_stack import StockStack, hearing_ticks


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
async def world(fresh_database: FreshDatabase) -> AsyncIterator[AlertWorld]:
    async with alert_world.opened(await fresh_database("stock_data")) as opened:
        yield opened


@pytest.fixture
async def bench(broker_url: str, fresh_database: FreshDatabase) -> AsyncIterator[StockStack]:
    dsn = await fresh_database("stock_data")
    async with AsyncExitStack() as stack:
        yield StockStack(broker_url, dsn, stack)


@pytest.fixture
async def ticks(broker_url: str) -> AsyncIterator[list[Quote]]:
    async with hearing_ticks(broker_url) as heard:
        yield heard
