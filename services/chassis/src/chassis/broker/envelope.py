"""The envelope of a message's body: the properties and headers of messages sent and received."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import UUID

from pamqp.commands import Basic
from uuid_utils.compat import uuid7

from chassis import logging, shares, tracing
from chassis.deadlines import Deadline
from contracts import headers as names
from contracts import topology
from contracts.message import Command, Event, Message

M = TypeVar("M", bound=Message)


def new_id() -> UUID:
    """Return a UUIDv7: the id of a message and of its row, by which a client can poll."""
    return uuid7()


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message ready to be published. Without `persistent` it is lost when the broker restarts."""

    exchange: str
    routing_key: str
    body: bytes
    message_type: str
    message_id: str
    headers: Mapping[str, Any] = field(default_factory=dict)
    persistent: bool = True
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration_ms: int | None = None

    def message_context(self) -> AbstractContextManager[None]:
        """Run the block in the trace of this message, and log under its ids."""
        return message_context(self.message_id, self.headers)

    def properties(self) -> Basic.Properties:
        """Return the AMQP properties of this message."""
        return Basic.Properties(
            content_type="application/json",
            headers=dict(self.headers),
            delivery_mode=2 if self.persistent else 1,
            correlation_id=self.correlation_id,
            reply_to=self.reply_to,
            expiration=None if self.expiration_ms is None else str(self.expiration_ms),
            message_id=self.message_id,
            message_type=self.message_type,
        )


@dataclass(frozen=True, slots=True)
class Delivery(Generic[M]):
    """A received message that is valid by its contract, and the `body` that it was read from.

    `attempt` counts from 1.
    """

    message: M
    message_id: UUID
    attempt: int
    tenant: str
    headers: Mapping[str, Any]
    body: bytes = b""


def command(
    message: Command, *, message_id: UUID | None = None, tenant: str = "", is_bulk: bool = False
) -> Outgoing:
    """Return a command for the queue of its service, or for the bulk queue if it or `is_bulk` says so."""
    bulk_queue = message.bulk_queue if is_bulk or message.is_bulk else None
    return _durable(message, topology.COMMANDS, bulk_queue or message.queue, message_id, tenant)


def event(message: Event, *, message_id: UUID | None = None, tenant: str = "") -> Outgoing:
    """Return an event for every service that bound its routing key."""
    return _durable(message, topology.EVENTS, message.routing_key, message_id, tenant)


def live(message: Message, routing_key: str) -> Outgoing:
    """Return a transient message with live data; it may be lost."""
    return Outgoing(
        exchange=topology.LIVE,
        routing_key=routing_key,
        body=message.model_dump_json().encode(),
        message_type=message.message_type,
        message_id=str(new_id()),
        headers=stamp(),
        persistent=False,
    )


def stamp(*, tenant: str = "", deadline: Deadline | None = None) -> dict[str, Any]:
    """Return the headers of a new message: time, tenant, trace; of a request also deadline and share."""
    headers: dict[str, Any] = {names.ATTEMPT: 1, names.SENT_AT: int(time.time() * 1000)}
    if tenant:
        headers[names.TENANT] = tenant
    if deadline is not None:
        headers[names.DEADLINE] = deadline.epoch_ms()
        if share := shares.current.get():
            headers[names.SHARE] = share
    trace = tracing.current()
    if trace is not None:
        headers[names.TRACEPARENT] = trace.handed_on
        headers[names.REQUEST_ID] = trace.request_id
    return headers


@contextmanager
def message_context(message_id: str, headers: Mapping[str, Any]) -> Iterator[None]:
    """Run the block in the trace of this message, and log under its ids."""
    trace = tracing.during(text(headers, names.TRACEPARENT), text(headers, names.REQUEST_ID))
    with trace, logging.about(message_id=message_id):
        yield


def text(headers: Mapping[str, Any], name: str) -> str | None:
    """Return a header's value if it is there and is text."""
    value = headers.get(name)
    return value if isinstance(value, str) else None


def _durable(
    message: Message, exchange: str, routing_key: str, message_id: UUID | None, tenant: str
) -> Outgoing:
    return Outgoing(
        exchange=exchange,
        routing_key=routing_key,
        body=message.model_dump_json(exclude_none=True).encode(),
        message_type=message.message_type,
        message_id=str(message_id or new_id()),
        headers=stamp(tenant=tenant),
    )
