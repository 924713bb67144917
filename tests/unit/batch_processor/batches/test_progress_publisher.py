"""The updates of batches and tasks that are pushed, and those that are left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

from batch_processor.batches.life_cycle import StoredBatch
from batch_processor.batches.progress_publisher import ProgressPublisher
from batch_processor.batches.views import ShownBatch, Surroundings, show
from chassis.broker import bundles
from chassis.broker.envelope import Outgoing
from chassis.broker.publisher import Publisher
from chassis.postgres import Postgres
from contracts.batches import BatchProgressed
from support.waiting import until

START = datetime(2026, 1, 1, tzinfo=UTC)
QUEUED = StoredBatch(
    id=UUID(int=1),
    owner_id="ann",
    kind="task",
    operation="echo",
    status="queued",
    accepted_at=START,
    total=1,
    received=1,
    revision=1,
)
DONE = replace(QUEUED, status="completed", succeeded=1, revision=2, started_at=START, finished_at=START)


class _Heard(list[BatchProgressed]):
    """Stands in for the broker: records the pushes, and the number of writes."""

    writes = 0

    async def send_together(self, messages: Sequence[Outgoing]) -> None:
        self.writes += 1
        for message in messages:
            is_bundle = message.message_type == bundles.MESSAGE_TYPE
            parts = bundles.unwrap(message.body) if is_bundle else [message]
            self.extend(BatchProgressed.model_validate_json(part.body) for part in parts)


def _publisher(heard: _Heard, *, interval_s: float) -> ProgressPublisher:
    nowhere = Postgres("postgresql://127.0.0.1:1/")
    return ProgressPublisher(nowhere, cast(Publisher, heard), upload_expires_s=60, interval_s=interval_s)


def _shown(batch: StoredBatch, *, result: str | None = None) -> ShownBatch:
    return ShownBatch(show(batch, Surroundings()), result)


@asynccontextmanager
async def _running(publisher: ProgressPublisher) -> AsyncIterator[None]:
    pushing = asyncio.create_task(publisher.run())
    try:
        yield
    finally:
        pushing.cancel()
        await asyncio.gather(pushing, return_exceptions=True)


async def test_of_a_task_that_ends_at_once_only_the_end_is_pushed() -> None:
    heard = _Heard()
    publisher = _publisher(heard, interval_s=0.2)
    async with _running(publisher):
        publisher.note(QUEUED, _shown(QUEUED))
        # Time for the loop to look: nothing is due yet.
        for _ in range(10):
            await asyncio.sleep(0)
        publisher.note(DONE, _shown(DONE))
        await until(lambda: heard)
    assert [push.batch.status for push in heard] == ["completed"]


async def test_a_task_that_waits_is_pushed_after_the_interval() -> None:
    heard = _Heard()
    publisher = _publisher(heard, interval_s=0.02)
    publisher.note(QUEUED, _shown(QUEUED))
    async with _running(publisher):
        await until(lambda: heard)
    assert [push.batch.status for push in heard] == ["queued"]


async def test_tasks_that_end_together_are_pushed_with_one_write() -> None:
    heard = _Heard()
    publisher = _publisher(heard, interval_s=0.02)
    for n in range(1, 101):
        publisher.note(replace(DONE, id=UUID(int=n)), _shown(DONE))
    async with _running(publisher):
        await until(lambda: len(heard) >= 100)
    assert (len(heard), heard.writes) == (100, 1)


async def test_a_message_to_the_gateways_is_bounded_in_bytes_however_large_results_are() -> None:
    sizes: list[int] = []

    class Measured(_Heard):
        async def send_together(self, messages: Sequence[Outgoing]) -> None:
            sizes.extend(len(message.body) for message in messages)
            await super().send_together(messages)

    heard = Measured()
    publisher = _publisher(heard, interval_s=60)
    for number in range(20):
        task = replace(DONE, id=UUID(int=number))
        publisher.note(task, _shown(task, result='"' + "x" * 200_000 + '"'))
    async with _running(publisher):
        await until(lambda: len(heard) == 20)
    assert max(sizes) < 1024 * 1024


async def test_a_push_has_the_result_of_a_task_as_it_was_stored_whatever_the_caller_has_named_alike() -> None:
    bodies: list[bytes] = []

    class Written(_Heard):
        async def send_together(self, messages: Sequence[Outgoing]) -> None:
            bodies.extend(message.body for message in messages)
            await super().send_together(messages)

    heard = Written()
    publisher = _publisher(heard, interval_s=60)
    task = replace(DONE, metadata='{"result": "\\"result\\":null"}')
    publisher.note(task, _shown(task, result='{"result":null, "price": 1.10}'))
    async with _running(publisher):
        await until(lambda: heard)
    assert heard[0].batch.result == {"result": None, "price": 1.1}
    assert heard[0].batch.metadata == {"result": '"result":null'}
    assert b'"result":{"result":null, "price": 1.10}' in bodies[0]
