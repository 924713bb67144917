"""Messages that travel in bundles are handled, retried and parked each by itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aiormq
import pytest
from prometheus_client import REGISTRY

from chassis import outbox
from chassis.broker import bundles
from chassis.broker.envelope import Delivery, Outgoing, command
from chassis.broker.handlers import InTransaction
from chassis.deadlines import Deadline
from chassis.errors import InvalidInput
from chassis.postgres import Connection
from chassis.runtime import ServiceRuntime
from contracts.batches import CancelBatch
from contracts.parked import ListParked
from contracts.topology import BATCH_PROCESSOR, GATEWAY, own_exchange, parked_queue
from support.bench import Bench
from support.waiting import until

QUEUE = "batch-processor.intake"


def cancels(count: int) -> list[Outgoing]:
    return [command(CancelBatch(batch_id=uuid4(), owner_id=str(number))) for number in range(count)]


async def store(connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
    if any(delivery.message.owner_id == "poison" for delivery in deliveries):
        raise InvalidInput("nobody can do that")
    names = [(delivery.message.owner_id,) for delivery in deliveries]
    await connection.executemany("INSERT INTO effects (name) VALUES ($1)", names)


async def effects(runtime: ServiceRuntime) -> list[int]:
    async with runtime.postgres.connection() as connection:
        return sorted(int(row["name"]) for row in await connection.fetch("SELECT name FROM effects"))


async def has(runtime: ServiceRuntime, count: int) -> bool:
    return len(await effects(runtime)) >= count


async def waiting(broker_url: str) -> int:
    """Return how many messages are in the queue, those that a consumer has not settled left out."""
    connection = await aiormq.connect(broker_url)
    channel = await connection.channel()
    declared = await channel.queue_declare(QUEUE, passive=True)
    await connection.close()
    return declared.message_count or 0


async def send(sender: ServiceRuntime, messages: Sequence[Outgoing]) -> None:
    async with sender.postgres.transaction() as connection:
        await outbox.add(connection, messages)
    sender.relay.wake()
    await until(lambda: is_sent(sender))


async def is_sent(sender: ServiceRuntime) -> bool:
    async with sender.postgres.connection() as connection:
        return not await connection.fetchval("SELECT count(*) FROM outbox")


async def test_messages_that_wait_together_are_one_for_the_broker_and_each_has_its_effect(
    bench: Bench, broker_url: str
) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    sender = await bench.run(await bench.build(GATEWAY))
    # The queues are there once the worker has been.
    worker.consume(QUEUE, {CancelBatch: InTransaction(store, group=10)})
    async with worker:
        await until(lambda: worker.health.reasons() == {})
    await send(sender, cancels(40))
    assert await waiting(broker_url) == 1
    again = await bench.build(BATCH_PROCESSOR)
    again.consume(QUEUE, {CancelBatch: InTransaction(store, group=10)})
    await bench.run(again)
    await until(lambda: has(again, 40))
    assert await effects(again) == list(range(40))
    await again.messaging.drain(Deadline.after(5))
    # Acknowledged: nothing comes again when its connection has gone.
    await again.messaging.link.close()
    assert await waiting(broker_url) == 0


async def test_a_message_that_cannot_be_handled_is_parked_and_the_rest_of_its_bundle_goes_on(
    bench: Bench, broker_url: str
) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(store, group=50)})
    await bench.run(worker)
    messages = cancels(20)
    messages[7] = command(CancelBatch(batch_id=uuid4(), owner_id="poison"))
    messages[9] = replace(messages[9], body=b"no message")
    await worker.messaging.publisher.publish(bundles.wrap(messages))
    await until(lambda: has(worker, 18))
    assert await effects(worker) == [number for number in range(20) if number not in (7, 9)]
    await until(lambda: parked(worker, 2))
    assert await parked_ids(worker) == {messages[7].message_id, messages[9].message_id}
    assert await waiting(broker_url) == 0


@pytest.mark.parametrize(
    "odd",
    [{"headers": {"x-number": 2**64 - 1}, "body": b"no message"}, {"message_type": "t" * 300}],
    ids=["an undecodable part with a header that AMQP cannot carry", "a type that AMQP cannot carry"],
)
async def test_a_part_that_cannot_even_be_moved_does_not_affect_its_neighbours(
    bench: Bench, broker_url: str, odd: dict[str, Any]
) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(store, group=10)})
    await bench.run(worker)
    before = failures_of_the_consumer()
    messages = cancels(12)
    messages[2] = replace(messages[2], **odd)
    await worker.messaging.publisher.publish(bundles.wrap(messages))
    # The broker gives up on the bundle, which is kept with every part of it.
    await until(lambda: parked(worker, 12))
    page = await worker.parked.page(ListParked(), Deadline.after(5))
    assert {message.reason for message in page.data} == {"delivery-limit"}
    assert await effects(worker) == [number for number in range(12) if number != 2]
    assert failures_of_the_consumer() == before
    assert await waiting(broker_url) == 0


async def test_a_bundle_that_comes_again_is_taken_apart(bench: Bench) -> None:
    sizes: list[int] = []
    tries: Counter[str] = Counter()
    is_hanging = asyncio.Event()

    async def hang_first(connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
        sizes.append(len(deliveries))
        tries.update(delivery.message.owner_id for delivery in deliveries)
        if len(sizes) == 2:
            is_hanging.set()
            await asyncio.Event().wait()
        await store(connection, deliveries)

    worker = await bench.build(BATCH_PROCESSOR)
    # The first ten end; with the next ten its connection breaks.
    worker.consume(QUEUE, {CancelBatch: InTransaction(hang_first, group=10)}, deadline_s=2)
    await bench.run(worker)
    await worker.messaging.publisher.publish(bundles.wrap(cancels(30)))
    await is_hanging.wait()
    worker.messaging.link.interrupt()
    await until(lambda: has(worker, 30))
    await asyncio.sleep(0.5)
    assert await effects(worker) == list(range(30))
    assert max(tries[str(number)] for number in range(10)) == 1


async def test_each_part_of_a_bundle_that_the_broker_has_parked_is_kept(bench: Bench) -> None:
    worker = await bench.run(await bench.build(BATCH_PROCESSOR))
    messages = cancels(5)
    died = {"queue": QUEUE, "reason": "delivery_limit", "time": datetime(2026, 1, 2, tzinfo=UTC)}
    dead = replace(
        bundles.wrap(messages),
        exchange=own_exchange(BATCH_PROCESSOR),
        routing_key=parked_queue(BATCH_PROCESSOR),
        headers={"x-death": [died]},
    )
    await worker.messaging.publisher.publish(dead)
    await until(lambda: parked(worker, 5))
    assert await parked_ids(worker) == {message.message_id for message in messages}
    page = await worker.parked.page(ListParked(), Deadline.after(5))
    assert {(m.queue, m.reason, m.message_type) for m in page.data} == {
        (QUEUE, "delivery-limit", CancelBatch.message_type)
    }


async def test_an_invalid_bundle_is_parked(bench: Bench, broker_url: str) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(store)})
    await bench.run(worker)
    broken = replace(bundles.wrap(cancels(5)), body=b"[]\n")
    await worker.messaging.publisher.publish(broken)
    await until(lambda: parked(worker, 1))
    assert await parked_ids(worker) == {broken.message_id}
    assert await waiting(broker_url) == 0


def failures_of_the_consumer() -> float:
    labels = {"task": f"consumer {QUEUE}"}
    return REGISTRY.get_sample_value("tickwire_background_task_failures_total", labels) or 0


async def parked_ids(worker: ServiceRuntime) -> set[str]:
    return {
        message.message_id for message in (await worker.parked.page(ListParked(), Deadline.after(5))).data
    }


async def parked(worker: ServiceRuntime, count: int) -> bool:
    return len(await parked_ids(worker)) >= count
