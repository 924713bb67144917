"""What administrators may ask, and what is answered."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contracts.parked import ListParked, ParkedFilter, ParkedMessage, ParkedState
from gateway.administration.signals import WindowName

Service = Literal["gateway", "stock-data", "email", "batch-processor"]


class ParkedQuery(BaseModel):
    """The query of `GET /v1/admin/parked`; pages follow each other within one service."""

    model_config = ConfigDict(extra="forbid")
    service: Service | None = None
    state: ParkedState = "parked"
    queue: str | None = Field(default=None, max_length=255)
    type: str | None = Field(default=None, max_length=255)
    reason: str | None = Field(default=None, max_length=255)
    limit: int = Field(default=50, ge=1, le=200)
    cursor: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _cursor_needs_a_service(self) -> ParkedQuery:
        if self.cursor and self.service is None:
            raise ValueError("a cursor belongs to one service: name it")
        return self

    def request(self) -> ListParked:
        """The question for one service."""
        wanted = ParkedFilter(queue=self.queue, message_type=self.type, reason=self.reason)
        return ListParked(state=self.state, wanted=wanted, limit=self.limit, after=self.cursor)


class ChoiceInput(BaseModel):
    """Which messages of a service: some ids, or all that fit."""

    model_config = ConfigDict(extra="forbid")
    service: Service
    ids: list[int] = Field(default_factory=list, max_length=10_000)
    queue: str | None = Field(default=None, max_length=255)
    type: str | None = Field(default=None, max_length=255)
    reason: str | None = Field(default=None, max_length=255)

    @model_validator(mode="after")
    def _something_is_chosen(self) -> ChoiceInput:
        if self.wanted().is_empty:
            raise ValueError("say which messages: ids, queue, type or reason")
        return self

    def wanted(self) -> ParkedFilter:
        """The choice as the contract has it."""
        return ParkedFilter(ids=self.ids, queue=self.queue, message_type=self.type, reason=self.reason)


class ReplayInput(ChoiceInput):
    """The body of `POST /v1/admin/parked/replay`."""

    rate_per_s: float = Field(default=50, gt=0, le=1000)


class StatusQuery(BaseModel):
    """The query of `GET /v1/admin/status`."""

    model_config = ConfigDict(extra="forbid")
    window: WindowName = "15m"


class ParkedView(ParkedMessage):
    """A parked message and the service whose it is."""

    service: Service


class ParkedList(BaseModel):
    """A page of parked messages; a service that did not answer is named in `errors`."""

    data: list[ParkedView]
    next_cursor: str | None
    errors: list[dict[str, str]] | None = None


class ParkedDetailView(ParkedView):
    """A parked message whole; `body` is its JSON, or its text where it is no JSON."""

    headers: dict[str, Any]
    body: Any


class Replayed(BaseModel):
    """How many messages are sent again; `skipped` cannot be, for want of a proper id."""

    replayed: int
    skipped: int


class Discarded(BaseModel):
    """How many messages were given up."""

    discarded: int


class Health(BaseModel):
    """Whether the gateway can work."""

    status: Literal["ok", "unavailable"]
