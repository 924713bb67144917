"""Messages of batch-processor about the items of a batch: what was sent, attempts, and errors by code."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from pydantic import Field

from contracts.batches import FailedAttempt, ItemError, ItemStatus
from contracts.message import Contract, Json, Reply, Request
from contracts.topology import BATCH_PROCESSOR


class BatchItem(Contract):
    """An item with its payload, its state, and its failed attempts."""

    position: int
    custom_id: str | None = None
    status: ItemStatus
    payload: Json = None
    error: ItemError | None = None
    failed_attempts: list[FailedAttempt] = Field(default_factory=list)


class Items(Reply):
    """A page of items in input order."""

    data: list[BatchItem]
    next_cursor: str | None = None


class ListItems(Request):
    """Ask for a page of a batch's items."""

    message_type: ClassVar[str] = "batch.items.v1"
    reply: ClassVar[type[Reply]] = Items
    service: ClassVar[str] = BATCH_PROCESSOR
    batch_id: UUID
    owner_id: str
    limit: int = Field(default=200, ge=1, le=1000)
    cursor: str | None = None


class ErrorSample(Contract):
    """An item that failed with an error."""

    position: int
    custom_id: str | None = None
    detail: str


class ErrorSummary(Contract):
    """The number of items of a batch that failed with one error, and the first of them."""

    code: str
    items: int
    samples: list[ErrorSample]


class ErrorSummaries(Reply):
    """The errors of a batch, the most frequent first."""

    data: list[ErrorSummary]
    next_cursor: None = None


class ListErrors(Request):
    """Ask for the errors of a batch by their codes: the most frequent ones, or those in `codes`.

    Each comes with its first items, up to `samples` of them.
    """

    message_type: ClassVar[str] = "batch.errors.v1"
    reply: ClassVar[type[Reply]] = ErrorSummaries
    service: ClassVar[str] = BATCH_PROCESSOR
    batch_id: UUID
    owner_id: str
    codes: list[str] = Field(default_factory=list)
    samples: int = Field(default=3, ge=0, le=3)
