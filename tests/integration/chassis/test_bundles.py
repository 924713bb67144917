"""Messages that travel in bundles are handled, retried and parked each by itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import aiormq
import pytest

from chassis import outbox
from chassis.broker import bundles
from chassis.broker.envelope import Delivery, Outgoing
from chassis.broker.handlers import InTransaction
from chassis.deadlines import Deadline
from chassis.postgres import Connection
from chassis.runtime import ServiceRuntime
from contracts.batches import INTAKE, CancelBatch
from contracts.topology import BATCH_PROCESSOR, GATEWAY, own_exchange, parked_queue
from support.bench import Bench
from support.effects import cancel, effects, failures_of_the_consumer, has_effects, parked, store_unless_bad
from support.waiting import until


def cancels(count: int) -> list[Outgoing]:
    return [cancel(str(number)) for number in range(count)]


async def numbers(worker: ServiceRuntime) -> list[int]:
    return sorted(map(int, await effects(worker)))


async def waiting(broker_url: str) -> int:
    """Return how many messages are in the queue, those that a consumer has not settled left out."""
    connection = await aiormq.connect(broker_url)
    channel = await connection.channel()
    declared = await channel.queue_declare(INTAKE, passive=True)
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
    worker.consume(INTAKE, {CancelBatch: InTransaction(store_unless_bad, group=10)})
    async with worker:
        await until(lambda: worker.health.reasons() == {})
    await send(sender, cancels(40))
    assert await waiting(broker_url) == 1
    again = await bench.build(BATCH_PROCESSOR)
    again.consume(INTAKE, {CancelBatch: InTransaction(store_unless_bad, group=10)})
    await bench.run(again)
    await until(lambda: has_effects(again, 40))
    assert await numbers(again) == list(range(40))
    await again.messaging.drain(Deadline.after(5))
    # Acknowledged: nothing comes again when its connection has gone.
    await again.messaging.link.close()
    assert await waiting(broker_url) == 0


async def test_a_message_that_cannot_be_handled_is_parked_and_the_rest_of_its_bundle_goes_on(
    bench: Bench, broker_url: str
) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(INTAKE, {CancelBatch: InTransaction(store_unless_bad, group=50)})
    await bench.run(worker)
    messages = cancels(20)
    messages[7] = cancel("bad")
    messages[9] = replace(messages[9], body=b"no message")
    await worker.messaging.publisher.publish(bundles.wrap(messages))
    await until(lambda: has_effects(worker, 18))
    assert await numbers(worker) == [number for number in range(20) if number not in (7, 9)]
    found = await until(lambda: parked(worker, 2))
    assert {message.message_id for message in found} == {messages[7].message_id, messages[9].message_id}
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
    worker.consume(INTAKE, {CancelBatch: InTransaction(store_unless_bad, group=10)})
    await bench.run(worker)
    before = failures_of_the_consumer()
    messages = cancels(12)
    messages[2] = replace(messages[2], **odd)
    await worker.messaging.publisher.publish(bundles.wrap(messages))
    # The broker gives up on the bundle, which is kept with every part of it.
    found = await until(lambda: parked(worker, 12))
    assert {message.reason for message in found} == {"delivery-limit"}
    assert await numbers(worker) == [number for number in range(12) if number != 2]
    assert failures_of_the_consumer() == before
    assert await waiting(broker_url) == 0


async def test_a_bundle_that_is_redelivered_is_taken_apart(bench: Bench) -> None:
    sizes: list[int] = []
    tries: Counter[str] = Counter()
    is_hanging = asyncio.Event()

    async def hang_first(connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
        sizes.append(len(deliveries))
        tries.update(delivery.message.owner_id for delivery in deliveries)
        if len(sizes) == 2:
            is_hanging.set()
            await asyncio.Event().wait()
        await store_unless_bad(connection, deliveries)

    worker = await bench.build(BATCH_PROCESSOR)
    # The first ten end; with the next ten its connection breaks.
    worker.consume(INTAKE, {CancelBatch: InTransaction(hang_first, group=10)}, deadline_s=2)
    await bench.run(worker)
    await worker.messaging.publisher.publish(bundles.wrap(cancels(30)))
    await is_hanging.wait()
    worker.messaging.link.interrupt()
    await until(lambda: has_effects(worker, 30))
    await asyncio.sleep(0.5)
    assert await numbers(worker) == list(range(30))
    assert max(tries[str(number)] for number in range(10)) == 1


async def test_each_part_of_a_bundle_that_the_broker_has_parked_is_kept(bench: Bench) -> None:
    worker = await bench.run(await bench.build(BATCH_PROCESSOR))
    messages = cancels(5)
    died = {"queue": INTAKE, "reason": "delivery_limit", "time": datetime(2026, 1, 2, tzinfo=UTC)}
    dead = replace(
        bundles.wrap(messages),
        exchange=own_exchange(BATCH_PROCESSOR),
        routing_key=parked_queue(BATCH_PROCESSOR),
        headers={"x-death": [died]},
    )
    await worker.messaging.publisher.publish(dead)
    found = await until(lambda: parked(worker, 5))
    assert {message.message_id for message in found} == {message.message_id for message in messages}
    assert {(m.queue, m.reason, m.message_type) for m in found} == {
        (INTAKE, "delivery-limit", CancelBatch.message_type)
    }


async def test_an_invalid_bundle_is_parked(bench: Bench, broker_url: str) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(INTAKE, {CancelBatch: InTransaction(store_unless_bad)})
    await bench.run(worker)
    broken = replace(bundles.wrap(cancels(5)), body=b"[]\n")
    await worker.messaging.publisher.publish(broken)
    found = await until(lambda: parked(worker))
    assert [message.message_id for message in found] == [broken.message_id]
    assert await waiting(broker_url) == 0
