"""The inputs and answers of bounces."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from contracts.emails import BounceKind

# The report precedes the returned mail; the rest is not forwarded.
MOST_BYTES = 256 * 1024
EXAMPLE_RECIPIENT = "b+aghwg3tkpbyg5pzqaeaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@bounces.example.com"


class BounceQuery(BaseModel):
    """The query of `POST /v1/inbound/bounces`."""

    model_config = ConfigDict(extra="forbid")
    recipient: str = Field(
        min_length=3,
        max_length=320,
        description="the address that received the mail: a return path that this installation signed",
        examples=[EXAMPLE_RECIPIENT],
    )


class RecordedBounce(BaseModel):
    """The report about the recipient that the return path of the mail names.

    A failure is `hard` (no such address, or a permanent refusal), `soft` (a temporary failure, or a full
    mailbox) or `refused` (policy or content). `delayed` and `delivered` are reports without a failure, and
    `other` is no report. A mail that was submitted before has no second effect: `is_new` is false.
    """

    kind: BounceKind
    is_new: bool
