"""The answers of `/v1/emails`; its input is described in `contracts.mail`."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from contracts.emails import EmailStatus, Recipient
from contracts.message import Moment


class EmailView(BaseModel):
    """A mail as its sender sees it. `status` sums up the recipients.

    Until email has seen the mail, or while it cannot be asked, only what the gateway knows is there.
    """

    model_config = ConfigDict(populate_by_name=True)
    id: UUID
    status: EmailStatus | Literal["parked"]
    accepted_at: Moment
    recipients: list[Recipient]
    sender: str | None = Field(default=None, alias="from")
    subject: str | None = None
    tags: list[str] | None = None
    metadata: dict[str, Any] | None = None
    send_at: Moment | None = None
    expires_at: Moment | None = None
    detail_available: bool | None = None
    reason: str | None = None
