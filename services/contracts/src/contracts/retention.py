"""Retention: the days for which mails of an owner are kept after their end, and the requests about them."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from contracts.message import AS_NUMBER, Moment, Reply, Request
from contracts.topology import EMAIL

MOST_DAYS = 3650

Days = Annotated[float, Field(ge=0, le=MOST_DAYS), AS_NUMBER]


class MailRetention(Reply):
    """The days for which content (bodies, headers, attachments of failed mails) and records are kept.

    `chosen_…` are the owner's own days; where they are null, those of the operator apply. `version` counts
    the changes.
    """

    content_days: Days
    record_days: Days
    chosen_content_days: Days | None
    chosen_record_days: Days | None
    most_content_days: Days
    most_record_days: Days
    version: int
    changed_at: Moment | None = None


class GetRetention(Request):
    """Ask for how long the mails of `owner_id` are kept."""

    message_type: ClassVar[str] = "retention.get.v1"
    reply: ClassVar[type[Reply]] = MailRetention
    service: ClassVar[str] = EMAIL
    owner_id: str


class SetRetention(Request):
    """Set the days of `owner_id`, null for those of the operator, if `version` is current or None."""

    message_type: ClassVar[str] = "retention.set.v1"
    reply: ClassVar[type[Reply]] = MailRetention
    service: ClassVar[str] = EMAIL
    owner_id: str
    content_days: Days | None = None
    record_days: Days | None = None
    version: int | None = None
