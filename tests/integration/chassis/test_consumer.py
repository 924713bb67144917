"""Every message ends acked, retried or parked; effects happen once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from uuid import uuid4

import aiormq
import pytest
from pamqp import encode
from pamqp.commands import Basic

from chassis.broker import parking
from chassis.broker.envelope import Delivery, Outgoing, command, new_id, stamp
from chassis.broker.handlers import Direct, InTransaction
from chassis.deadlines import Deadline
from chassis.errors import Unavailable
from chassis.postgres import Connection
from contracts import headers as names
from contracts.batches import INTAKE, AbandonBatch, CancelBatch
from contracts.parked import ListParked
from contracts.topology import BATCH_PROCESSOR
from support.bench import Bench
from support.effects import (
    cancel,
    effects,
    failures_of_the_consumer,
    has_effects,
    parked,
    store,
    store_unless_bad,
)
from support.mute_error import MuteError
from support.waiting import until


async def test_a_message_has_its_effect_and_is_acknowledged(bench: Bench) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(INTAKE, {CancelBatch: InTransaction(store, group=10)})
    await bench.run(worker)
    for number in range(50):
        await worker.messaging.publisher.publish(cancel(str(number)))
    await until(lambda: has_effects(worker, 50))
    assert sorted(map(int, await effects(worker))) == list(range(50))


async def test_the_same_message_twice_has_one_effect(bench: Bench) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(INTAKE, {CancelBatch: InTransaction(store, group=10)})
    await bench.run(worker)
    message = cancel("twice")
    await asyncio.gather(*(worker.messaging.publisher.publish(message) for _ in range(5)))
    await worker.messaging.publisher.publish(cancel("last"))
    await until(lambda: has_effects(worker, 2))
    assert sorted(await effects(worker)) == ["last", "twice"]


async def test_a_transient_error_is_retried_after_the_first_rung(bench: Bench) -> None:
    attempts: list[int] = []

    async def fail_once(connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
        attempts.append(deliveries[0].attempt)
        if len(attempts) == 1:
            raise Unavailable("the relay is away")
        await store(connection, deliveries)

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(INTAKE, {CancelBatch: InTransaction(fail_once)})
    await bench.run(worker)
    await worker.messaging.publisher.publish(cancel("again"))
    await until(lambda: has_effects(worker, 1))
    assert attempts == [1, 2]


async def test_an_undecodable_message_is_parked_and_its_neighbours_go_on(bench: Bench) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(INTAKE, {CancelBatch: InTransaction(store, group=10)})
    await bench.run(worker)
    poison = Outgoing("commands", INTAKE, b"{not json", "batch.cancel.v1", str(new_id()), stamp())
    await worker.messaging.publisher.publish(cancel("before"))
    await worker.messaging.publisher.publish(poison)
    await worker.messaging.publisher.publish(cancel("after"))
    await until(lambda: has_effects(worker, 2))
    (message,) = await until(lambda: parked(worker))
    assert (message.reason, message.queue) == ("undecodable", INTAKE)
    assert message.message_id == poison.message_id


async def test_a_message_with_properties_that_cannot_be_read_is_parked_and_its_neighbours_go_on(
    bench: Bench, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(text: str) -> bytes:
        written = text.encode("utf-8", "surrogateescape")
        return bytes([len(written)]) + written

    monkeypatch.setitem(encode.METHODS, "shortstr", write)
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(INTAKE, {CancelBatch: InTransaction(store, group=10)})
    await bench.run(worker)
    connection = await aiormq.connect(broker_url)
    channel = await connection.channel()
    # Read in this order: what stands behind the first broken one is lost, too.
    for field in ("message_id", "message_type", "correlation_id"):
        about = Basic.Properties(message_type="batch.cancel.v1", message_id=str(new_id()))
        setattr(about, field, "a\udcff")
        await channel.basic_publish(b"{}", exchange="commands", routing_key=INTAKE, properties=about)
    await connection.close()
    await worker.messaging.publisher.publish(cancel("after"))
    await until(lambda: has_effects(worker, 1))

    async def are_parked() -> bool:
        page = await worker.parked.page(ListParked(), Deadline.after(5))
        return [each.reason for each in page.data] == ["unknown-type"] * 3

    await until(are_parked)
    assert worker.messaging.link.is_connected


async def test_a_permanent_error_is_parked_at_once_and_spares_the_group(bench: Bench) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(INTAKE, {CancelBatch: InTransaction(store_unless_bad, group=10)})
    await bench.run(worker)
    for owner in ("a", "bad", "b"):
        await worker.messaging.publisher.publish(cancel(owner))
    await until(lambda: has_effects(worker, 2))
    (message,) = await until(lambda: parked(worker))
    assert message.reason == "permanent"
    assert "bad owner" in message.last_error
    assert sorted(await effects(worker)) == ["a", "b"]


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def fail_with(error: BaseException) -> None:
    raise error


DEATHS: list[Callable[[], Awaitable[None]]] = [
    partial(fail_with, ValueError("bad \ud800 name")),
    partial(fail_with, ValueError("a NUL \0, and " + "long " * 100_000)),
    partial(fail_with, MuteError()),
    partial(fail_with, asyncio.CancelledError()),
    partial(fail_with, SystemExit(3)),
    partial(fail_with, KeyboardInterrupt()),
    partial(fail_with, BaseExceptionGroup("several", [MuteError(), asyncio.CancelledError()])),
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
    worker.consume(INTAKE, {CancelBatch: InTransaction(die, group=group)})
    await bench.run(worker)
    before = failures_of_the_consumer()
    await worker.messaging.publisher.publish(cancel("before"))
    for number in range(len(DEATHS)):
        message = cancel(str(number))
        last_try = replace(message, headers={**message.headers, names.ATTEMPT: 6})
        await worker.messaging.publisher.publish(last_try)
    await worker.messaging.publisher.publish(cancel("after"))
    await until(lambda: has_effects(worker, 2))
    assert sorted(await effects(worker)) == ["after", "before"]
    found = await until(lambda: parked(worker, len(DEATHS)))
    assert {(message.reason, message.attempts) for message in found} == {("attempts-exhausted", 6)}
    assert failures_of_the_consumer() == before
    assert worker.health.reasons() == {}


async def test_a_message_that_cannot_even_be_moved_does_not_affect_its_neighbours(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object, **__: object) -> Outgoing:
        raise KeyError("a fault of ours")

    monkeypatch.setattr(parking, "copy_for", break_down)
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(INTAKE, {CancelBatch: InTransaction(store_unless_bad, group=10)})
    await bench.run(worker)
    before = failures_of_the_consumer()
    for owner in ("a", "bad", "b"):
        await worker.messaging.publisher.publish(cancel(owner))
    await until(lambda: has_effects(worker, 2))
    (message,) = await until(lambda: parked(worker))
    assert message.reason == "delivery-limit"
    assert failures_of_the_consumer() == before


async def test_after_the_last_rung_a_message_is_parked(bench: Bench) -> None:
    async def fail(delivery: Delivery[AbandonBatch]) -> None:
        raise Unavailable("still away")

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(INTAKE, {AbandonBatch: Direct(fail)})
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
    (found,) = await until(lambda: parked(worker))
    assert (found.reason, found.attempts) == ("attempts-exhausted", 6)
