"""Messages of email: the command to send a mail, its state per recipient, and its history."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal, Self, get_args
from uuid import UUID

from pydantic import Field

from contracts.mail import Mail, RecipientKind, Stream
from contracts.message import Command, Contract, Event, Json, Moment, Next, Reply, Request
from contracts.topology import EMAIL

# An `ambiguous` recipient, whose mail the relay may have accepted, is tried again; a `held` one waits for a
# decision by an operator.
RecipientStatus = Literal[
    "queued", "sending", "delivered", "deferred", "held", "failed", "suppressed", "expired", "cancelled",
    "ambiguous",
]  # fmt: skip
EmailStatus = Literal[
    "queued", "sending", "delivered", "partially_delivered", "deferred", "held", "failed", "suppressed",
    "cancelled", "expired",
]  # fmt: skip
EventKind = Literal["accepted", "attempt", "expired", "cancelled", "retried", "rescheduled", "bounced"]
# Final: a mail in one of these states is sent to nobody any more, unless somebody retries it.
FINISHED: frozenset[EmailStatus] = frozenset(
    {"delivered", "partially_delivered", "failed", "suppressed", "cancelled", "expired"}
)
# `sending` is transient and not stored: such a mail is listed with its previous status.
StoredStatus = Literal[
    "queued", "delivered", "partially_delivered", "deferred", "held", "failed", "suppressed", "cancelled",
    "expired",
]  # fmt: skip
STORED_STATUSES: tuple[StoredStatus, ...] = get_args(StoredStatus)


class ParcelPart(Contract):
    """The bytes of an attachment within a parcel, which was sent ahead of its mail."""

    parcel_id: UUID
    start: int
    size: int


class Attachment(Contract):
    """A file in a mail: `content` in base64, part of a parcel, or an upload; `content_id` makes it inline."""

    filename: str
    content: str | None = None
    part: ParcelPart | None = None
    upload_id: UUID | None = None
    content_type: str = "application/octet-stream"
    content_id: str | None = None


class UsedTemplate(Contract):
    """The template that a mail is rendered from, in its newest version unless one is named."""

    name: str
    version: int | None = None
    data: dict[str, Json] = Field(default_factory=dict)


class MadeOf(Contract):
    """The version of a template that a mail is rendered from, even if the template was deleted later."""

    name: str
    version: int


class SendEmail(Command):
    """Send one mail. Addresses are bare or `Name <address>`; It has `text`, `html` or both, or `template`.

    The fields are those of `Mail`, unchecked: an accepted mail that cannot be sent is recorded as
    failed with the reason, not parked.
    """

    message_type: ClassVar[str] = "email.send.v1"
    queue: ClassVar[str] = "email.send"
    bulk_queue: ClassVar[str | None] = "email.bulk"
    excess_queue: ClassVar[str | None] = "email.excess"
    senders: ClassVar[tuple[str, ...]] = ("gateway", "batch-processor")
    email_id: UUID
    owner_id: str
    sender: str | None = None
    to: list[str] = Field(default_factory=list)
    cc: list[str] = Field(default_factory=list)
    bcc: list[str] = Field(default_factory=list)
    # A list only for several addresses: the previous release reads a single one.
    reply_to: str | list[str] | None = None
    subject: str = ""
    message_id: str | None = None
    text: str | None = None
    html: str | None = None
    template: UsedTemplate | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    attachments: list[Attachment] = Field(default_factory=list)
    tags: list[str] = Field(default_factory=list)
    metadata: dict[str, Json] = Field(default_factory=dict)
    # As the caller wrote them; None from senders that kept only the parsed values.
    metadata_text: str | None = None
    stream: Stream = "transactional"
    accepted_at: Moment
    send_at: Moment | None = None
    expires_at: Moment | None = None

    @property
    def is_bulk(self) -> bool:
        """Whether the mail is of the stream `bulk`."""
        return self.stream == "bulk"

    @classmethod
    def of(
        cls,
        mail: Mail,
        *,
        email_id: UUID,
        owner_id: str,
        accepted_at: datetime,
        message_id: str | None = None,
        metadata_text: str | None = None,
    ) -> Self:
        """Return the command to send `mail`, whose metadata are written as `metadata_text`.

        `message_id` is for a mail that has none.
        """
        fields = mail.model_dump()
        fields["message_id"] = mail.message_id or message_id
        if len(mail.reply_to) < 2:
            fields["reply_to"] = mail.reply_to[0] if mail.reply_to else None
        return cls(
            email_id=email_id,
            owner_id=owner_id,
            accepted_at=accepted_at,
            metadata_text=metadata_text,
            **fields,
        )


class SendPackedEmail(SendEmail):
    """Send one mail whose attachments were sent ahead in a parcel.

    It is a separate type, because a release without parcels must not read it as a mail without content.
    """

    message_type: ClassVar[str] = "email.send-packed.v1"
    senders: ClassVar[tuple[str, ...]] = ("gateway",)


class Attempt(Contract):
    """One attempt to hand a mail to an SMTP server, with the server's reply."""

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
    next: Next | None = None
    attempts: list[Attempt] = Field(default_factory=list)


