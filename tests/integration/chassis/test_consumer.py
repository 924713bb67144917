"""Every message ends acked, retried or parked; effects happen once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from uuid import uuid4

import aiormq
import asyncpg
import pytest
from pamqp import encode
from pamqp.commands import Basic
from prometheus_client import REGISTRY

from chassis import outbox
from chassis.broker import parking
from chassis.broker.envelope import Delivery, Outgoing, command, new_id, stamp
from chassis.broker.handlers import Direct, InTransaction
from chassis.deadlines import Deadline
from chassis.errors import InvalidInput, Unavailable
from chassis.postgres import Connection
from chassis.runtime import ServiceRuntime
from contracts import headers as names
from contracts.batches import AbandonBatch, CancelBatch
from contracts.parked import ListParked, ParkedMessage
from contracts.topology import BATCH_PROCESSOR, GATEWAY, ladder, retry_exchange
from support.bench import Bench, running
from support.waiting import until

QUEUE = "batch-processor.intake"


async def store(connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
    await connection.executemany(
        "INSERT INTO effects (name) VALUES ($1)", [(d.message.owner_id,) for d in deliveries]
    )


async def effects(runtime: ServiceRuntime) -> list[str]:
    async with runtime.postgres.connection() as connection:
        return [row["name"] for row in await connection.fetch("SELECT name FROM effects ORDER BY id")]


async def parked(runtime: ServiceRuntime) -> ParkedMessage | None:
    page = await runtime.parked.page(ListParked(), Deadline.after(5))
    return page.data[0] if page.data else None


def cancel(owner: str = "ann") -> Outgoing:
    return command(CancelBatch(batch_id=uuid4(), owner_id=owner))


async def test_a_message_has_its_effect_and_is_acknowledged(bench: Bench) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(store, group=10)})
    await bench.run(worker)
    for number in range(50):
        await worker.messaging.publisher.publish(cancel(str(number)))
    await until(lambda: _has(worker, 50))
    assert sorted(map(int, await effects(worker))) == list(range(50))


async def test_the_same_message_twice_has_one_effect(bench: Bench) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(store, group=10)})
    await bench.run(worker)
    message = cancel("twice")
    await asyncio.gather(*(worker.messaging.publisher.publish(message) for _ in range(5)))
    await worker.messaging.publisher.publish(cancel("last"))
    await until(lambda: _has(worker, 2))
    assert sorted(await effects(worker)) == ["last", "twice"]


async def test_a_transient_error_is_retried_after_the_first_rung(bench: Bench) -> None:
    attempts: list[int] = []

    async def fail_once(connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
        attempts.append(deliveries[0].attempt)
        if len(attempts) == 1:
            raise Unavailable("the relay is away")
        await store(connection, deliveries)

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(fail_once)})
    await bench.run(worker)
    await worker.messaging.publisher.publish(cancel("again"))
    await until(lambda: _has(worker, 1))
    assert attempts == [1, 2]


async def test_an_undecodable_message_is_parked_and_its_neighbours_go_on(bench: Bench) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(store, group=10)})
    await bench.run(worker)
    poison = Outgoing("commands", QUEUE, b"{not json", "batch.cancel.v1", str(new_id()), stamp())
    await worker.messaging.publisher.publish(cancel("before"))
    await worker.messaging.publisher.publish(poison)
    await worker.messaging.publisher.publish(cancel("after"))
    await until(lambda: _has(worker, 2))
    message = await until(lambda: parked(worker))
    assert (message.reason, message.queue) == ("undecodable", QUEUE)
    assert message.message_id == poison.message_id


async def test_a_message_with_properties_that_cannot_be_read_is_parked_and_its_neighbours_go_on(
    bench: Bench, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(text: str) -> bytes:
        written = text.encode("utf-8", "surrogateescape")
        return bytes([len(written)]) + written

    monkeypatch.setitem(encode.METHODS, "shortstr", write)
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(store, group=10)})
    await bench.run(worker)
    connection = await aiormq.connect(broker_url)
    channel = await connection.channel()
    # Read in this order: what stands behind the first broken one is lost, too.
    for field in ("message_id", "message_type", "correlation_id"):
        about = Basic.Properties(message_type="batch.cancel.v1", message_id=str(new_id()))
        setattr(about, field, "a\udcff")
        await channel.basic_publish(b"{}", exchange="commands", routing_key=QUEUE, properties=about)
    await connection.close()
    await worker.messaging.publisher.publish(cancel("after"))
    await until(lambda: _has(worker, 1))

    async def are_parked() -> bool:
        page = await worker.parked.page(ListParked(), Deadline.after(5))
        return [each.reason for each in page.data] == ["unknown-type"] * 3

    await until(are_parked)
    assert worker.messaging.link.is_connected


async def test_a_permanent_error_is_parked_at_once_and_spares_the_group(bench: Bench) -> None:
    async def refuse_bad(connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
        if any(d.message.owner_id == "bad" for d in deliveries):
            raise InvalidInput("bad owner")
        await store(connection, deliveries)

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(refuse_bad, group=10)})
    await bench.run(worker)
    for owner in ("a", "bad", "b"):
        await worker.messaging.publisher.publish(cancel(owner))
    await until(lambda: _has(worker, 2))
    message = await until(lambda: parked(worker))
    assert message.reason == "permanent"
    assert "bad owner" in message.last_error
    assert sorted(await effects(worker)) == ["a", "b"]


class Mute(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise RecursionError

    __repr__ = __str__


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def fail_with(error: BaseException) -> None:
    raise error


DEATHS: list[Callable[[], Awaitable[None]]] = [
    partial(fail_with, ValueError("bad \ud800 name")),
    partial(fail_with, ValueError("a NUL \0, and " + "long " * 100_000)),
    partial(fail_with, Mute()),
    partial(fail_with, asyncio.CancelledError()),
    partial(fail_with, SystemExit(3)),
    partial(fail_with, KeyboardInterrupt()),
    partial(fail_with, BaseExceptionGroup("several", [Mute(), asyncio.CancelledError()])),
    cancel_itself,
]


@pytest.mark.parametrize("group", [1, 10])
async def test_any_exception_of_a_handler_affects_its_own_message_only(bench: Bench, group: int) -> None:
    async def die(connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
        for delivery in deliveries:
            if delivery.message.owner_id.isdigit():
                await DEATHS[int(delivery.message.owner_id)]()
        await store(connection, deliveries)

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(die, group=group)})
    await bench.run(worker)
    before = failures_of_the_consumer()
    await worker.messaging.publisher.publish(cancel("before"))
    for number in range(len(DEATHS)):
        message = cancel(str(number))
        last_try = replace(message, headers={**message.headers, names.ATTEMPT: 6})
        await worker.messaging.publisher.publish(last_try)
    await worker.messaging.publisher.publish(cancel("after"))
    await until(lambda: _has(worker, 2))
    assert sorted(await effects(worker)) == ["after", "before"]
    found = await until(lambda: parked_all(worker, len(DEATHS)))
    assert {(message.reason, message.attempts) for message in found} == {("attempts-exhausted", 6)}
    assert failures_of_the_consumer() == before
    assert worker.health.reasons() == {}


async def test_a_message_that_cannot_even_be_moved_does_not_affect_its_neighbours(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse_bad(connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
        if any(d.message.owner_id == "bad" for d in deliveries):
            raise InvalidInput("bad owner")
        await store(connection, deliveries)

    def break_down(*_: object, **__: object) -> Outgoing:
        raise KeyError("a fault of ours")

    monkeypatch.setattr(parking, "copy_for", break_down)
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(refuse_bad, group=10)})
    await bench.run(worker)
    before = failures_of_the_consumer()
    for owner in ("a", "bad", "b"):
        await worker.messaging.publisher.publish(cancel(owner))
    await until(lambda: _has(worker, 2))
    message = await until(lambda: parked(worker))
    assert message.reason == "delivery-limit"
    assert failures_of_the_consumer() == before


async def test_after_the_last_rung_a_message_is_parked(bench: Bench) -> None:
    async def fail(delivery: Delivery[AbandonBatch]) -> None:
        raise Unavailable("still away")

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {AbandonBatch: Direct(fail)})
    await bench.run(worker)
    message = command(AbandonBatch(batch_id=uuid4(), owner_id="x"))
    last_try = Outgoing(
        message.exchange,
        message.routing_key,
        message.body,
        message.message_type,
        message.message_id,
        {**message.headers, names.ATTEMPT: 6},
    )
    await worker.messaging.publisher.publish(last_try)
    found = await until(lambda: parked(worker))
    assert (found.reason, found.attempts) == ("attempts-exhausted", 6)


async def test_a_message_in_the_outbox_reaches_the_consumer_and_leaves_the_table(bench: Bench) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(store, group=50)})
    await bench.run(worker)
    sender = await bench.run(await bench.build(GATEWAY))
    async with sender.postgres.transaction() as connection:
        await outbox.add(connection, [cancel(str(n)) for n in range(700)])
    sender.relay.wake()
    await until(lambda: _has(worker, 700))
    async with sender.postgres.connection() as connection:
        assert await until(lambda: _is_empty(connection))


async def test_messages_wait_while_the_broker_link_is_down_and_arrive_after(bench: Bench) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(store, group=50)})
    await bench.run(worker)
    worker.messaging.link.interrupt()
    worker.messaging.publisher.link.interrupt()
    async with worker.postgres.transaction() as connection:
        await outbox.add(connection, [cancel(str(n)) for n in range(10)])
    await until(lambda: _has(worker, 10))
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
    worker.consume(QUEUE, {CancelBatch: InTransaction(fail_once)})
    await bench.run(worker)
    async with without_first_rung(broker_url):
        before = copies_returned()
        await worker.messaging.publisher.publish(cancel("again"))
        await until(lambda: copies_returned() >= before + 3)
        assert attempts == [1]
        await worker.messaging.publisher.publish(cancel("neighbour"))
        await until(lambda: _has(worker, 1))
        assert worker.health.failures() == {}
    await until(lambda: _has(worker, 2))
    assert (attempts, await effects(worker)) == ([1, 2], ["neighbour", "again"])


async def test_a_stop_gives_back_what_waits_for_its_copy(bench: Bench, broker_url: str) -> None:
    async def fail(_: Connection, __: Sequence[Delivery[CancelBatch]]) -> None:
        raise Unavailable("the relay is away")

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(fail)})
    async with running(worker), without_first_rung(broker_url):
        before = copies_returned()
        await worker.messaging.publisher.publish(cancel("again"))
        await until(lambda: copies_returned() >= before + 2)
        started = time.monotonic()
        await worker.close()
        assert time.monotonic() - started < worker.settings.shutdown_grace_s
    successor = await bench.build(BATCH_PROCESSOR)
    successor.consume(QUEUE, {CancelBatch: InTransaction(store)})
    await bench.run(successor)
    await until(lambda: _has(successor, 1))


async def test_a_database_that_takes_no_writes_is_waited_for(bench: Bench) -> None:
    attempts: list[int] = []

    async def note(connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
        attempts.append(deliveries[0].attempt)
        await store(connection, deliveries)

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(note)})
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
    await until(lambda: _has(worker, 1))
    assert set(attempts) <= {1}
    await until(lambda: worker.health.reasons() == {})
    assert await parked(worker) is None
    await admin.close()


async def parked_all(runtime: ServiceRuntime, count: int) -> list[ParkedMessage] | None:
    page = await runtime.parked.page(ListParked(), Deadline.after(5))
    return page.data if len(page.data) >= count else None


def failures_of_the_consumer() -> float:
    labels = {"task": f"consumer {QUEUE}"}
    return REGISTRY.get_sample_value("tickwire_background_task_failures_total", labels) or 0


def paused() -> float | None:
    return REGISTRY.get_sample_value("tickwire_consumer_paused", {"queue": QUEUE})


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


async def _has(runtime: ServiceRuntime, count: int) -> bool:
    return len(await effects(runtime)) >= count


async def _is_empty(connection: Connection) -> bool:
    return bool(await connection.fetchval("SELECT count(*) FROM outbox") == 0)
