"""The AsyncAPI 3 document: sockets, event streams and the messages between the services."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from itertools import chain

from contracts import headers
from gateway.http.endpoints import Endpoint
from gateway.reference import broker, schemas, sockets
from gateway.reference.channels import Channel, Message, Operation
from gateway.reference.schemas import Json, Place, Schemas
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
        "description": "RabbitMQ, between the services; never reached from outside.",
        "variables": {"host": {"default": "localhost:5672"}},
    },
}
_BROKER_HEADERS = {
    headers.SENT_AT: ("integer", "When the message was sent, in Unix milliseconds."),
    headers.ATTEMPT: ("integer", "Which try this is, from 1."),
    headers.TENANT: ("string", "The owner whose work it is."),
    headers.DEADLINE: ("integer", "Until when the sender of a request waits, in Unix milliseconds."),
    headers.REQUEST_ID: ("string", "The id of the HTTP request that it began with."),
    headers.TRACEPARENT: ("string", "The trace that it belongs to (W3C Trace Context)."),
}


def build(endpoints: Sequence[Endpoint], commands: Iterable[sockets.Command]) -> Json:
    """Return the document of sockets with `commands`, of the streams among `endpoints`, and of the broker."""
    operations = list(
        chain(sockets.operations(commands), sockets.event_streams(endpoints), broker.operations())
    )
    channels = _channels(operations)
    messages = {message.name: message for channel in channels.values() for message in channel.messages}
    found = schemas.of(
        Place(message.name, message.kind, message.mode)
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
        "channels": {name: _channel(channel) for name, channel in channels.items()},
        "operations": {operation.name: _operation(operation) for operation in operations},
        "components": {
            "messages": {name: _message(message, found) for name, message in messages.items()},
            "schemas": dict(sorted(found.models.items())),
            "messageTraits": {"broker": _trait()},
            "securitySchemes": SCHEMES,
        },
    }


def _channels(operations: Iterable[Operation]) -> dict[str, Channel]:
    found: dict[str, Channel] = {}
    for operation in operations:
        found[operation.channel.name] = operation.channel
        if operation.reply is not None:
            channel, _ = operation.reply
            found[channel.name] = channel
    return found


def _channel(channel: Channel) -> Json:
    return {
        "address": channel.address,
        "description": channel.description,
        "servers": [{"$ref": f"#/servers/{channel.server}"}],
        "messages": {
            message.name: {"$ref": f"#/components/messages/{message.name}"} for message in channel.messages
        },
        **_given("parameters", {name: {"description": text} for name, text in channel.parameters.items()}),
        **_given("bindings", dict(channel.bindings)),
    }


def _operation(operation: Operation) -> Json:
    found: Json = {
        "action": operation.action,
        "channel": {"$ref": f"#/channels/{operation.channel.name}"},
        "summary": operation.summary,
        "messages": _references(operation.channel, operation.messages),
        **_given("bindings", dict(operation.bindings)),
        **_given(
            "security",
            [{"$ref": f"#/components/securitySchemes/{name}"} for name in operation.security],
        ),
    }
    if operation.reply is not None:
        channel, messages = operation.reply
        found["reply"] = {
            "channel": {"$ref": f"#/channels/{channel.name}"},
            "messages": _references(channel, messages),
        }
    return found


def _references(channel: Channel, messages: Iterable[Message]) -> list[Json]:
    return [{"$ref": f"#/channels/{channel.name}/messages/{message.name}"} for message in messages]


def _message(message: Message, found: Schemas) -> Json:
    return {
        "name": message.name,
        "summary": message.summary,
        "contentType": message.content_type,
        "payload": message.wrap(found.by_place.get(message.name, {})),
        **_given("traits", [{"$ref": f"#/components/messageTraits/{name}"} for name in message.traits]),
    }


def _trait() -> Json:
    properties = {
        name: {"type": kind, "description": description}
        for name, (kind, description) in _BROKER_HEADERS.items()
    }
    return {"headers": {"type": "object", "properties": properties}}


def _given(name: str, value: Json | list[Json]) -> Json:
    return {name: value} if value else {}