class TimelineEvent(Contract):
    """Something that happened to a mail, or to one recipient; attempts and bounces have a detail."""

    at: Moment
    kind: EventKind
    recipient: str | None = None
    detail: str = ""


class Email(Reply):
    """A mail, its recipients and their attempts. `status` summarizes the recipients."""

    id: UUID
    status: EmailStatus
    sender: str
    subject: str
    message_id: str | None = None
    tags: list[str] = Field(default_factory=list)
    metadata: dict[str, Json] = Field(default_factory=dict)
    metadata_text: str | None = None
    stream: Stream = "transactional"
    template: MadeOf | None = None
    accepted_at: Moment
    send_at: Moment | None = None
    expires_at: Moment | None = None
    next: Next | None = None
    # A mail's content can be read and sent again until it is removed.
    content_available: bool = True
    recipients: list[Recipient]
    timeline: list[TimelineEvent] = Field(default_factory=list)


class ResendEmail(Command):
    """Send a mail of `owner_id` again, as a new mail with the same content to the same recipients."""

    message_type: ClassVar[str] = "email.resend.v1"
    queue: ClassVar[str] = "email.send"
    email_id: UUID
    source_id: UUID
    owner_id: str
    message_id: str | None = None
    accepted_at: Moment


class EmailFilter(Contract):
    """A filter of an owner's mails: those that match every given field."""

    status: list[StoredStatus] = Field(default_factory=list)
    created_after: Moment | None = None
    created_before: Moment | None = None
    tag: str | None = None
    to: str | None = None
    ids: list[UUID] | None = None


class EmailLine(Contract):
    """A mail in a list: without its recipients."""

    id: UUID
    status: StoredStatus
    sender: str
    subject: str
    tags: list[str]
    accepted_at: Moment
    send_at: Moment | None = None
    expires_at: Moment
    recipient_count: int


class Emails(Reply):
    """A page of mails; the next one begins behind `next_cursor`."""

    data: list[EmailLine]
    next_cursor: UUID | None


class EmailsChanged(Reply):
    """The numbers of mails that matched and that were changed; if `complete` is false, more are to change.

    The next request begins behind `next_cursor`, or from the start when it is None. When `exact` is false,
    more than `matched` may have matched.
    """

    matched: int
    changed: int
    complete: bool
    next_cursor: UUID | None = None
    exact: bool = True


class ListEmails(Request):
    """Ask for mails of `owner_id`, newest first, those before the id `before`."""

    message_type: ClassVar[str] = "email.list.v1"
    reply: ClassVar[type[Reply]] = Emails
    service: ClassVar[str] = EMAIL
    owner_id: str
    wanted: EmailFilter = Field(default_factory=EmailFilter)
    before: UUID | None = None
    limit: int = Field(default=50, ge=1, le=200)


