"""Consumers that die or hang silently are noticed, and restarted where that is possible."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import aiormq
import pytest
from aiormq.channel import Channel
from pamqp import commands as spec
from prometheus_client import REGISTRY

from chassis.broker.envelope import Delivery, command
from chassis.broker.handlers import Direct, InTransaction
from chassis.postgres import Connection
from contracts import headers as names
from contracts.batches import CancelBatch
from contracts.topology import BATCH_PROCESSOR
from support.bench import Bench, running
from support.waiting import until

QUEUE = "batch-processor.intake"


async def ignore(_: Connection, __: Sequence[Delivery[CancelBatch]]) -> None:
    return None


async def test_a_queue_that_is_deleted_is_declared_and_consumed_again(bench: Bench, broker_url: str) -> None:
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


async def test_the_statistics_count_the_consumers_that_the_broker_sees(bench: Bench) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(ignore)})
    await bench.run(worker)

    def consumers() -> float | None:
        return REGISTRY.get_sample_value("tickwire_queue_consumers", {"queue": QUEUE})

    await until(lambda: consumers() == 1)


async def test_a_consumer_that_only_the_broker_has_forgotten_comes_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled, consuming = asyncio.Event(), dict[str, tuple[Channel, str]]()
    consume = Channel.basic_consume

    async def note(channel: Channel, queue: str, *arguments: Any, **more: Any) -> spec.Basic.ConsumeOk:
        started = await consume(channel, queue, *arguments, **more)
        consuming[queue] = channel, started.consumer_tag or ""
        return started

    async def handle(_: Connection, __: Sequence[Delivery[CancelBatch]]) -> None:
        handled.set()

    monkeypatch.setattr(Channel, "basic_consume", note)
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(handle)})
    await bench.run(worker)
    await until(lambda: QUEUE in consuming)
    channel, tag = consuming[QUEUE]
    # Without an answer from the broker the client does not know that it has no consumer any more.
    await channel.rpc(spec.Basic.Cancel(consumer_tag=tag, nowait=True))
    await worker.messaging.publisher.publish(command(CancelBatch(batch_id=uuid4(), owner_id="x")))
    assert worker.health.reasons() == {}
    await until(lambda: f"consumer-{QUEUE}" in worker.health.reasons(), timeout_s=30)
    await asyncio.wait_for(handled.wait(), 10)
    await until(lambda: worker.health.reasons() == {})


async def test_the_expected_consumers_are_measured_until_the_stop(bench: Bench) -> None:
    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: InTransaction(ignore)})

    def expected() -> float | None:
        return REGISTRY.get_sample_value("tickwire_queue_consumers_expected", {"queue": QUEUE})

    async with running(worker):
        assert expected() == 1
    assert expected() == 0


async def test_the_age_of_a_message_counts_at_its_first_try_only(bench: Bench) -> None:
    handled: list[int] = []

    async def handle(delivery: Delivery[CancelBatch]) -> None:
        handled.append(delivery.attempt)

    def reported(what: str) -> float:
        return REGISTRY.get_sample_value(f"tickwire_message_age_seconds_{what}", {"queue": QUEUE}) or 0

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: Direct(handle)})
    await bench.run(worker)
    count, total_s = reported("count"), reported("sum")
    an_hour_ago = int((time.time() - 3600) * 1000)
    for attempt in (2, 1):
        message = command(CancelBatch(batch_id=uuid4(), owner_id="x"))
        headers = {names.SENT_AT: an_hour_ago, names.ATTEMPT: attempt}
        await worker.messaging.publisher.publish(replace(message, headers=headers))
    await until(lambda: handled == [2, 1])
    assert reported("count") == count + 1
    assert 3600 <= reported("sum") - total_s < 3660


async def test_a_worker_that_hangs_does_not_hide_behind_the_others(bench: Bench) -> None:
    hangs, released = asyncio.Event(), asyncio.Event()

    async def hang_if_told(delivery: Delivery[CancelBatch]) -> None:
        if delivery.message.owner_id != "hang":
            return
        hangs.set()
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: Direct(hang_if_told)}, concurrency=2, deadline_s=0.5)
    await bench.run(worker)

    async def is_told() -> bool:
        await worker.messaging.publisher.publish(command(CancelBatch(batch_id=uuid4(), owner_id="x")))
        return f"progress-{QUEUE}" in worker.health.failures()

    await worker.messaging.publisher.publish(command(CancelBatch(batch_id=uuid4(), owner_id="hang")))
    await asyncio.wait_for(hangs.wait(), 10)
    try:
        await until(is_told)
    finally:
        released.set()
    await until(lambda: worker.health.failures() == {})


async def test_a_handler_that_hangs_is_cut_at_its_deadline_and_its_message_retried(bench: Bench) -> None:
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


async def test_a_consumer_that_settles_nothing_fails_liveness(bench: Bench) -> None:
    entered, released = asyncio.Event(), asyncio.Event()

    async def ignore_cancellation(_: Delivery[CancelBatch]) -> None:
        entered.set()
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: Direct(ignore_cancellation)}, deadline_s=0.1)
    await bench.run(worker)
    assert worker.health.failures() == {}
    await worker.messaging.publisher.publish(command(CancelBatch(batch_id=uuid4(), owner_id="x")))
    await asyncio.wait_for(entered.wait(), 10)
    await until(lambda: f"progress-{QUEUE}" in worker.health.failures())
    released.set()
    await until(lambda: worker.health.failures() == {})


async def test_a_dead_background_task_fails_liveness_with_its_reason(bench: Bench) -> None:
    async def die() -> None:
        raise RuntimeError("out of luck")

    worker = await bench.run(await bench.build(BATCH_PROCESSOR))
    worker.tasks.start("doomed", die())
    await until(lambda: worker.health.failures() != {})
    assert "doomed died: RuntimeError: out of luck" in worker.health.failures()["tasks"]


async def test_a_loop_that_stands_still_is_counted_and_its_stack_logged(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    await bench.run(await bench.build(BATCH_PROCESSOR))
    before = REGISTRY.get_sample_value("tickwire_event_loop_stalls_total") or 0
    block_the_loop()
    await until(lambda: (REGISTRY.get_sample_value("tickwire_event_loop_stalls_total") or 0) > before)
    assert "block_the_loop" in capsys.readouterr().out


def block_the_loop() -> None:
    time.sleep(2)
