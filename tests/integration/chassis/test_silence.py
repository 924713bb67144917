"""Consumers that die or hang in silence are noticed, and mended where that is possible."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import aiormq
import pytest
from prometheus_client import REGISTRY

from chassis.broker.consumer import Direct, InTransaction
from chassis.broker.envelope import Delivery, command
from chassis.postgres import Connection
from contracts.batches import CancelBatch
from contracts.topology import BATCH_PROCESSOR
from waiting import until

QUEUE = "batch-processor.intake"


async def ignore(_: Connection, __: Sequence[Delivery[CancelBatch]]) -> None:
    return None


async def test_a_queue_that_is_deleted_is_declared_and_consumed_again(bench: Any, broker_url: str) -> None:
    handled = asyncio.Event()

    async def handle(_: Connection, __: Sequence[Delivery[CancelBatch]]) -> None:
        handled.set()

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(handle)})
    await bench.run(worker)
    admin = await aiormq.connect(broker_url)
    await (await admin.channel()).queue_delete(QUEUE)
    await admin.close()
    await until(lambda: worker.health.reasons() != {}, what=lambda: "readiness shows the loss")
    await until(lambda: worker.health.reasons() == {}, what=lambda: str(worker.health.reasons()))
    await worker.messaging.publisher.publish(command(CancelBatch(batch_id=uuid4(), owner_id="x")))
    await asyncio.wait_for(handled.wait(), 10)


async def test_the_census_counts_the_consumers_that_the_broker_sees(bench: Any) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(ignore)})
    await bench.run(worker)

    def consumers() -> float | None:
        return REGISTRY.get_sample_value("tickwire_queue_consumers", {"queue": QUEUE})

    await until(lambda: consumers() == 1)


async def test_a_handler_that_hangs_is_cut_at_its_deadline_and_its_message_retried(bench: Any) -> None:
    attempts: list[int] = []

    async def hang_once(delivery: Delivery[CancelBatch]) -> None:
        attempts.append(delivery.attempt)
        if delivery.attempt == 1:
            await asyncio.sleep(3600)

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: Direct(hang_once)}, deadline_s=0.5)
    await bench.run(worker)
    await worker.messaging.publisher.publish(command(CancelBatch(batch_id=uuid4(), owner_id="x")))
    await until(lambda: attempts == [1, 2])


async def test_a_consumer_that_settles_nothing_fails_liveness(bench: Any) -> None:
    entered = asyncio.Event()

    async def ignore_cancellation(_: Delivery[CancelBatch]) -> None:
        entered.set()
        end = time.monotonic() + 2
        while time.monotonic() < end:
            try:
                await asyncio.sleep(end - time.monotonic())
            except asyncio.CancelledError:
                continue

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: Direct(ignore_cancellation)}, deadline_s=0.1)
    await bench.run(worker)
    assert worker.health.failures() == {}
    await worker.messaging.publisher.publish(command(CancelBatch(batch_id=uuid4(), owner_id="x")))
    await asyncio.wait_for(entered.wait(), 10)
    await until(lambda: f"progress-{QUEUE}" in worker.health.failures())
    await until(lambda: worker.health.failures() == {})


async def test_a_dead_background_task_fails_liveness_with_its_reason(bench: Any) -> None:
    async def die() -> None:
        raise RuntimeError("out of luck")

    worker = await bench.run(await bench.build(BATCH_PROCESSOR))
    worker.tasks.start("doomed", die())
    await until(lambda: worker.health.failures() != {})
    assert "doomed died: RuntimeError: out of luck" in worker.health.failures()["tasks"]


async def test_a_loop_that_stands_still_is_counted_and_its_stack_logged(
    bench: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    await bench.run(await bench.build(BATCH_PROCESSOR))
    before = REGISTRY.get_sample_value("tickwire_event_loop_stalls_total") or 0
    block_the_loop()
    await until(lambda: (REGISTRY.get_sample_value("tickwire_event_loop_stalls_total") or 0) > before)
    assert "block_the_loop" in capsys.readouterr().out


def block_the_loop() -> None:
    time.sleep(2)
