"""The AsyncAPI 3 document: sockets, event streams and the messages between the services."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from itertools import chain

from gateway.http.endpoints import Endpoint
from gateway.reference import broker, envelopes, news, schemas, sockets
from gateway.reference.channels import DocumentedChannel
from gateway.reference.schemas import Json, SchemaPlace
from gateway.reference.security import SCHEMES

_SERVERS: Json = {
    sockets.SERVER: {
        "host": "{host}",
        "protocol": "ws",
        "description": "The gateway: WebSockets, and streams of server-sent events over HTTP.",
        "variables": {"host": {"default": "localhost:8080"}},
    },
    broker.SERVER: {
        "host": "{host}",
        "protocol": "amqp",
        "protocolVersion": "0-9-1",
        "description": "RabbitMQ, between the services; not accessible from outside. Messages that wait for "
        "one destination travel together, as one message of the type `bundle.v1`: a line of JSON with the "
        "type, id, headers and length of each, and then their bodies. A message `probe` without a body, "
        "which no queue receives, only shows its sender that the broker accepts messages.",
        "variables": {"host": {"default": "localhost:5672"}},
    },
}


def build(endpoints: Sequence[Endpoint], commands: Iterable[sockets.DocumentedCommand]) -> Json:
    """Return the document of the sockets with `commands`, the streams among `endpoints`, and the broker."""
    operations = list(
        chain(
            sockets.operations(commands),
            sockets.lobby(),
            sockets.event_streams(endpoints),
            broker.operations(),
            news.operations(),
        )
    )
    channels: dict[str, DocumentedChannel] = {}
    for operation in operations:
        used = [operation.channel, *([operation.reply[0]] if operation.reply else [])]
        channels |= {channel.name: channel for channel in used}
    messages = {message.name: message for channel in channels.values() for message in channel.messages}
    found = schemas.of(
        SchemaPlace(message.name, message.kind, message.mode)
        for message in messages.values()
        if message.kind is not None
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tickwire messages",
            "version": version("tickwire-gateway"),
            "description": "Sockets, event streams, and the messages between the services. "
            "The HTTP API is described at `/openapi.json`.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": _SERVERS,
        "channels": {name: channel.document() for name, channel in channels.items()},
        "operations": {operation.name: operation.document() for operation in operations},
        "components": {
            "messages": {
                name: message.document(found.by_place.get(name, {})) for name, message in messages.items()
            },
            "schemas": dict(sorted(found.models.items())),
            "messageTraits": dict(envelopes.TRAITS),
            "securitySchemes": SCHEMES,
        },
    }
