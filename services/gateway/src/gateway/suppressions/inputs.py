"""The inputs and answers of suppressions."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from contracts.addresses import BareAddress
from contracts.message import FieldError
from contracts.scopes import Scope
from contracts.suppressions import (
    Reason,
    SuppressedStream,
    Suppression,
    SuppressionEntry,
    SuppressionFilter,
    SuppressionOrigin,
)
from contracts.times import Instant, require_future
from gateway.http.excerpts import Excerpt
from gateway.http.filters import Bulk, BulkOutline, CreatedWithin, PageQuery, Several
from gateway.http.replies import TableFormat

# The most lines of one import; its bytes are limited like those of any body.
MOST_LINES = 10_000
MOST_ERRORS = 20


class SuppressionInput(BaseModel):
    """The body of `POST /v1/suppressions`: an address that receives no more mail."""

    model_config = ConfigDict(extra="forbid")
    address: BareAddress
    stream: SuppressedStream = Field(
        default="all", description="the suppressed mail: transactional, bulk, or both"
    )
    reason: Reason = ""
    expires_at: Annotated[Instant, AfterValidator(require_future)] | None = None

    def entry(self) -> SuppressionEntry:
        """Return the input as the model of the contract."""
        return SuppressionEntry(
            address=self.address, stream=self.stream, reason=self.reason, expires_at=self.expires_at
        )


class SuppressionLine(BaseModel):
    """A line of an import. The other columns of an export are ignored.

    A suppression that has expired is skipped.
    """

    model_config = ConfigDict(extra="forbid")
    address: BareAddress
    stream: SuppressedStream = "all"
    reason: Reason = ""
    expires_at: Instant | None = None
    id: str | None = None
    origin: str | None = None
    email_id: str | None = None
    created_at: str | None = None

    def entry(self) -> SuppressionEntry:
        """Return the line as the model of the contract."""
        return SuppressionEntry(
            address=self.address, stream=self.stream, reason=self.reason, expires_at=self.expires_at
        )


COLUMNS = tuple(Suppression.model_fields)
LINE_COLUMNS = frozenset(SuppressionLine.model_fields)


class SuppressionChoice(CreatedWithin):
    """A filter of suppressions."""

    address: BareAddress | None = Field(default=None, description="only the suppression of this address")
    stream: Several[SuppressedStream] | None = None
    origin: Several[SuppressionOrigin] | None = Field(
        default=None, description="its origin: a bounce, a reply of the relay, by hand, or an import"
    )

    def wanted(self) -> SuppressionFilter:
        """Return the filter as the model of the contract."""
        return SuppressionFilter(
            address=self.address,
            stream=self.stream or [],
            origin=self.origin or [],
            created_after=self.created_after,
            created_before=self.created_before,
        )


class SuppressionsQuery(SuppressionChoice, PageQuery):
    """The query of `GET /v1/suppressions`; the cursor is the last id seen."""

    cursor: UUID | None = Field(default=None, description="`next_cursor` of the page before")  # type: ignore[assignment]  # an id, not any text
    format: TableFormat | None = None


class SuppressionsBulk(SuppressionChoice, Bulk):
    """The query of a bulk action on suppressions."""


class SuppressionOutline(BaseModel):
    """A suppression that was added, for a key without `emails:read`: not whether there was one before.

    Such a key lifts it by its address, with `POST /v1/suppressions/lift`.
    """

    # Not the id of an earlier one, which has the time of its creation in it.
    address: str
    stream: SuppressedStream
    origin: SuppressionOrigin
    reason: str
    expires_at: Instant | None


class ImportOutline(BaseModel):
    """The outcome of an import, for a key without `emails:read`: not how many were suppressed before."""

    skipped: int
    refused: int
    errors: list[FieldError]


ADDED = Excerpt(Scope.EMAILS_READ, SuppressionOutline)
IMPORTED = Excerpt(Scope.EMAILS_READ, ImportOutline)
LIFTED = Excerpt(Scope.EMAILS_READ, BulkOutline)


class SuppressionList(BaseModel):
    """A page of suppressions, newest first."""

    data: list[Suppression]
    next_cursor: UUID | None


class ImportQuery(BaseModel):
    """The query of an import: `strict` accepts all lines or none, `permissive` the valid ones."""

    model_config = ConfigDict(extra="forbid")
    mode: Literal["strict", "permissive"] = "strict"


class ImportResult(BaseModel):
    """The outcome of an import: `added` are new, `changed` existed before, and `skipped` had already expired.

    `errors` has the first 20 of the refused lines, each by its number.
    """

    added: int
    changed: int
    skipped: int
    refused: int
    errors: list[FieldError]
