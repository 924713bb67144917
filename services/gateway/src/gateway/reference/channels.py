"""Channels, messages and operations in the terms of AsyncAPI, which become parts of a document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.reference.schemas import Json, Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentedMessage:
    """One kind of message: `wrap` makes its payload from the schema of `kind`, which may be None."""

    name: str
    summary: str
    kind: Any
    mode: Mode = "serialization"
    wrap: Callable[[Json], Json] = lambda schema: schema
    content_type: str = "application/json"
    traits: tuple[str, ...] = ()

    def document(self, schema: Json) -> Json:
        """Return the message as a part of a document; `schema` is that of its kind."""
        return {
            "name": self.name,
            "summary": self.summary,
            "contentType": self.content_type,
            "payload": self.wrap(schema),
            **_given("traits", [{"$ref": f"#/components/messageTraits/{name}"} for name in self.traits]),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentedChannel:
    """A place where messages pass; without an address it is created for each use, such as a reply queue."""

    name: str
    address: str | None
    server: str
    description: str
    messages: tuple[DocumentedMessage, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    bindings: Mapping[str, Json] = field(default_factory=dict)

    def document(self) -> Json:
        """Return the channel as a part of a document."""
        return {
            "address": self.address,
            "description": self.description,
            "servers": [{"$ref": f"#/servers/{self.server}"}],
            "messages": {
                message.name: {"$ref": f"#/components/messages/{message.name}"} for message in self.messages
            },
            **_given("parameters", {name: {"description": text} for name, text in self.parameters.items()}),
            **_given("bindings", dict(self.bindings)),
        }

    def references(self, messages: Iterable[DocumentedMessage]) -> list[Json]:
        """Return references to `messages` for an operation on this channel."""
        return [{"$ref": f"#/channels/{self.name}/messages/{message.name}"} for message in messages]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentedOperation:
    """A use of a channel by a service: it sends or receives `messages`, and may reply on another channel."""

    name: str
    action: Literal["send", "receive"]
    channel: DocumentedChannel
    summary: str
    messages: tuple[DocumentedMessage, ...]
    reply: tuple[DocumentedChannel, tuple[DocumentedMessage, ...]] | None = None
    security: tuple[str, ...] = ()
    bindings: Mapping[str, Json] = field(default_factory=dict)

    def document(self) -> Json:
        """Return the operation as a part of a document."""
        found: Json = {
            "action": self.action,
            "channel": {"$ref": f"#/channels/{self.channel.name}"},
            "summary": self.summary,
            "messages": self.channel.references(self.messages),
            **_given("bindings", dict(self.bindings)),
            **_given(
                "security", [{"$ref": f"#/components/securitySchemes/{name}"} for name in self.security]
            ),
        }
        if self.reply is not None:
            channel, messages = self.reply
            found["reply"] = {
                "channel": {"$ref": f"#/channels/{channel.name}"},
                "messages": channel.references(messages),
            }
        return found


def _given(name: str, value: Json | list[Json]) -> Json:
    return {name: value} if value else {}
