"""The requests and answers of webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from chassis.egress.destinations import MOST_CHARACTERS, URL_PATTERN, Destination, DestinationRefused
from contracts.message import Next
from gateway.http.changes import Change
from gateway.http.filters import CreatedWithin, DryRun, PageQuery, Several
from gateway.webhooks.events import TEST, TYPES

WebhookStatus = Literal["active", "disabled"]
# Final until the delivery is replayed. A delivery is withdrawn when its webhook is disabled.
EndedStatus = Literal["succeeded", "failed", "withdrawn"]
DeliveryStatus = Literal["pending"] | EndedStatus

MOST_OVERLAP_S = 7 * 86_400


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("must not name an event twice")
    return names


def _of_a_destination(url: str) -> str:
    try:
        Destination.of(url)
    except DestinationRefused as error:
        raise ValueError(error.detail) from None
    return url


EventName = Literal[TYPES]  # type: ignore[valid-type]  # made of the states of what they tell of
EventNames = Annotated[
    list[EventName],
    Field(min_length=1, max_length=len(TYPES), json_schema_extra={"uniqueItems": True}),
    AfterValidator(_distinct),
]
Url = Annotated[
    str,
    Field(
        max_length=MOST_CHARACTERS,
        # Told, and not checked by itself: `Destination` says what is wrong with a URL.
        json_schema_extra={"pattern": URL_PATTERN},
        examples=["https://example.com/tickwire"],
        description="a public server that answers within 15 s; redirects are not followed",
    ),
    AfterValidator(_of_a_destination),
]
Description = Annotated[str, Field(max_length=200)]


class WebhookInput(BaseModel):
    """The body of `POST /v1/webhooks`. Events need the scope that reads their objects, too."""

    model_config = ConfigDict(extra="forbid")
    url: Url
    events: EventNames
    description: Description = ""


class WebhookChange(Change):
    """The body of `PATCH /v1/webhooks/{webhook_id}`: what is given replaces what was.

    A webhook that becomes `disabled` gets no events, and what waits for it is withdrawn.
    """

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})
    thing = "webhook"
    url: Url | None = None
    events: EventNames | None = None
    description: Description | None = None
    status: WebhookStatus | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> WebhookChange:
        if not self.model_fields_set:
            raise ValueError("must have at least one of url, events, description, status")
        return self


class SecretRotation(BaseModel):
    """The body of `POST /v1/webhooks/{webhook_id}/rotate`."""

    model_config = ConfigDict(extra="forbid")
    overlap_s: int = Field(
        default=86_400,
        ge=0,
        le=MOST_OVERLAP_S,
        description="seconds for which requests are signed with the previous secret, too",
    )


class WebhookView(BaseModel):
    """A webhook. `failures` are the failed attempts since the last that succeeded."""

    id: UUID
    url: str
    events: list[str]
    description: str
    status: WebhookStatus
    disabled_reason: str | None
    previous_secret_until: datetime | None
    failures: int
    last_success_at: datetime | None
    last_failure_at: datetime | None
    last_failure: str | None
    created_at: datetime


class WebhookList(BaseModel):
    """A page of webhooks, newest first."""

    data: list[WebhookView]
    next_cursor: UUID | None


class WebhookSecret(BaseModel):
    """The secrets that sign the requests of a webhook, as Standard Webhooks write them."""

    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="])
    previous_secret: str | None
    previous_until: datetime | None


class DeliveryAttempt(BaseModel):
    """One request: the status of its answer and the beginning of its text, or why there was none."""

    at: datetime
    duration_ms: int
    status: int | None
    error: str | None
    answer: str | None


class WebhookDelivery(BaseModel):
    """A delivery of one event. Its id is that of the request, in `webhook-id`; every attempt has the same."""

    id: UUID
    type: str
    status: DeliveryStatus
    attempts: int
    created_at: datetime
    finished_at: datetime | None
    next: Next | None


class DeliveryDetail(WebhookDelivery):
    """A delivery with its body and its last attempts, the oldest first; `attempts` counts since a replay."""

    payload: dict[str, Any]
    history: list[DeliveryAttempt]


class DeliveryPage(BaseModel):
    """A page of deliveries, newest first. With a filter it may be empty and still have a `next_cursor`."""

    data: list[WebhookDelivery]
    next_cursor: UUID | None


class WebhooksQuery(PageQuery):
    """The query of `GET /v1/webhooks`: newest first; the cursor is the last id seen."""

    cursor: UUID | None = Field(default=None, description="`next_cursor` of the page before")  # type: ignore[assignment]  # an id, not any text


class DeliveryFilter(CreatedWithin):
    """A filter of deliveries by the types of their events."""

    type: Several[Literal[(*TYPES, TEST)]] | None = Field(  # type: ignore[valid-type]  # as above
        default=None, examples=["email.failed"]
    )


class DeliveriesQuery(DeliveryFilter, PageQuery):
    """The query of `GET /v1/webhooks/{webhook_id}/deliveries`; the cursor is the last id seen."""

    status: Several[DeliveryStatus] | None = None
    cursor: UUID | None = Field(default=None, description="`next_cursor` of the page before")  # type: ignore[assignment]  # an id, not any text


class DeliveryReplay(DeliveryFilter, DryRun):
    """The query of `POST /v1/webhooks/{webhook_id}/deliveries/replay`; without a filter all are chosen."""

    status: Several[EndedStatus] | None = Field(
        default=None, description="failed and withdrawn ones, if it is not given"
    )
    cursor: UUID | None = Field(default=None, description="`next_cursor` of the call before")
