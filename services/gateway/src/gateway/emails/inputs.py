"""The queries and answers of `/v1/emails`; a mail itself is described in `contracts.mail`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, model_validator

from contracts import addresses
from contracts.addresses import BareAddress
from contracts.emails import EmailFilter, EmailStatus, MadeOf, Recipient, StoredStatus, TimelineEvent
from contracts.mail import Mail, Stream
from contracts.message import FieldError, Moment, Next
from contracts.scopes import Scope
from contracts.times import PlannedTime
from gateway.acceptance.inputs import ACCEPTED, AcceptedWork
from gateway.http.changes import Change
from gateway.http.endpoints import json
from gateway.http.excerpts import Excerpt
from gateway.http.filters import CreatedWithin, PageQuery, Several, SteppedBulk, SteppedOutline, YesOrNo

MOST_EMAILS = 500


class EmailView(BaseModel):
    """A mail as its sender sees it. `status` sums up the recipients.

    Until email has stored the mail, and while email cannot be reached, it has only a few fields. In events,
    `revision` rises with each change of its status, and is their offset.
    """

    model_config = ConfigDict(populate_by_name=True)
    id: UUID
    status: EmailStatus | Literal["parked"]
    accepted_at: Moment
    recipients: list[Recipient]
    sender: str | None = Field(default=None, alias="from")
    subject: str | None = None
    message_id: str | None = None
    tags: list[str] | None = None
    metadata: dict[str, Any] | None = None
    stream: Stream | None = None
    template: MadeOf | None = None
    send_at: Moment | None = None
    expires_at: Moment | None = None
    next: Next | None = None
    content_available: bool | None = None
    timeline: list[TimelineEvent] | None = None
    revision: int | None = None
    detail_available: bool | None = None
    reason: str | None = None


class EmailOutline(BaseModel):
    """A mail that was changed, for a key without `emails:read`."""

    id: UUID
    status: EmailStatus | Literal["parked"]
    accepted_at: Moment
    recipients: tuple[()] = ()
    send_at: Moment | None
    expires_at: Moment | None
    next: Next | None
    detail_available: Literal[False] = False


CHANGED_EMAIL = Excerpt(Scope.EMAILS_READ, EmailOutline)
CHANGED_EMAILS = Excerpt(Scope.EMAILS_READ, SteppedOutline)


class AcceptedEmail(AcceptedWork):
    """An accepted mail, and the Message-ID of all its copies."""

    message_id: str


class EmailsInput(BaseModel):
    """Up to 500 mails. `strict` accepts all or none of them, `permissive` the valid ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    emails: Annotated[list[SkipValidation[Mail]], Field(min_length=1, max_length=MOST_EMAILS)]
    mode: Literal["strict", "permissive"] = "strict"


class EmailResult(BaseModel):
    """The outcome of one of several mails; `index` is its position among them, `next` is null if refused."""

    index: int
    status: Literal["queued", "refused"]
    id: UUID | None = None
    message_id: str | None = None
    next: Next | None = None
    errors: list[FieldError] = Field(default_factory=list)


class EmailResults(BaseModel):
    """The outcome of each mail, in the order of the request."""

    accepted: int
    refused: int
    results: list[EmailResult]


ACCEPTED_EMAIL = json(AcceptedEmail, description=ACCEPTED.description, headers=ACCEPTED.headers)


class EmailChoice(CreatedWithin):
    """A filter of mails."""

    status: Several[StoredStatus] | None = None
    tag: str | None = Field(default=None, max_length=64)
    to: BareAddress | None = Field(default=None, description="only mails with this recipient")
    waiting: YesOrNo | None = Field(
        default=None,
        description="only mails whose attachments wait at the gateway (true), or only others (false)",
    )

    def wanted(self) -> EmailFilter:
        """Return the filter as the model of the contract."""
        return EmailFilter(
            status=self.status or [],
            created_after=self.created_after,
            created_before=self.created_before,
            tag=self.tag,
            # Mails have their recipients in this form, whatever way they were written.
            to=addresses.parse(self.to).address if self.to else None,
        )


class EmailsQuery(EmailChoice, PageQuery):
    """The query of `GET /v1/emails`; the cursor is the last id seen."""

    cursor: UUID | None = Field(default=None, description="`next_cursor` of the page before")  # type: ignore[assignment]  # an id, not any text


class EmailsBulk(EmailChoice, SteppedBulk):
    """The query of a bulk action on mails; those that wait at the gateway come before those of email."""

    cursor: str | None = Field(
        default=None,
        pattern="^(waiting:)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
        description="`next_cursor` of the call before",
    )

    @property
    def position(self) -> tuple[bool, UUID | None]:
        """The place of the cursor: true among mails that wait, and the id of the last mail examined."""
        place, _, identifier = (self.cursor or "waiting:").rpartition(":")
        return place == "waiting", UUID(identifier) if identifier else None


class EmailLineView(BaseModel):
    """A mail in a list. `status` is that of the last recorded outcome.

    `waiting` is true while its attachments wait at the gateway, because email or the broker is away. Until
    email has such a mail, values that email sets by default are null.
    """

    model_config = ConfigDict(populate_by_name=True)
    id: UUID
    status: StoredStatus
    sender: str | None = Field(alias="from")
    subject: str
    tags: list[str]
    accepted_at: Moment
    send_at: Moment | None
    expires_at: Moment | None
    recipient_count: int
    waiting: bool = False


class StoredEmails(BaseModel):
    """The reply to `ListEmails`, read as what is shown: nothing of a page is built twice."""

    data: list[EmailLineView]
    next_cursor: UUID | None


class EmailList(BaseModel):
    """A page of mails, newest first."""

    data: list[EmailLineView]
    next_cursor: str | None


class Rescheduling(Change):
    """The new time of a mail and, optionally, the time at which the service gives up sending it."""

    model_config = ConfigDict(frozen=True)
    thing = "mail"
    send_at: PlannedTime
    expires_at: PlannedTime | None = None

    @model_validator(mode="after")
    def _times_are_in_order(self) -> Rescheduling:
        if self.expires_at is not None and self.expires_at <= max(self.send_at, datetime.now(UTC)):
            raise ValueError("expires_at must be later than send_at, and in the future")
        return self
