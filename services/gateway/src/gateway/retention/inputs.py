"""The body of a change of retention."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from contracts.retention import Days


class RetentionInput(BaseModel):
    """The days for which mails are kept after their end; null, or a field left out: the operator's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    content_days: Days | None = Field(
        default=None, description="for bodies, headers, and the attachments of mails that failed"
    )
    record_days: Days | None = Field(
        default=None, description="for recipients, attempts and replies; at least as long as content"
    )
