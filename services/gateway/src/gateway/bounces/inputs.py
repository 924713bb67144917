"""The inputs and answers of bounces."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from contracts.emails import BounceKind

# The report comes before the mail that is returned with it; the rest is not passed on.
MOST_BYTES = 256 * 1024
EXAMPLE_RECIPIENT = "b+aghwg3tkpbyg5pzqaeaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@bounces.example.com"


class BounceQuery(BaseModel):
    """The query of `POST /v1/inbound/bounces`."""

    model_config = ConfigDict(extra="forbid")
    recipient: str = Field(
        min_length=3,
        max_length=320,
        description="the address that the mail came to: a return path that was signed here",
        examples=[EXAMPLE_RECIPIENT],
    )


class RecordedBounce(BaseModel):
    """What the mail said about the recipient that its return path names.

    A failure is `hard` (no such address, or refused for good), `soft` (given up, for now or as the mailbox
    is full) or `refused` (policy or content). `delayed` and `delivered` are reports; `other` is none. A mail
    that was handed in before has no effect again: `is_new` is false.
    """

    kind: BounceKind
    is_new: bool
