"""The inputs and answers of alerts."""

from __future__ import annotations

from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from contracts.addresses import BareAddress
from contracts.alerts import MOST_NOTIFIED, Alert, AlertStatus, Condition
from contracts.message import Moment, Price
from contracts.stocks import Symbol
from contracts.times import PlannedTime, require_future
from gateway.http.filters import CreatedWithin, PageQuery, Several

# As in conditions: null does not stand for an absent field, and absent fields are not written.
_NOT_GIVEN: Any = Field(default_factory=lambda: None, exclude_if=lambda value: value is None)


class AlertTarget(BaseModel):
    """The target of a notification when an alert fires: an address, or the id of a webhook of yours."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"minProperties": 1, "maxProperties": 1}
    )

    email: BareAddress = _NOT_GIVEN
    webhook: UUID = _NOT_GIVEN

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.email is None) == (self.webhook is None):
            raise ValueError("must have exactly one of email, webhook")
        return self


class AlertInput(BaseModel):
    """The body of `POST /v1/alerts`. Every firing is published on the channel `alerts`."""

    model_config = ConfigDict(extra="forbid")
    symbol: Symbol
    condition: Condition
    notify: list[AlertTarget] = Field(
        default_factory=list,
        max_length=MOST_NOTIFIED,
        description="an e-mail needs the scope emails:send, a webhook webhooks:write and alerts:read; "
        "webhooks that list `alert.fired` get it anyway",
    )
    once: bool = Field(
        default=True, description="end with the first firing instead of firing on every crossing"
    )
    expires_at: Annotated[PlannedTime, AfterValidator(require_future)] | None = None


class AlertView(BaseModel):
    """A price alert. With `once` it ends with its first firing; otherwise it fires on every crossing.

    `armed` alerts are watched; `fired` and `expired` ones are over.
    """

    id: UUID
    symbol: str
    condition: Condition
    notify: list[AlertTarget]
    once: bool
    status: AlertStatus
    created_at: Moment
    expires_at: Moment | None
    fired_count: int
    last_fired_at: Moment | None
    last_price: Price | None

    @classmethod
    def of(cls, alert: Alert) -> Self:
        """Return an alert with all of its targets in the order of the request."""
        emails = (AlertTarget.model_construct(email=one.email, webhook=None) for one in alert.notify)
        targets = [
            next(emails) if webhook_id is None else AlertTarget(webhook=webhook_id)
            for webhook_id in alert.webhooks
        ]
        same = cls.model_fields.keys() - {"notify"}
        return cls(**{name: getattr(alert, name) for name in same}, notify=[*targets, *emails])


class AlertsQuery(CreatedWithin, PageQuery):
    """The query of `GET /v1/alerts`: newest first; the cursor is the last id seen."""

    status: Several[AlertStatus] | None = None
    symbol: Symbol | None = None
    cursor: UUID | None = Field(default=None, description="`next_cursor` of the page before")  # type: ignore[assignment]  # an id, not any text


class AlertList(BaseModel):
    """A page of alerts, newest first."""

    data: list[AlertView]
    next_cursor: UUID | None
