"""All that services publish, as the broker's own tracing shows it: a tap that no publisher can miss."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiormq
from aiormq.abc import DeliveredMessage

from chassis.broker import bundles
from native.rabbitmq import VHOST, RabbitMQ

_TRACE = "amq.rabbitmq.trace"


@dataclass(frozen=True)
class Sent:
    """A message as the broker took it, out of its bundle: its publisher, destination and content."""

    user: str
    exchange: str
    routing_key: str
    message_type: str
    content_type: str
    headers: Mapping[str, Any]
    body: bytes
    queues: tuple[str, ...]
    reply_to: str | None
    correlation_id: str | None


@asynccontextmanager
async def recording(rabbitmq: RabbitMQ) -> AsyncIterator[list[Sent]]:
    """Yield the list of what is published from now on; it grows until the end of the block."""
    sent: list[Sent] = []

    async def record(message: DeliveredMessage) -> None:
        sent.extend(_messages_in(message))

    await rabbitmq.control("trace_on", "-p", VHOST)
    connection = await aiormq.connect(rabbitmq.url)
    try:
        channel = await connection.channel()
        queue = (await channel.queue_declare(exclusive=True)).queue or ""
        await channel.queue_bind(queue, _TRACE, routing_key="publish.#")
        await channel.basic_consume(queue, record, no_ack=True)
        yield sent
    finally:
        await connection.close()
        await rabbitmq.control("trace_off", "-p", VHOST)


def _messages_in(message: DeliveredMessage) -> list[Sent]:
    traced: Any = message.header.properties.headers
    properties = traced["properties"]
    whole = bundles.Part(
        properties.get("type", ""),
        properties.get("message_id", ""),
        properties.get("headers", {}),
        message.body,
    )
    parts = bundles.unwrap(whole.body) if whole.message_type == bundles.MESSAGE_TYPE else [whole]
    return [
        Sent(
            user=traced["user"],
            exchange=traced["exchange_name"],
            routing_key=traced["routing_keys"][0],
            message_type=part.message_type,
            content_type=properties.get("content_type", ""),
            headers=part.headers,
            body=part.body,
            queues=tuple(traced["routed_queues"]),
            reply_to=properties.get("reply_to"),
            correlation_id=properties.get("correlation_id"),
        )
        for part in parts
    ]
