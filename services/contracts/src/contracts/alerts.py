"""Price alerts: their conditions, the requests about them, and the event that one has fired."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Self, get_args
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from contracts.addresses import BareAddress
from contracts.message import AS_NUMBER, Contract, Event, Moment, Price, Reply, Request
from contracts.topology import STOCK_DATA

AlertStatus = Literal["armed", "fired", "expired"]
ConditionKind = Literal["above", "below", "crosses", "change_percent"]
CONDITION_KINDS: tuple[ConditionKind, ...] = get_args(ConditionKind)
MOST_NOTIFIED = 5


def _number(value: object) -> Decimal:
    # Through its text: `Decimal` of a float has digits that nobody wrote.
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("must be a number")
    return Decimal(str(value))


Threshold = Annotated[
    Decimal,
    Field(gt=0, max_digits=15, decimal_places=6),
    BeforeValidator(_number, json_schema_input_type=Annotated[float, Field(gt=0)]),
    AS_NUMBER,
]
PercentThreshold = Annotated[
    Decimal,
    Field(gt=-100, lt=100_000, max_digits=15, decimal_places=6),
    BeforeValidator(_number, json_schema_input_type=Annotated[float, Field(gt=-100, lt=100_000)]),
    AS_NUMBER,
]
# Null does not stand for an absent field, and absent fields are not written: a condition is returned as sent.
_NOT_GIVEN: Any = Field(default_factory=lambda: None, exclude_if=lambda value: value is None)


class Condition(BaseModel):
    """When an alert fires: exactly one of these. A crossing counts, not a price beyond the threshold.

    `above`: the price rises above the threshold; `below`: it falls below it; `crosses`: either of the two;
    `change_percent`: the change since the previous close passes the threshold, away from zero.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"minProperties": 1, "maxProperties": 1}
    )

    above: Threshold = _NOT_GIVEN
    below: Threshold = _NOT_GIVEN
    crosses: Threshold = _NOT_GIVEN
    change_percent: PercentThreshold = _NOT_GIVEN

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        given = [kind for kind in CONDITION_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"must have exactly one of {', '.join(CONDITION_KINDS)}")
        if self.change_percent == 0:
            raise ValueError("change_percent must not be 0, the value at the start of each day")
        return self

    @property
    def kind(self) -> ConditionKind:
        """The one condition that is given."""
        return next(kind for kind in CONDITION_KINDS if getattr(self, kind) is not None)

    @property
    def threshold(self) -> Decimal:
        """The number that the condition compares with."""
        found: Decimal = getattr(self, self.kind)
        return found


class EmailTarget(BaseModel):
    """An address that receives an e-mail when the alert fires."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    email: BareAddress


def as_stored(value: object) -> object:
    """Return a target that was accepted before as it is: newer rules must not make it unreadable."""
    match value:
        case {"email": str() as email}:
            return EmailTarget.model_construct(email=email)
        case _:
            return value


StoredTarget = Annotated[EmailTarget, BeforeValidator(as_stored)]
# One element for each target of an alert, in the order of the request: a webhook, or None in the place of an
# e-mail. Empty without webhooks. A field of its own, so that older readers still understand the e-mails.
WebhookTargets = list[UUID | None]


class Firing(Contract):
    """One firing of an alert, on the tick of `as_of`; `offset` counts the firings of its owner from 1."""

    id: UUID
    offset: int
    alert_id: UUID
    symbol: str
    condition: Condition
    price: Price
    change_percent: Price | None = None
    as_of: Moment
    source: str
    simulated: bool


class Alert(Reply):
    """A price alert. With `once` it ends with its first firing; otherwise it fires on every crossing.

    `armed` alerts are watched; `fired` and `expired` ones are over.
    """

    id: UUID
    symbol: str
    condition: Condition
    notify: list[StoredTarget]
    webhooks: WebhookTargets = Field(default_factory=list)
    once: bool
    status: AlertStatus
    created_at: Moment
    expires_at: Moment | None = None
    fired_count: int = 0
    last_fired_at: Moment | None = None
    last_price: Price | None = None


class CreateAlert(Request):
    """Store an alert of `owner_id`, created with the credential `made_by`.

    A repeated `request_key` of an owner returns the first alert.
    """

    message_type: ClassVar[str] = "alerts.create.v1"
    reply: ClassVar[type[Reply]] = Alert
    service: ClassVar[str] = STOCK_DATA
    alert_id: UUID
    owner_id: str
    made_by: str
    request_key: str | None = None
    symbol: str
    condition: Condition
    notify: list[EmailTarget] = Field(default_factory=list, max_length=MOST_NOTIFIED)
    webhooks: WebhookTargets = Field(default_factory=list)
    once: bool = True
    expires_at: Moment | None = None


class GetAlert(Request):
    """Ask for an alert of `owner_id`; another owner's is not found."""

    message_type: ClassVar[str] = "alerts.get.v1"
    reply: ClassVar[type[Reply]] = Alert
    service: ClassVar[str] = STOCK_DATA
    alert_id: UUID
    owner_id: str


class DeleteAlert(Request):
    """End an alert of `owner_id`; the answer is its last state. After the answer it never fires."""

    message_type: ClassVar[str] = "alerts.delete.v1"
    reply: ClassVar[type[Reply]] = Alert
    service: ClassVar[str] = STOCK_DATA
    alert_id: UUID
    owner_id: str


class Alerts(Reply):
    """A page of alerts; the next one begins behind `next_cursor`."""

    data: list[Alert]
    next_cursor: UUID | None


class ListAlerts(Request):
    """Ask for alerts of `owner_id`, newest first, those before the id `before`."""

    message_type: ClassVar[str] = "alerts.list.v1"
    reply: ClassVar[type[Reply]] = Alerts
    service: ClassVar[str] = STOCK_DATA
    owner_id: str
    symbol: str | None = None
    status: list[AlertStatus] = Field(default_factory=list)
    created_after: Moment | None = None
    created_before: Moment | None = None
    before: UUID | None = None
    limit: int = Field(default=50, ge=1, le=200)


class Firings(Reply):
    """Firings of an owner, and the position of the newest one; offsets start again in a new epoch."""

    epoch: str
    offset: int
    data: list[Firing]


class ListFirings(Request):
    """Ask for firings of `owner_id` between two offsets, both excluded; without bounds, for all."""

    message_type: ClassVar[str] = "alerts.list-firings.v1"
    reply: ClassVar[type[Reply]] = Firings
    service: ClassVar[str] = STOCK_DATA
    owner_id: str
    after: int | None = None
    before: int | None = None
    newest_first: bool = False
    limit: int = Field(default=300, ge=0, le=300)


class AlertFired(Event):
    """An alert has fired (exchange `events`). `made_by` is the credential that created the alert.

    `epoch` and the offset of `firing` are its place among the firings of its owner.
    """

    message_type: ClassVar[str] = "alert.fired.v1"
    routing_key: ClassVar[str] = "alert.fired"
    owner_id: str
    made_by: str
    epoch: str
    firing: Firing
    notify: list[StoredTarget]
    webhooks: WebhookTargets = Field(default_factory=list)


def status_of(*, once: bool, fired_count: int, expires_at: datetime | None, now: datetime) -> AlertStatus:
    """Return the status of an alert at `now`."""
    if once and fired_count:
        return "fired"
    return "expired" if expires_at is not None and expires_at <= now else "armed"
