"""Transient messages that are handed over together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import aiormq
import pytest

from chassis.broker.envelope import live
from chassis.broker.publisher import Publisher
from chassis.errors import BrokerUnavailable
from contracts.batches import CancelBatch
from contracts.topology import BATCH_PROCESSOR, LIVE
from support.bench import Bench
from support.waiting import until


async def test_transient_messages_arrive_in_order_and_one_that_cannot_be_encoded_is_alone(
    bench: Bench, broker_url: str
) -> None:
    worker = await bench.run(await bench.build(BATCH_PROCESSOR))
    heard: list[bytes] = []

    async def take(message: Any) -> None:
        heard.append(message.body)

    connection = await aiormq.connect(broker_url)
    channel = await connection.channel()
    queue = (await channel.queue_declare("", exclusive=True)).queue
    assert queue is not None
    key = f"burst.{uuid4()}"
    await channel.exchange_declare(LIVE, exchange_type="topic", durable=True)
    await channel.queue_bind(queue, LIVE, routing_key=key)
    await channel.basic_consume(queue, take, no_ack=True)
    messages = [live(CancelBatch(batch_id=uuid4(), owner_id="ann"), key) for _ in range(2_000)]
    broken = replace(messages[0], headers={"h": object()})
    await worker.messaging.publisher.send_together([*messages[:1_000], broken, *messages[1_000:]])
    await until(lambda: len(heard) == len(messages))
    await connection.close()
    assert heard == [message.body for message in messages]


async def test_without_a_broker_a_transient_message_is_refused() -> None:
    message = live(CancelBatch(batch_id=uuid4(), owner_id="ann"), "burst.none")
    with pytest.raises(BrokerUnavailable):
        await Publisher("amqp://127.0.0.1:1/").send_together([message])
