"""Messages of email: the command to send, its state per recipient, and what happened to it."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal, Self
from uuid import UUID

from pydantic import Field

from contracts.mail import Mail
from contracts.message import Command, Contract, Event, Json, Moment, Reply, Request
from contracts.topology import EMAIL

# An ambiguous recipient, whose mail the relay may have taken, is tried again; a held one waits for somebody
# to decide about it.
RecipientStatus = Literal[
    "queued", "sending", "delivered", "deferred", "held", "failed", "suppressed", "expired", "cancelled",
    "ambiguous",
]  # fmt: skip
EmailStatus = Literal[
    "queued", "sending", "delivered", "partially_delivered", "deferred", "held", "failed", "cancelled",
    "expired",
]  # fmt: skip
RecipientKind = Literal["to", "cc", "bcc"]


class Attachment(Contract):
    """A file in a mail; `content` is base64, `content_id` makes it inline."""

    filename: str
    content: str
    content_type: str = "application/octet-stream"
    content_id: str | None = None


class SendEmail(Command):
    """Send one mail. Addresses are bare or `Name <address>`; at least one of `text` and `html` is given.

    The fields are those of `Mail`, unchecked: a mail that was promised and cannot be sent is recorded as
    failed with the reason, not parked as unreadable.
    """

    message_type: ClassVar[str] = "email.send.v1"
    queue: ClassVar[str] = "email.send"
    senders: ClassVar[tuple[str, ...]] = ("gateway", "batch-processor")
    email_id: UUID
    owner_id: str
    sender: str | None = None
    to: list[str] = Field(default_factory=list)
    cc: list[str] = Field(default_factory=list)
    bcc: list[str] = Field(default_factory=list)
    reply_to: str | None = None
    subject: str = ""
    text: str | None = None
    html: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    attachments: list[Attachment] = Field(default_factory=list)
    tags: list[str] = Field(default_factory=list)
    metadata: dict[str, Json] = Field(default_factory=dict)
    accepted_at: Moment
    send_at: Moment | None = None
    expires_at: Moment | None = None

    @classmethod
    def of(cls, mail: Mail, *, email_id: UUID, owner_id: str, accepted_at: datetime) -> Self:
        """Return the command to send `mail`."""
        return cls(email_id=email_id, owner_id=owner_id, accepted_at=accepted_at, **mail.model_dump())


class Attempt(Contract):
    """One try to hand a mail to an SMTP server, with the server's own words."""

    at: Moment
    host: str
    outcome: RecipientStatus
    smtp_code: int | None = None
    smtp_reply: str
    tls: bool = False


class Recipient(Contract):
    """One envelope recipient and what has happened to it."""

    address: str
    kind: RecipientKind
    status: RecipientStatus
    next_attempt_at: Moment | None = None
    attempts: list[Attempt] = Field(default_factory=list)


class Email(Reply):
    """A mail, its recipients and their attempts. `status` sums the recipients up."""

    id: UUID
    status: EmailStatus
    sender: str
    subject: str
    tags: list[str] = Field(default_factory=list)
    metadata: dict[str, Json] = Field(default_factory=dict)
    accepted_at: Moment
    send_at: Moment | None = None
    expires_at: Moment | None = None
    recipients: list[Recipient]


class GetEmail(Request):
    """Ask for a mail of `owner_id`; another owner's mail is not found."""

    message_type: ClassVar[str] = "email.get.v1"
    reply: ClassVar[type[Reply]] = Email
    service: ClassVar[str] = EMAIL
    email_id: UUID
    owner_id: str


class EmailCounts(Reply):
    """Number of mails by status."""

    counts: dict[str, int]


class CountEmails(Request):
    """Ask how many mails `owner_id` has in each status."""

    message_type: ClassVar[str] = "email.count.v1"
    reply: ClassVar[type[Reply]] = EmailCounts
    service: ClassVar[str] = EMAIL
    owner_id: str


class EmailStatusChanged(Event):
    """A mail's summed-up status changed (exchange `events`)."""

    message_type: ClassVar[str] = "email.status-changed.v1"
    routing_key: ClassVar[str] = "email.status-changed"
    email_id: UUID
    owner_id: str
    status: EmailStatus
    at: Moment
