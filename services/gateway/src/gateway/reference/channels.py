"""Channels, messages and operations as AsyncAPI knows them, before they are written as a document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.reference.schemas import Json, Mode


def _unwrapped(schema: Json) -> Json:
    return schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One kind of message: `wrap` makes its payload from the schema of `kind`, which may be None."""

    name: str
    summary: str
    kind: Any
    mode: Mode = "serialization"
    wrap: Callable[[Json], Json] = _unwrapped
    content_type: str = "application/json"
    traits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A place where messages pass; an address of None is made for each use, such as a reply queue."""

    name: str
    address: str | None
    server: str
    description: str
    messages: tuple[Message, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    bindings: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A use of a channel by a service: it sends or receives `messages`, and may reply on another channel."""

    name: str
    action: Literal["send", "receive"]
    channel: Channel
    summary: str
    messages: tuple[Message, ...]
    reply: tuple[Channel, tuple[Message, ...]] | None = None
    security: tuple[str, ...] = ()
    bindings: Mapping[str, Json] = field(default_factory=dict)
