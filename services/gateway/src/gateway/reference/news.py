"""The announcements of services over the broker: events, and transient updates for user interfaces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from contracts import topology
from contracts.message import Event, LiveMessage, Message
from gateway.reference import broker
from gateway.reference.channels import DocumentedChannel, DocumentedOperation

_EVENT = "Something that happened; durable, through the outbox."
_LIVE = "Live updates for user interfaces; transient, and lost if no gateway listens."


def operations() -> Iterator[DocumentedOperation]:
    """Yield the events that each service announces, and those that it consumes from the others."""
    for kind in broker.messages():
        if issubclass(kind, Event):
            yield from _of_event(kind)
        elif issubclass(kind, LiveMessage):
            channel = _channel(topology.LIVE, kind.routing_key, kind, _LIVE)
            for service in kind.receivers:
                yield _use(service, "receive", channel, f"Each replica of {service} gets it.")
            for service in kind.senders:
                yield _use(service, "send", channel, f"{service} publishes it.")


def _of_event(kind: type[Event]) -> Iterator[DocumentedOperation]:
    key = kind.routing_key
    channel = _channel(topology.EVENTS, key, kind, _EVENT)
    for service, owned in topology.TOPOLOGIES.items():
        for queue in owned.queues:
            is_bound = any(broker.binds(pattern, key) for pattern in queue.keys)
            if queue.exchange == topology.EVENTS and is_bound:
                summary = f"{service} consumes {key} from its queue {queue.name}."
                yield _use(service, "receive", channel, summary)
        if key.partition(".")[0] in owned.events:
            yield _use(service, "send", channel, f"{service} announces {key}.")


def _channel(exchange: str, key: str, kind: type[Message], description: str) -> DocumentedChannel:
    parts = re.findall(r"{(\w+)}", key)
    return DocumentedChannel(
        # What is in braces is no part of a name, which is a part of references.
        name=key.partition(".{")[0],
        address=key,
        server=broker.SERVER,
        description=description,
        messages=(broker.message(kind),),
        parameters={
            name: f"The `{name}` of what the message is about; `several` for a bundle." for name in parts
        },
        bindings={
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": exchange, "type": "topic", "durable": True, "autoDelete": False},
                "bindingVersion": broker.BINDING_VERSION,
            }
        },
    )


def _use(
    service: str, action: Literal["send", "receive"], channel: DocumentedChannel, summary: str
) -> DocumentedOperation:
    return DocumentedOperation(
        name=f"{service}.{action}.{channel.name}",
        action=action,
        channel=channel,
        summary=summary,
        messages=channel.messages,
    )
