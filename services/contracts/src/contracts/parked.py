"""Messages about parked messages: each service handles its own, and an administrator decides about them."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import Field

from contracts.message import Contract, Event, Json, Moment, Reply, Request

ParkedState = Literal["parked", "replayed", "discarded"]


class ParkedFilter(Contract):
    """A filter of parked messages: those of `ids`, or all that match the given fields (at least one)."""

    ids: list[int] = Field(default_factory=list, max_length=10_000)
    queue: str | None = None
    message_type: str | None = None
    reason: str | None = None

    @property
    def is_empty(self) -> bool:
        """Return whether no field is given, which would match everything."""
        return not (self.ids or self.queue or self.message_type or self.reason)


class ParkedMessage(Contract):
    """A message that could not be handled, and the decision about it. `attempts` counts all tries."""

    id: int
    message_id: str
    message_type: str
    queue: str
    reason: str
    attempts: int
    first_error: str
    last_error: str
    first_sent_at: Moment | None = None
    parked_at: Moment
    state: ParkedState
    decided_at: Moment | None = None
    decided_by: str | None = None
    request_id: str | None = None


class ParkedPage(Reply):
    """A page of parked messages; `next_after` asks for the following page and is null on the last one."""

    data: list[ParkedMessage]
    next_after: int | None = None


class ListParked(Request):
    """Ask for a page of parked messages, oldest first."""

    message_type: ClassVar[str] = "parked.list.v1"
    reply: ClassVar[type[Reply]] = ParkedPage
    state: ParkedState = "parked"
    wanted: ParkedFilter = ParkedFilter()
    limit: int = Field(default=50, ge=1, le=200)
    after: int = 0


class ParkedDetail(Reply):
    """A complete parked message; `body` is its JSON, or its text if it is not JSON."""

    message: ParkedMessage
    headers: dict[str, Json]
    body: Json


class InspectParked(Request):
    """Ask for one parked message with its headers and body."""

    message_type: ClassVar[str] = "parked.inspect.v1"
    reply: ClassVar[type[Reply]] = ParkedDetail
    id: int


class ParkedCount(Reply):
    """The number of messages that wait for a decision; `replayable` of them have a valid id."""

    matching: int
    replayable: int


class CountParked(Request):
    """Ask how many messages wait for a decision; nothing is changed."""

    message_type: ClassVar[str] = "parked.count.v1"
    reply: ClassVar[type[Reply]] = ParkedCount
    wanted: ParkedFilter


class ParkedDecided(Reply):
    """The number of messages that were replayed or discarded; `skipped` ones have no valid id.

    `remaining` is the number left over because more than `most` matched.
    """

    count: int
    skipped: int = 0
    remaining: int = 0


class DiscardParked(Request):
    """Discard messages for good, the oldest `most` or all; their record stays."""

    message_type: ClassVar[str] = "parked.discard.v1"
    reply: ClassVar[type[Reply]] = ParkedDecided
    wanted: ParkedFilter
    most: int | None = Field(default=None, ge=1)
    actor: str


class ReplayParked(Request):
    """Send messages again, at most `rate_per_s` a second: the oldest `most`, or all."""

    message_type: ClassVar[str] = "parked.replay.v1"
    reply: ClassVar[type[Reply]] = ParkedDecided
    wanted: ParkedFilter
    most: int | None = Field(default=None, ge=1)
    rate_per_s: float = Field(default=50, gt=0, le=1000)
    actor: str


class ParkedChanged(Event):
    """Messages were parked (for `reason`), replayed or discarded; accepted work has its command's id."""

    message_type: ClassVar[str] = "parked.changed.v1"
    routing_key: ClassVar[str] = "parked.changed"
    state: ParkedState
    message_ids: list[UUID] = Field(max_length=1000)
    reason: str | None = None
    at: Moment