class CancelEmails(Request):
    """Cancel the mails of `owner_id` that match, except recipients already handed to the relay.

    Only those before the id `before` are examined, newest first, a bounded number by each request.
    """

    message_type: ClassVar[str] = "email.cancel.v1"
    reply: ClassVar[type[Reply]] = EmailsChanged
    service: ClassVar[str] = EMAIL
    owner_id: str
    wanted: EmailFilter
    dry_run: bool = False
    before: UUID | None = None


class RetryEmails(Request):
    """Retry at once the mails of `owner_id` that match: those deferred, held, failed or expired.

    Only those before the id `before` are examined, newest first, a bounded number by each request.
    """

    message_type: ClassVar[str] = "email.retry.v1"
    reply: ClassVar[type[Reply]] = EmailsChanged
    service: ClassVar[str] = EMAIL
    owner_id: str
    wanted: EmailFilter
    dry_run: bool = False
    before: UUID | None = None


class RescheduleEmail(Request):
    """Reschedule a mail of `owner_id` before its first attempt; the reply is the `Email`.

    With `seen_send_at` its times must be those that the caller has read, else the reply is
    `precondition-failed`.
    """

    message_type: ClassVar[str] = "email.reschedule.v1"
    reply: ClassVar[type[Reply]] = Email
    service: ClassVar[str] = EMAIL
    email_id: UUID
    owner_id: str
    send_at: Moment
    expires_at: Moment | None = None
    seen_send_at: Moment | None = None
    seen_expires_at: Moment | None = None


class GetEmail(Request):
    """Ask for a mail of `owner_id`; another owner's mail is not found.

    With `for_copy` content that is available stays until a `ResendEmail` that follows has copied it.
    """

    message_type: ClassVar[str] = "email.get.v1"
    reply: ClassVar[type[Reply]] = Email
    service: ClassVar[str] = EMAIL
    email_id: UUID
    owner_id: str
    for_copy: bool = False


class RawEmail(Reply):
    """A part of a mail as it is handed to the relay: `content` in base64, `size` of the whole in bytes."""

    content: str
    size: int


class GetRawEmail(Request):
    """Ask for a mail of `owner_id` as it is handed to the relay: up to 256 KiB from byte `offset` on."""

    message_type: ClassVar[str] = "email.get-raw.v1"
    reply: ClassVar[type[Reply]] = RawEmail
    service: ClassVar[str] = EMAIL
    email_id: UUID
    owner_id: str
    offset: int = Field(default=0, ge=0)


class EmailCounts(Reply):
    """Number of mails by status; when `exact` is false, some statuses have more."""

    counts: dict[str, int]
    exact: bool = True


class CountEmails(Request):
    """Ask how many mails `owner_id` has in each status."""

    message_type: ClassVar[str] = "email.count.v1"
    reply: ClassVar[type[Reply]] = EmailCounts
    service: ClassVar[str] = EMAIL
    owner_id: str


BounceKind = Literal["hard", "soft", "refused", "delayed", "delivered", "other"]


class BounceRecorded(Reply):
    """The content of a bounce; a repeated one has no effect and is not new."""

    kind: BounceKind
    is_new: bool


class RecordBounce(Request):
    """Record a mail that came back to the return path `recipient`; `content` is base64."""

    message_type: ClassVar[str] = "email.record-bounce.v1"
    reply: ClassVar[type[Reply]] = BounceRecorded
    service: ClassVar[str] = EMAIL
    recipient: str
    content: str


class EmailStatusChanged(Event):
    """The summary status of a mail changed (exchange `events`)."""

    message_type: ClassVar[str] = "email.status-changed.v1"
    routing_key: ClassVar[str] = "email.status-changed"
    email_id: UUID
    owner_id: str
    status: EmailStatus
    at: Moment
