"""Large messages that are handled together: how many of them, and how they are read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

import pytest

from chassis.broker.envelope import Delivery, Outgoing, command
from chassis.broker.handlers import InTransaction
from chassis.broker.incoming import Incoming
from chassis.postgres import Connection
from contracts.batches import CancelBatch
from contracts.message import Message
from contracts.topology import BATCH_PROCESSOR
from support.bench import Bench
from support.waiting import until

QUEUE = "batch-processor.intake"


def large(size: int) -> Outgoing:
    message = command(CancelBatch(batch_id=uuid4(), owner_id="ann"))
    return replace(message, body=message.body + b" " * size)


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


async def test_a_group_of_large_messages_is_smaller(bench: Bench) -> None:
    groups: list[int] = []

    async def note(_: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
        groups.append(len(deliveries))
        await asyncio.sleep(0.1)

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(note, group=50)})
    await bench.run(worker)
    for _ in range(12):
        await worker.messaging.publisher.publish(large(1_500_000))
    await until(lambda: sum(groups) == 12)
    # Of 4 MiB, and the message that goes beyond.
    assert max(groups) <= 3
