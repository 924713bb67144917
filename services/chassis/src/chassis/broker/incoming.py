"""A message as it was delivered, and its validation by the contract."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from aiormq.abc import AbstractChannel, DeliveredMessage
from prometheus_client import Histogram

from chassis import exemplars, logging, redaction, tracing
from chassis.broker import bundles
from chassis.broker.bundles import BrokenBundle
from chassis.broker.envelope import Delivery, Outgoing, message_context, text
from chassis.errors import ServiceError
from contracts import headers as names
from contracts.message import Message
from contracts.topology import own_exchange

_DETAIL_LENGTH = 500


class Undecodable(ServiceError):
    """The message's body does not fit the contract."""

    code = "undecodable"


class UnknownType(ServiceError):
    """No handler here knows the type of the message; a newer release may."""

    code = "unknown-type"

    def __init__(self, message_type: str) -> None:
        super().__init__(
            f"This release does not know messages of type {message_type!r:.200}: is a rolling upgrade in"
            " progress?"
        )


@dataclass(slots=True, eq=False)
class Bundled:
    """The common state of a bundle's parts: how many are not settled, and whether to redeliver them."""

    unsettled: int
    comes_again: bool = False
    has_failed: bool = False


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message as it was delivered, the channel on which to settle it, and its bundle's state if any."""

    channel: AbstractChannel
    tag: int
    body: bytes
    message_type: str
    message_id: str
    headers: Mapping[str, Any]
    delivery: Delivery[Any] | None = None
    bundled: Bundled | None = None

    @classmethod
    def of(cls, message: DeliveredMessage) -> Incoming:
        """Return a message that aiormq delivered."""
        properties = message.header.properties
        assert message.delivery_tag is not None
        return cls(
            channel=message.channel,
            tag=message.delivery_tag,
            body=message.body,
            message_type=properties.message_type or "",
            message_id=properties.message_id or "",
            headers=properties.headers or {},
        )

    def parts(self) -> list[Incoming]:
        """Return the messages of this bundle, each of which must be settled, or else this message.

        Raise `Undecodable` for a bundle that cannot be read.
        """
        if self.message_type != bundles.MESSAGE_TYPE:
            return [self]
        try:
            parts = bundles.unwrap(self.body)
        except BrokenBundle as error:
            raise Undecodable(error.detail) from error
        bundled = Bundled(len(parts))
        return [
            Incoming(self.channel, self.tag, p.body, p.message_type, p.message_id, p.headers, bundled=bundled)
            for p in parts
        ]

    def alone(self, service: str, queue: str) -> Outgoing:
        """Return a copy of this message for `queue` of `service`, outside of any bundle."""
        return Outgoing(
            own_exchange(service), queue, self.body, self.message_type, self.message_id, self.headers
        )

    @property
    def attempt(self) -> int:
        """Return the number of this attempt, from 1."""
        value = self.headers.get(names.ATTEMPT, 1)
        return value if isinstance(value, int) and value >= 1 else 1

    @property
    def traceparent(self) -> str | None:
        """Return the trace in which the message was made; it survives retries, parking and replay."""
        return text(self.headers, names.TRACEPARENT)

    def message_context(self) -> AbstractContextManager[None]:
        """Run the block in the trace of this message, and log under its ids."""
        return message_context(self.message_id, self.headers)

    @property
    def unknown_waits(self) -> int:
        """The number of times that the message has waited because its type was unknown."""
        waits = self.headers.get(names.UNKNOWN_WAITS)
        return waits if isinstance(waits, int) and waits > 0 else 0

    def observe_age(self, ages: Histogram) -> None:
        """Measure in `ages` how long the message has waited in its queue."""
        sent_at = self.headers.get(names.SENT_AT)
        # The age of a retry comes from its wait on the ladder and says nothing about the queue.
        is_first = self.headers.get(names.ATTEMPT, 1) == 1 and not self.unknown_waits
        if isinstance(sent_at, int) and is_first:
            age_s = max(0.0, time.time() - sent_at / 1000)
            ages.observe(age_s, exemplars.of_messages(self.traceparent))

    def fit(self, contract: type[Message] | None) -> Incoming:
        """Return this message validated, with its delivery.

        Raise `UnknownType` without a contract, and `Undecodable`, without quoting the body.
        """
        if contract is None:
            raise UnknownType(self.message_type)
        try:
            message = contract.read(self.body)
            message_id = UUID(self.message_id)
        except Exception as error:  # a validator of the contract may raise anything
            raise Undecodable(
                f"{self.message_type}: {redaction.safe_message(error)}"[:_DETAIL_LENGTH]
            ) from error
        tenant = str(self.headers.get(names.TENANT, ""))
        delivery = Delivery(message, message_id, self.attempt, tenant, self.headers, self.body)
        # Like `replace`, which takes as long as the validation.
        return Incoming(
            self.channel,
            self.tag,
            self.body,
            self.message_type,
            self.message_id,
            self.headers,
            delivery,
            self.bundled,
        )


def context_of(group: Sequence[Incoming]) -> AbstractContextManager[object]:
    """Run the block in the trace of the group's only message, or, for several, in no trace.

    Work for several messages belongs to none of their traces.
    """
    if len(group) == 1:
        return group[0].message_context()
    context = ExitStack()
    context.enter_context(tracing.none())
    context.enter_context(logging.about(messages=len(group)))
    return context
