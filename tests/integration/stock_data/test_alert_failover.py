"""Alerts of two running replicas: whichever feeds, each alert fires once and is announced once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import aiormq
import asyncpg

from chassis.broker import envelope
from chassis.deadlines import Deadline
from contracts.alerts import Alert, AlertFired, Alerts, CreateAlert, ListAlerts
from support.bundled import messages_in
from support.stock_stack import DAYS_OF_A_SECOND, StockClient, StockStack
from support.waiting import until

# Within the first days of the replay, AAPL trades between these.
_PRICES = range(555, 571)


@asynccontextmanager
async def hearing_firings(broker_url: str) -> AsyncIterator[list[AlertFired]]:
    """Yield every firing that is announced, as a gateway hears it."""
    heard: list[AlertFired] = []

    async def take(message: aiormq.abc.DeliveredMessage) -> None:
        heard.extend(AlertFired.model_validate_json(part.body) for part in messages_in(message))

    connection = await aiormq.connect(broker_url)
    channel = await connection.channel()
    queue = (await channel.queue_declare("", exclusive=True)).queue or ""
    await channel.queue_bind(queue, "events", routing_key="alert.*")
    await channel.basic_consume(queue, take, no_ack=True)
    yield heard
    await connection.close()


async def create(client: StockClient, price: int) -> UUID:
    request = CreateAlert.model_validate(
        {
            "alert_id": envelope.new_id(),
            "owner_id": "7",
            "made_by": "key",
            "symbol": "aapl",
            "condition": {"crosses": price},
        }
    )
    return (await client.messaging.rpc.call(request, Alert, Deadline.after(5))).id


async def test_each_alert_fires_once_while_the_feed_goes_from_one_replica_to_another(
    bench: StockStack, broker_url: str
) -> None:
    async with hearing_firings(broker_url) as heard, AsyncExitStack() as replicas:
        running = [
            await replicas.enter_async_context(bench.running(replay_enabled=True, **DAYS_OF_A_SECOND))
            for _ in range(2)
        ]
        client = await bench.client()
        await until(lambda: any(each.feed.is_running for each in running))
        made = [await create(client, price) for price in _PRICES]
        await until(lambda: len(heard) >= 3)
        database = await asyncpg.connect(bench.dsn)
        # The leader loses the lock and its connection: another term begins, here or there.
        for _ in range(3):
            await database.execute("UPDATE replay SET term = term + 1")
            await asyncio.sleep(1.5)
        await until(lambda: len(heard) == len(made), timeout_s=40)
        await database.close()
        assert Counter(event.firing.alert_id for event in heard) == Counter(made)
        assert sorted(event.firing.offset for event in heard) == list(range(1, len(made) + 1))
        listed = await client.messaging.rpc.call(
            ListAlerts(owner_id="7", status=["fired"]), Alerts, Deadline.after(5)
        )
        assert {alert.fired_count for alert in listed.data} == {1}
        assert len(listed.data) == len(made)
