"""Messages wait for the broker, for their copies or for the database, and have their effect after."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiormq
import asyncpg
from prometheus_client import REGISTRY

from chassis import outbox
from chassis.broker.envelope import Delivery
from chassis.broker.handlers import InTransaction
from chassis.errors import Unavailable
from chassis.postgres import Connection
from contracts.batches import INTAKE, CancelBatch
from contracts.topology import BATCH_PROCESSOR, GATEWAY, ladder, retry_exchange
from support.bench import Bench, running
from support.effects import (
    cancel,
    effects,
    has_effects,
    parked,
    store,
)
from support.waiting import until


async def test_a_message_in_the_outbox_reaches_the_consumer_and_leaves_the_table(bench: Bench) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(INTAKE, {CancelBatch: InTransaction(store, group=50)})
    await bench.run(worker)
    sender = await bench.run(await bench.build(GATEWAY))
    async with sender.postgres.transaction() as connection:
        await outbox.add(connection, [cancel(str(n)) for n in range(700)])
    sender.relay.wake()
    await until(lambda: has_effects(worker, 700))
    async with sender.postgres.connection() as connection:
        assert await until(lambda: _is_empty(connection))


async def test_messages_wait_while_the_broker_link_is_down_and_arrive_after(bench: Bench) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(INTAKE, {CancelBatch: InTransaction(store, group=50)})
    await bench.run(worker)
    worker.messaging.link.interrupt()
    worker.messaging.publisher.link.interrupt()
    async with worker.postgres.transaction() as connection:
        await outbox.add(connection, [cancel(str(n)) for n in range(10)])
    await until(lambda: has_effects(worker, 10))
    assert worker.health.reasons() == {}


async def test_a_message_whose_copy_is_not_confirmed_stays_unacknowledged(
    bench: Bench, broker_url: str
) -> None:
    """Given back, it would come again and again, until the broker holds it for deadly."""
    attempts: list[int] = []

    async def fail_once(connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
        if deliveries[0].message.owner_id == "again":
            attempts.append(deliveries[0].attempt)
            if len(attempts) == 1:
                raise Unavailable("the relay is away")
        await store(connection, deliveries)

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(INTAKE, {CancelBatch: InTransaction(fail_once)})
    await bench.run(worker)
    async with without_first_rung(broker_url):
        before = copies_returned()
        await worker.messaging.publisher.publish(cancel("again"))
        await until(lambda: copies_returned() >= before + 3)
        assert attempts == [1]
        await worker.messaging.publisher.publish(cancel("neighbour"))
        await until(lambda: has_effects(worker, 1))
        assert worker.health.failures() == {}
    await until(lambda: has_effects(worker, 2))
    assert (attempts, await effects(worker)) == ([1, 2], ["neighbour", "again"])


async def test_a_stop_gives_back_messages_that_wait_for_their_copy(bench: Bench, broker_url: str) -> None:
    async def fail(_: Connection, __: Sequence[Delivery[CancelBatch]]) -> None:
        raise Unavailable("the relay is away")

    # Longer than a test may take: a stop does not use it up.
    worker = await bench.build(BATCH_PROCESSOR, shutdown_grace_s=300)
    worker.consume(INTAKE, {CancelBatch: InTransaction(fail)})
    async with running(worker), without_first_rung(broker_url):
        before = copies_returned()
        await worker.messaging.publisher.publish(cancel("again"))
        await until(lambda: copies_returned() >= before + 2)
        await worker.close()
    successor = await bench.build(BATCH_PROCESSOR)
    successor.consume(INTAKE, {CancelBatch: InTransaction(store)})
    await bench.run(successor)
    await until(lambda: has_effects(successor, 1))


async def test_a_service_that_starts_waits_for_a_database_that_is_read_only(bench: Bench) -> None:
    starting = await bench.build(BATCH_PROCESSOR)
    admin = await asyncpg.connect(starting.settings.postgres_dsn.get_secret_value())
    name = await admin.fetchval("SELECT current_database()")
    await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await starting.open()
    try:
        await until(lambda: "read-only" in str(starting.health.reasons()))
        assert starting.health.failures() == {}
        await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await until(lambda: starting.health.reasons() == {})
    finally:
        await starting.close()
        await admin.close()


async def test_a_read_only_database_is_waited_for(bench: Bench) -> None:
    attempts: list[int] = []

    async def note(connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
        attempts.append(deliveries[0].attempt)
        await store(connection, deliveries)

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(INTAKE, {CancelBatch: InTransaction(note)})
    await bench.run(worker)
    admin = await asyncpg.connect(worker.settings.postgres_dsn.get_secret_value())
    name = await admin.fetchval("SELECT current_database()")
    await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await worker.messaging.publisher.publish(cancel("late"))
    await until(lambda: paused() == 1 and "read-only" in worker.health.reasons().get("database", ""))
    assert await effects(worker) == [], "what can be read is read"
    # The ladder would have taken it long before the third look.
    for _ in range(3):
        assert not await worker.postgres.ping()
    assert paused() == 1
    await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await until(lambda: has_effects(worker, 1))
    assert set(attempts) <= {1}
    await until(lambda: worker.health.reasons() == {})
    assert await parked(worker) is None
    await admin.close()


def paused() -> float | None:
    return REGISTRY.get_sample_value("tickwire_consumer_paused", {"queue": INTAKE})


@asynccontextmanager
async def without_first_rung(broker_url: str) -> AsyncIterator[None]:
    """Let the broker return every message that is sent to the first retry delay."""
    rung = ladder(BATCH_PROCESSOR)[0]
    admin = await aiormq.connect(broker_url)
    channel = await admin.channel()
    await channel.queue_unbind(rung.queue, rung.exchange, routing_key=rung.key)
    try:
        yield
    finally:
        await channel.queue_bind(rung.queue, rung.exchange, routing_key=rung.key)
        await admin.close()


def copies_returned() -> float:
    labels = {"exchange": retry_exchange(BATCH_PROCESSOR), "outcome": "returned"}
    return REGISTRY.get_sample_value("tickwire_messages_published_total", labels) or 0


async def _is_empty(connection: Connection) -> bool:
    return bool(await connection.fetchval("SELECT count(*) FROM outbox") == 0)
