"""A broker that blocks publishers for a memory alarm is reported at once and delays nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import REGISTRY

from chassis import outbox
from chassis.broker.envelope import Delivery
from chassis.broker.handlers import Direct
from chassis.deadlines import Deadline
from chassis.errors import BrokerUnavailable
from chassis.postgres import Connection
from contracts.batches import INTAKE, CancelBatch
from contracts.stocks import Instruments, SearchSymbols
from contracts.topology import BATCH_PROCESSOR, GATEWAY, STOCK_DATA
from native.rabbitmq import RabbitMQ
from support.bench import Bench
from support.effects import cancel
from support.waiting import until


@asynccontextmanager
async def alarm(server: RabbitMQ) -> AsyncIterator[None]:
    await server.control("set_vm_memory_high_watermark", "0.0001")
    try:
        yield
    finally:
        await server.control("set_vm_memory_high_watermark", "absolute", "1GB")


async def test_a_blocked_broker_shows_at_once_and_acceptance_goes_on(
    bench: Bench, rabbitmq_server: RabbitMQ
) -> None:
    handled: list[str] = []

    async def handle(delivery: Delivery[CancelBatch]) -> None:
        handled.append(str(delivery.message_id))

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(INTAKE, {CancelBatch: Direct(handle)})
    await bench.run(worker)
    gateway = await bench.run(await bench.build(GATEWAY))
    accepted = [cancel() for _ in range(20)]
    async with alarm(rabbitmq_server):
        # Nothing is published but the probe, and yet it shows.
        await until(lambda: "alarm" in gateway.health.reasons().get("broker-publish", ""))
        await until(lambda: blocked() == 1)
        with pytest.raises(BrokerUnavailable, match="alarm"):
            await gateway.messaging.publisher.publish(cancel())
        with pytest.raises(BrokerUnavailable, match="alarm"):
            await gateway.messaging.publisher.send(cancel())
        # Before it opens a connection: whoever waited for that would hold the locks of a row of the outbox.
        with pytest.raises(BrokerUnavailable, match="alarm"):
            await gateway.messaging.publisher.publish_alone(cancel(), timeout_s=600)
        async with gateway.postgres.transaction() as connection:
            await outbox.add(connection, accepted)
        gateway.relay.wake()
        async with gateway.postgres.connection() as connection:
            assert await _waiting(connection) == len(accepted)
    await until(lambda: set(handled) >= {message.message_id for message in accepted})
    await until(lambda: gateway.health.reasons() == {} and worker.health.reasons() == {})
    await until(lambda: blocked() == 0)


async def test_a_request_that_waits_when_the_alarm_begins_fails_long_before_its_deadline(
    bench: Bench, rabbitmq_server: RabbitMQ
) -> None:
    asked = asyncio.Event()

    async def never(_: SearchSymbols, __: Deadline) -> Instruments:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    answerer = await bench.build(STOCK_DATA)
    answerer.answer({SearchSymbols: never})
    await bench.run(answerer)
    gateway = await bench.run(await bench.build(GATEWAY))
    rpc: Any = gateway.messaging.rpc
    deadline = Deadline.after(100)
    waiting = asyncio.create_task(rpc.ask(SearchSymbols(q="q"), deadline))
    await asked.wait()
    async with alarm(rabbitmq_server):
        with pytest.raises(BrokerUnavailable, match="alarm"):
            await waiting
        with pytest.raises(BrokerUnavailable, match="alarm"):
            await rpc.ask(SearchSymbols(q="q"), deadline)
    assert deadline.remaining_s() > 0


def blocked() -> float | None:
    return REGISTRY.get_sample_value("tickwire_broker_blocked", {"link": "publish"})


async def _waiting(connection: Connection) -> int:
    return int(await connection.fetchval("SELECT coalesce(sum(messages), 0) FROM outbox"))
