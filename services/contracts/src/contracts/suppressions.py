"""Suppressions: addresses to which an owner's mails are not sent, and the requests about them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import AfterValidator, Field

from contracts.mail_headers import one_line
from contracts.message import Contract, Moment, Reply, Request
from contracts.topology import EMAIL

# The stream whose mails are not sent to the address; `all` is every stream.
SuppressedStream = Literal["transactional", "bulk", "all"]
# A bounce, a refusal by the relay, an addition by hand, or an import.
SuppressionOrigin = Literal["bounce", "reply", "manual", "import"]
AddedOrigin = Literal["manual", "import"]

MOST_REASON = 500
# The most addresses of one message; an import sends several messages.
MOST_ADDED = 1000

Reason = Annotated[str, Field(max_length=MOST_REASON), AfterValidator(one_line)]


class Suppression(Reply):
    """An address to which its owner's mails are not sent. Addresses are compared case-insensitively.

    `email_id` is the mail whose failure caused it; without `expires_at` it does not expire.
    """

    id: UUID
    address: str
    stream: SuppressedStream
    origin: SuppressionOrigin
    reason: str
    email_id: UUID | None = None
    created_at: Moment
    expires_at: Moment | None = None


class SuppressionEntry(Contract):
    """An address to suppress."""

    address: str
    stream: SuppressedStream = "all"
    reason: str = ""
    expires_at: Moment | None = None


class SuppressionsAdded(Reply):
    """The resulting suppressions, in the order of the request; `added` of them are new."""

    data: list[Suppression]
    added: int


class AddSuppressions(Request):
    """Suppress addresses for `owner_id`, all or none; the reason and the expiry replace earlier ones."""

    message_type: ClassVar[str] = "suppressions.add.v1"
    reply: ClassVar[type[Reply]] = SuppressionsAdded
    service: ClassVar[str] = EMAIL
    owner_id: str
    origin: AddedOrigin
    entries: list[SuppressionEntry] = Field(min_length=1, max_length=MOST_ADDED)


class SuppressionFilter(Contract):
    """A filter of an owner's suppressions: those that match every given field."""

    address: str | None = None
    stream: list[SuppressedStream] = Field(default_factory=list)
    origin: list[SuppressionOrigin] = Field(default_factory=list)
    created_after: Moment | None = None
    created_before: Moment | None = None


class Suppressions(Reply):
    """A page of suppressions; the next one begins behind `next_cursor`."""

    data: list[Suppression]
    next_cursor: UUID | None


class ListSuppressions(Request):
    """Ask for active suppressions of `owner_id`, newest first, those before the id `before`."""

    message_type: ClassVar[str] = "suppressions.list.v1"
    reply: ClassVar[type[Reply]] = Suppressions
    service: ClassVar[str] = EMAIL
    owner_id: str
    wanted: SuppressionFilter = Field(default_factory=SuppressionFilter)
    before: UUID | None = None
    limit: int = Field(default=50, ge=1, le=1000)


class GetSuppression(Request):
    """Ask for an active suppression of `owner_id`; another owner's is not found."""

    message_type: ClassVar[str] = "suppressions.get.v1"
    reply: ClassVar[type[Reply]] = Suppression
    service: ClassVar[str] = EMAIL
    suppression_id: UUID
    owner_id: str


class LiftSuppression(Request):
    """End a suppression of `owner_id` and forget the failures of its address; the reply is its last state."""

    message_type: ClassVar[str] = "suppressions.lift.v1"
    reply: ClassVar[type[Reply]] = Suppression
    service: ClassVar[str] = EMAIL
    suppression_id: UUID
    owner_id: str


class SuppressionsLifted(Reply):
    """The numbers of suppressions that matched and that ended; if `complete` is false, more are to lift."""

    matched: int
    changed: int
    complete: bool


class LiftSuppressions(Request):
    """End the suppressions of `owner_id` that match, and forget the failures of their addresses."""

    message_type: ClassVar[str] = "suppressions.lift-matching.v1"
    reply: ClassVar[type[Reply]] = SuppressionsLifted
    service: ClassVar[str] = EMAIL
    owner_id: str
    wanted: SuppressionFilter
    dry_run: bool = False
