"""Progress and announcements on their way to the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiormq
import pytest
from aiormq.abc import DeliveredMessage

from contracts.batches import BatchProgressed
from contracts.operations import OperationsAnnounced
from contracts.topology import LIVE
from support.batch_stack import BatchProcessors, Caller
from support.bundled import messages_in
from support.waiting import until


@pytest.fixture
async def pushes(caller: Caller, broker_url: str) -> AsyncIterator[list[BatchProgressed]]:
    """Return the progress of all batches as a gateway receives it."""
    heard: list[BatchProgressed] = []

    async def take(message: DeliveredMessage) -> None:
        heard.extend(BatchProgressed.model_validate_json(part.body) for part in messages_in(message))

    connection = await aiormq.connect(broker_url)
    channel = await connection.channel()
    queue = (await channel.queue_declare("", exclusive=True)).queue
    assert queue is not None
    await channel.exchange_declare(LIVE, exchange_type="topic", durable=True)
    await channel.queue_bind(queue, LIVE, routing_key="batch.*")
    await channel.basic_consume(queue, take, no_ack=True)
    yield heard
    await connection.close()


async def test_progress_rises_and_the_last_push_is_the_end(
    house: BatchProcessors, caller: Caller, pushes: list[BatchProgressed]
) -> None:
    await house.start(chunk_size=50)
    batch_id = await caller.submit("counted", list(range(5000)))
    await caller.reach(batch_id)
    await until(lambda: pushes and pushes[-1].batch.status == "completed")
    mine = [push for push in pushes if push.batch.id == batch_id]
    offsets = [push.offset for push in mine]
    assert offsets == sorted(set(offsets))
    assert mine[-1].batch.counts.succeeded == 5000
    assert all(push.owner_id == "ann" for push in mine)
    assert all(sum(push.batch.counts.model_dump(exclude={"total"}).values()) == 5000 for push in mine)
    # One chunk a push would be 100: they are pushed by time, not by event.
    assert len(mine) < 60


async def test_the_operations_are_announced_at_the_start(
    house: BatchProcessors, caller: Caller, broker_url: str
) -> None:
    await house.start()
    await until(caller.outbox_is_empty)
    connection = await aiormq.connect(broker_url)
    channel = await connection.channel()
    message = await channel.basic_get("gateway.events", no_ack=True)
    await connection.close()
    announced = OperationsAnnounced.model_validate_json(message.body)
    assert {"echo", "email.send"} <= {operation.name for operation in announced.operations}
    scopes = {operation.name: operation.required_scopes for operation in announced.operations}
    assert (scopes["email.send"], scopes["echo"]) == (["emails:send"], [])
