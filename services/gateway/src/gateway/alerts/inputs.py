"""The inputs and answers of alerts."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from contracts.alerts import MOST_NOTIFIED, Alert, AlertStatus, Condition, EmailTarget
from contracts.stocks import Symbol
from contracts.times import PlannedTime, require_future
from gateway.http.filters import CreatedWithin, PageQuery, Several


class AlertInput(BaseModel):
    """The body of `POST /v1/alerts`. Every firing is published on the channel `alerts`."""

    model_config = ConfigDict(extra="forbid")
    symbol: Symbol
    condition: Condition
    notify: list[EmailTarget] = Field(
        default_factory=list,
        max_length=MOST_NOTIFIED,
        description="recipient of an e-mail, which needs the scope emails:send; webhooks get `alert.fired`",
    )
    once: bool = Field(
        default=True, description="end with the first firing instead of firing on every crossing"
    )
    expires_at: Annotated[PlannedTime, AfterValidator(require_future)] | None = None


class AlertsQuery(CreatedWithin, PageQuery):
    """The query of `GET /v1/alerts`: newest first; the cursor is the last id seen."""

    status: Several[AlertStatus] | None = None
    symbol: Symbol | None = None
    cursor: UUID | None = Field(default=None, description="`next_cursor` of the page before")  # type: ignore[assignment]  # an id, not any text


class AlertList(BaseModel):
    """A page of alerts, newest first."""

    data: list[Alert]
    next_cursor: UUID | None
