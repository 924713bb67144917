"""The base of every message: a frozen pydantic model with a versioned type name and a destination."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, ClassVar, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

# Exact for market prices: a decimal of up to 15 significant digits is the same after conversion to a float.
Price = Annotated[Decimal, PlainSerializer(float, return_type=float, when_used="json")]
# Whole numbers as integers, all others as floats.
AS_NUMBER = PlainSerializer(
    lambda number: int(number) if number == int(number) else float(number),
    return_type=int | float,
    when_used="json",
)
Json = Any


# In JSON as RFC 3339 writes it, with `Z` for UTC.
Moment = AwareDatetime


class Contract(BaseModel):
    """A part of a message. Unknown fields are ignored, so that an older reader understands a newer sender."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")


class Message(Contract):
    """Anything sent over the broker; `message_type` names its shape and version."""

    message_type: ClassVar[str]

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Return the message in the bytes that were delivered. Raise `ValidationError`."""
        return cls.model_validate_json(body)


class Command(Message):
    """Accepted work: durable, delivered at least once, and handled idempotently by the owner of the queue.

    Commands that come in masses go to `bulk_queue`, if there is one, so that no other command waits behind
    them. Of those that came to `queue`, its owner moves what one tenant has too much of to `excess_queue`.
    `senders` are the services that send it.
    """

    queue: ClassVar[str]
    bulk_queue: ClassVar[str | None] = None
    excess_queue: ClassVar[str | None] = None
    senders: ClassVar[tuple[str, ...]] = ("gateway",)

    @property
    def is_bulk(self) -> bool:
        """Whether the command is one of very many that may wait behind others."""
        return False


class Event(Message):
    """Something that happened. It goes through the outbox to every service that has bound the routing key."""

    routing_key: ClassVar[str]


class LiveMessage(Message):
    """Transient news for user interfaces (exchange `live`), which may be lost.

    `routing_key` may have a part in braces, which is different for each message. `senders` publish it, and
    each replica of `receivers` gets it.
    """

    routing_key: ClassVar[str]
    senders: ClassVar[tuple[str, ...]]
    receivers: ClassVar[tuple[str, ...]] = ("gateway",)


class Reply(Contract):
    """The answer to a request."""


class Request(Message):
    """A question whose caller waits; `service` answers with a `reply` or a `Failure`, or not at all."""

    service: ClassVar[str]
    reply: ClassVar[type[Reply]]


class Next(Contract):
    """The next step, and the time by which it happens; without `by` there is no deadline."""

    what: str
    by: Moment | None


class FieldError(Contract):
    """An error in one part of an input: a JSON pointer (RFC 6901) and a message."""

    pointer: str
    detail: str


class Failure(Reply):
    """The answer to a request that failed: the error's code, HTTP status, whether trying again helps, and
    after how many seconds."""

    code: str
    status: int
    title: str
    detail: str
    retryable: bool = False
    retry_after_s: float | None = None
    errors: list[FieldError] = Field(default_factory=list)
