"""The inputs and answers of administration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contracts.parked import ListParked, ParkedFilter, ParkedMessage, ParkedState
from contracts.pauses import Pause
from contracts.topology import ServiceName
from gateway.administration.signals import WindowName
from gateway.http.filters import Bulk, Filter, Id, PageById, Several, written_as


class ParkedChoice(Filter):
    """A filter of parked messages; ids are unique only within one service."""

    ids: Several[Id] | None = Field(default=None, examples=["1,2"])
    queue: str | None = Field(default=None, max_length=255)
    type: str | None = Field(default=None, max_length=255)
    reason: str | None = Field(default=None, max_length=255)

    def wanted(self) -> ParkedFilter:
        """Return the filter as the model of the contract."""
        return ParkedFilter(ids=self.ids or [], queue=self.queue, message_type=self.type, reason=self.reason)


class ParkedQuery(ParkedChoice, PageById):
    """The query of `GET /v1/admin/parked`; a cursor continues the list of one service."""

    service: ServiceName | None = Field(default=None, examples=["email"])
    state: ParkedState = "parked"

    @model_validator(mode="after")
    def _one_service_is_named(self) -> ParkedQuery:
        if (self.cursor or self.ids) and self.service is None:
            raise ValueError("ids and a cursor belong to one service: add the parameter service")
        return self

    def request(self) -> ListParked:
        """Return the request to one service."""
        return ListParked(state=self.state, wanted=self.wanted(), limit=self.limit, after=self.cursor or 0)


class DiscardQuery(ParkedChoice, Bulk):
    """The query of `POST /v1/admin/parked/discard`."""

    service: ServiceName


class ReplayQuery(ParkedChoice, Bulk):
    """The query of `POST /v1/admin/parked/replay`; one call sends at most `rate_per_s` a second."""

    service: ServiceName
    rate_per_s: Annotated[float, written_as(r"[0-9]{1,4}(\.[0-9]{1,6})?", "a decimal number")] = Field(
        default=50, gt=0, le=1000
    )


class StatusQuery(BaseModel):
    """The query of `GET /v1/admin/status`."""

    model_config = ConfigDict(extra="forbid")
    window: WindowName = "15m"


class ParkedView(ParkedMessage):
    """A parked message and the service that it belongs to."""

    service: ServiceName


class ParkedList(BaseModel):
    """A page of parked messages; a service that did not answer is named in `errors`."""

    data: list[ParkedView]
    next_cursor: str | None
    errors: list[dict[str, str]] | None = None


class ParkedDetailView(ParkedView):
    """A complete parked message; `body` is its JSON, or its text if it is not JSON."""

    headers: dict[str, Any]
    body: Any


class PauseInput(BaseModel):
    """The body of a pause."""

    model_config = ConfigDict(extra="forbid")
    reason: str = Field(default="", max_length=500, examples=["the provider is down"])


class PauseList(BaseModel):
    """The paused operations and owners."""

    data: list[Pause]
    next_cursor: None = None


class GatewayHealth(BaseModel):
    """The readiness of the gateway."""

    status: Literal["ok", "unavailable"]
