"""Large messages that are handled together: how many of them, and how they are read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from chassis.broker.consumer import GROUP_BYTES
from chassis.broker.envelope import Delivery, Outgoing, command
from chassis.broker.handlers import InTransaction
from chassis.broker.incoming import Incoming
from chassis.errors import NotFound
from chassis.postgres import Connection
from contracts.batches import CancelBatch, PauseBatch
from contracts.message import Message
from contracts.topology import BATCH_PROCESSOR
from support.bench import Bench
from support.waiting import until

QUEUE = "batch-processor.intake"


def large(size: int) -> Outgoing:
    message = command(CancelBatch(batch_id=uuid4(), owner_id="ann"))
    return replace(message, body=message.body + b" " * size)


def arrived() -> float:
    """Return how many messages have come from the queue to this process."""
    return REGISTRY.get_sample_value("tickwire_message_age_seconds_count", {"queue": QUEUE}) or 0


async def test_the_event_loop_is_not_held_up_while_a_group_of_large_messages_is_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    reads: list[int] = []
    rounds, fit = 0, Incoming.fit

    def read(self: Incoming, contract: type[Message]) -> Incoming:
        reads.append(rounds)
        return fit(self, contract)

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async def note(_: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
        groups.append(len(deliveries))
        await asyncio.sleep(0.1)

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(note, group=8)})
    await bench.run(worker)
    monkeypatch.setattr(Incoming, "fit", read)
    counting = asyncio.create_task(count())
    for _ in range(20):
        await worker.messaging.publisher.publish(large(20_000))
    await until(lambda: sum(groups) == 20)
    counting.cancel()
    assert max(groups) > 1
    assert len(set(reads)) == len(reads) == 20


@pytest.mark.parametrize(("group_bytes", "size"), [(GROUP_BYTES, 1_500_000), (250_000, 100_000)])
async def test_a_group_of_large_messages_is_smaller(bench: Bench, group_bytes: int, size: int) -> None:
    groups: list[int] = []

    async def note(_: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
        groups.append(len(deliveries))
        await asyncio.sleep(0.1)

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(note, group=50)}, group_bytes=group_bytes)
    await bench.run(worker)
    for _ in range(12):
        await worker.messaging.publisher.publish(large(size))
    await until(lambda: sum(groups) == 12)
    # Two, and the message that goes beyond.
    assert max(groups) <= 3


async def test_owners_take_turns_at_what_has_arrived(bench: Bench) -> None:
    handled: list[str] = []
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def note(_: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
        handled.extend(delivery.tenant for delivery in deliveries)
        begun.set()
        await goes_on.wait()

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(note, group=2)})
    await bench.run(worker)
    before = arrived()
    for owner in (*["many"] * 20, "few", "other"):
        one = command(CancelBatch(batch_id=uuid4(), owner_id=owner), tenant=owner)
        await worker.messaging.publisher.publish(one)
        await begun.wait()
    await until(lambda: arrived() == before + 22)
    goes_on.set()
    await until(lambda: len(handled) == 22)
    # The first had begun alone; owners that come after it take turns with the rest.
    assert set(handled[1:4]) == {"many", "few", "other"}


async def test_failing_messages_of_one_owner_do_not_delay_others_one_by_one(bench: Bench) -> None:
    groups: list[list[str]] = []
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def refuse_bad(_: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
        groups.append([delivery.tenant for delivery in deliveries])
        begun.set()
        await goes_on.wait()
        if any(delivery.tenant == "bad" for delivery in deliveries):
            raise NotFound("There is no such batch.")

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(refuse_bad, group=50)})
    await bench.run(worker)
    before = arrived()
    for owner in ("first", *["bad"] * 5, "ann", "ann", "bob"):
        one = command(CancelBatch(batch_id=uuid4(), owner_id=owner), tenant=owner)
        await worker.messaging.publisher.publish(one)
        await begun.wait()
    await until(lambda: arrived() == before + 9)
    goes_on.set()
    await until(lambda: len(groups) == 10)
    # After all of them together: those of each owner, the fewest first, and the bad ones by themselves.
    assert groups[2:] == [["bob"], ["ann"] * 2, ["bad"] * 5, *[["bad"]] * 5]


async def test_a_group_is_as_small_as_the_smallest_that_one_of_its_messages_allows(bench: Bench) -> None:
    groups: list[list[str]] = []
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def note(_: Connection, deliveries: Sequence[Delivery[Message]]) -> None:
        groups.append([type(delivery.message).__name__ for delivery in deliveries])
        begun.set()
        await goes_on.wait()

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(
        QUEUE, {CancelBatch: InTransaction(note, group=50), PauseBatch: InTransaction(note, group=3)}
    )
    await bench.run(worker)
    before = arrived()
    for kind in (CancelBatch, PauseBatch, *[CancelBatch] * 6):
        await worker.messaging.publisher.publish(command(kind(batch_id=uuid4(), owner_id="ann")))
        await begun.wait()
    await until(lambda: arrived() == before + 8)
    goes_on.set()
    await until(lambda: sum(map(len, groups)) == 8)
    assert groups[1:] == [["PauseBatch"], ["CancelBatch"] * 2, ["CancelBatch"] * 4]
