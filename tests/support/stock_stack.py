"""stock-data on the test's servers: services to run, a client that asks as the gateway does, and ticks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date, datetime
from typing import Any

import aiormq
import pytest

from chassis.broker.messaging import Messaging
from chassis.deadlines import Deadline
from chassis.errors import RemoteFailure
from chassis.health import Health
from chassis.supervision import Tasks
from contracts.message import Reply, Request
from contracts.stocks import (
    Bars,
    BarsTicked,
    GetBars,
    GetQuotes,
    Instruments,
    LiveBar,
    Quote,
    Quotes,
    QuotesTicked,
    SearchSymbols,
)
from contracts.topology import GATEWAY, TOPOLOGIES
from stock_data.resources import Resources
from stock_data.settings import StockDataSettings
from support.waiting import until

DAYS_OF_A_SECOND = {"replay_speed": 23_400.0, "replay_ticks_per_s": 40.0}


class StockClient:
    """Asks as the gateway does."""

    def __init__(self, url: str) -> None:
        self.messaging = Messaging(url, TOPOLOGIES[GATEWAY])
        self._tasks, self._health = Tasks(), Health()

    async def open(self) -> None:
        self.messaging.start(self._tasks, self._health)
        await until(lambda: not self._health.reasons())

    async def close(self) -> None:
        await self._tasks.close()
        await self.messaging.close()

    async def quotes(self, *symbols: str) -> Quotes:
        return await self.messaging.rpc.call(GetQuotes(symbols=list(symbols)), Quotes, Deadline.after(5))

    async def bars(self, symbol: str, **question: Any) -> Bars:
        asked = GetBars.model_validate({"symbol": symbol, **question})
        return await self.messaging.rpc.call(asked, Bars, Deadline.after(5))

    async def search(self, q: str) -> Instruments:
        return await self.messaging.rpc.call(SearchSymbols(q=q), Instruments, Deadline.after(5))

    async def failure(self, request: Request) -> RemoteFailure:
        with pytest.raises(RemoteFailure) as caught:
            await self.messaging.rpc.call(request, Reply, Deadline.after(5))
        return caught.value


class StockStack:
    """Runs services on the test's servers; all of one test share a database."""

    def __init__(self, broker_url: str, dsn: str, stack: AsyncExitStack) -> None:
        self.broker_url = broker_url
        self.dsn = dsn
        self._stack = stack

    async def run(self, **changes: Any) -> Resources:
        """Run a service until the test ends."""
        return await self._stack.enter_async_context(self.running(**changes))

    @asynccontextmanager
    async def running(self, **changes: Any) -> AsyncIterator[Resources]:
        """Run a service for the length of the block."""
        resources = Resources(self.settings(**changes))
        async with running(resources):
            yield resources

    async def client(self) -> StockClient:
        client = StockClient(self.broker_url)
        self._stack.push_async_callback(client.close)
        await client.open()
        return client

    def settings(self, **changes: Any) -> StockDataSettings:
        values = {
            "rabbitmq_url": self.broker_url,
            "postgres_dsn": self.dsn,
            "replay_enabled": False,
            **changes,
        }
        return StockDataSettings.model_validate(values)


@asynccontextmanager
async def running(resources: Resources) -> AsyncIterator[None]:
    health = resources.runtime.health
    async with resources.open():
        await until(lambda: not health.reasons(), what=lambda: str(health.reasons()))
        yield


@asynccontextmanager
async def hearing_ticks(broker_url: str) -> AsyncIterator[list[Quote]]:
    """Yield every quote that is published on the live exchange, as a gateway hears it."""
    heard: list[Quote] = []

    def take(body: bytes) -> None:
        heard.extend(QuotesTicked.model_validate_json(body).quotes)

    async with hearing(broker_url, QuotesTicked.routing_key, take):
        yield heard


@asynccontextmanager
async def hearing_bars(broker_url: str) -> AsyncIterator[list[LiveBar]]:
    """Yield every bar that is published on the live exchange, as a gateway hears it."""
    heard: list[LiveBar] = []

    def take(body: bytes) -> None:
        heard.extend(BarsTicked.model_validate_json(body).bars)

    async with hearing(broker_url, BarsTicked.routing_key, take):
        yield heard


@asynccontextmanager
async def hearing(
    broker_url: str, routing_key: str, take: Callable[[bytes], None], *, exchange: str = "live"
) -> AsyncIterator[None]:
    """Pass the body of every message with this routing key to `take`, for the length of the block."""

    async def pass_on(message: aiormq.abc.DeliveredMessage) -> None:
        take(message.body)

    connection = await aiormq.connect(broker_url)
    channel = await connection.channel()
    queue = (await channel.queue_declare("", exclusive=True)).queue or ""
    await channel.exchange_declare(exchange, exchange_type="topic", durable=True)
    await channel.queue_bind(queue, exchange, routing_key=routing_key)
    await channel.basic_consume(queue, pass_on, no_ack=True)
    yield
    await connection.close()


def epochs(ticks: list[Quote]) -> list[str]:
    return list(dict.fromkeys(quote.stream.epoch for quote in ticks if quote.stream))


def replayed_moment(quote: Quote) -> datetime:
    assert quote.replayed is not None
    return quote.replayed


def replayed_days(ticks: list[Quote]) -> set[date]:
    return {replayed_moment(quote).date() for quote in ticks}
