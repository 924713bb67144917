"""The inputs and answers of batches and tasks, as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from contracts import json_texts
from contracts.batch_options import BatchOptions
from contracts.batches import (
    BatchFilter,
    BatchStatus,
    Counts,
    FailedAttempt,
    ItemStatus,
    Kind,
    Limit,
    SourceStatus,
)
from contracts.items import MOST_ITEMS_OF_DOCUMENT, OperationName, custom_id_of, is_wrapped, payload_of
from contracts.message import Moment, Next
from contracts.operations import Operation
from contracts.scopes import Scope
from contracts.times import Instant
from gateway.http.excerpts import Excerpt
from gateway.http.filters import (
    BulkOutline,
    CreatedWithin,
    DryRun,
    Filter,
    PageQuery,
    Several,
    SteppedBulk,
    SteppedOutline,
)
from gateway.http.replies import TableFormat

# The error code of an item, as in results.
ErrorCode = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
# The caller's metadata: names and strings.
Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=40)], Annotated[str, Field(max_length=500)]],
    Field(max_length=20, examples=[{"order": "4711"}]),
]
_EXPIRES = "in the future; items that have not ended by then are stopped, and the batch or task is `expired`"


class FollowUpInput(BaseModel):
    """The task that is created when a batch or task has ended in any state; it has the same rights."""

    model_config = ConfigDict(extra="forbid")
    operation: OperationName
    payload: Any = None


class SourceInput(BaseModel):
    """Another batch of yours that has ended; this batch gets its items, including their `custom_id`.

    The results of items that `succeeded` become payloads; items that `failed` or were `cancelled` are sent
    again unchanged.
    """

    model_config = ConfigDict(extra="forbid")
    batch_id: UUID
    status: SourceStatus = "succeeded"


class BatchTerms(BaseModel):
    """The fields of a batch besides its items, common to all ways of sending them."""

    model_config = ConfigDict(extra="forbid")
    operation: OperationName
    options: BatchOptions = BatchOptions()
    metadata: Metadata = Field(default_factory=dict)
    expires_at: Instant | None = Field(default=None, description=_EXPIRES)
    on_finished: FollowUpInput | None = None


class BatchInput(BatchTerms):
    """The body of `POST /v1/batches`: an item is the payload itself, or `{custom_id, payload}`.

    With a `source` it has no `items`; with `open=true` it has none either, and the items follow.
    """

    items: list[Any] = Field(default_factory=list, min_length=1, max_length=MOST_ITEMS_OF_DOCUMENT)
    source: SourceInput | None = None

    @field_validator("items")
    @classmethod
    def _custom_ids_differ(cls, items: list[Any]) -> list[Any]:
        known: set[str] = set()
        for index, item in enumerate(items):
            try:
                custom_id = custom_id_of(item)
                if custom_id in known:
                    raise ValueError(f"the custom_id {custom_id!r} is used twice")
            except ValueError as error:
                raise _misnamed(index, str(error)) from None
            if custom_id is not None:
                known.add(custom_id)
        return items

    def payloads(self, name: str) -> Iterator[tuple[str, Any]]:
        """Yield the payloads with their JSON pointers in a document with the items in its member `name`."""
        for index, item in enumerate(self.items):
            yield f"/{name}/{index}/payload" if is_wrapped(item) else f"/{name}/{index}", payload_of(item)


def _misnamed(index: int, detail: str) -> ValidationError:
    """Return the error of the custom id of an item; only such an error has a place within the items."""
    error = PydanticCustomError("value_error", detail)
    found = InitErrorDetails(type=error, loc=(index, "custom_id"), input=None)
    return ValidationError.from_exception_data("items", [found])


def payload_texts(items: list[Any], written: bytes) -> Iterator[bytes]:
    """Yield the payloads of `items` as they are written in the array `written`."""
    if written == orjson.dumps(items):
        yield from (orjson.dumps(payload_of(item)) for item in items)
        return
    for item, text in zip(items, json_texts.elements(written.decode()), strict=True):
        yield (json_texts.members(text)["payload"] if is_wrapped(item) else text).encode()


class Unique(BaseModel):
    """A key that only one task of a caller holds at any time.

    `while` says how long a task holds it: while it is `queued`, until it has ended (`running`), or for
    `period_s` seconds from its acceptance (`period`). On a request for another task with the key, the first
    task is returned (`return`), the request is refused (`reject`), or the first task is cancelled and the
    new one takes its place (`replace`).
    """

    model_config = ConfigDict(extra="forbid")
    key: str = Field(min_length=1, max_length=255)
    while_: Literal["queued", "running", "period"] = Field(default="running", alias="while")
    period_s: float | None = Field(default=None, gt=0, le=30 * 86_400)
    on_conflict: Literal["return", "reject", "replace"] = "return"

    @model_validator(mode="after")
    def _period_where_it_counts(self) -> Unique:
        if (self.while_ == "period") != (self.period_s is not None):
            raise ValueError("period_s must be given with while: period, and only then")
        return self


class TaskInput(BaseModel):
    """The body of `POST /v1/tasks`."""

    model_config = ConfigDict(extra="forbid")
    operation: OperationName
    payload: Any = None
    delay_s: float = Field(default=0, ge=0, le=30 * 86_400)
    run_at: Instant | None = Field(default=None, description="earliest time to run; instead of `delay_s`")
    expires_at: Instant | None = Field(default=None, description=_EXPIRES)
    priority: int = Field(default=5, ge=0, le=9)
    unique_key: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    unique: Unique | None = None
    metadata: Metadata = Field(default_factory=dict)
    on_finished: FollowUpInput | None = None

    @model_validator(mode="after")
    def _one_time(self) -> TaskInput:
        if self.run_at is not None and self.delay_s:
            raise ValueError("give run_at or delay_s, not both")
        if self.unique is not None and self.unique_key is not None:
            raise ValueError("give unique or unique_key, not both")
        return self


class Moving(BaseModel):
    """The body of `PATCH /v1/tasks/{id}`."""

    model_config = ConfigDict(extra="forbid")
    run_at: Instant = Field(description="a time in the past means at once; earlier than `expires_at`")


class AcceptedBatch(BaseModel):
    """A batch that is accepted or open: its id, under which its state can be read, and the next step."""

    id: UUID
    status: Literal["queued", "open"]
    next: Next


class Checked(BaseModel):
    """A batch that would be accepted. Repeated custom ids of an upload are found only once it is sealed."""

    operation: str
    items: int
    custom_ids_compared: bool


class BatchChoice(CreatedWithin):
    """A filter of batches or tasks; the times are those of acceptance."""

    status: Several[BatchStatus] | None = Field(default=None, examples=["queued,running"])
    operation: Several[OperationName] | None = Field(default=None, examples=["echo"])

    def wanted(self) -> BatchFilter:
        """Return the filter as the model of the contract."""
        return BatchFilter(
            statuses=self.status or [],
            operations=self.operation or [],
            created_after=self.created_after,
            created_before=self.created_before,
        )


class BatchesQuery(BatchChoice, PageQuery):
    """The query of the lists of batches and of tasks."""


class CancelQuery(BatchChoice, SteppedBulk):
    """The query of the actions on all batches or tasks that match."""


class RetryAllQuery(BatchChoice, SteppedBulk):
    """The query of `POST /v1/batches/retry` and `POST /v1/tasks/retry`."""

    code: Several[ErrorCode] | None = Field(
        default=None,
        description="only items that failed with one of these errors, and only batches with such items",
        examples=["timeout"],
    )

    def wanted(self) -> BatchFilter:
        """Return the filter as the model of the contract."""
        return super().wanted().model_copy(update={"failure_codes": self.code or []})


class RetryQuery(DryRun):
    """The query of `POST /v1/batches/{id}/retry` and `POST /v1/tasks/{id}/retry`."""

    code: Several[ErrorCode] | None = Field(
        default=None, description="only items that failed with one of these errors", examples=["timeout"]
    )


class ItemsQuery(Filter):
    """The query of `GET /v1/batches/{id}/items`."""

    limit: int = Field(default=200, ge=1, le=1000)
    cursor: str | None = Field(default=None, max_length=500)


class ResultsQuery(BaseModel):
    """The query of `GET /v1/batches/{id}/results`."""

    model_config = ConfigDict(extra="forbid")
    limit: int = Field(
        default=1000, ge=1, le=5000, description="the rows of a page; CSV and NDJSON have all rows without it"
    )
    cursor: str | None = Field(default=None, max_length=500)
    status: ItemStatus | None = None
    format: TableFormat | None = None


class AcceptedTask(BaseModel):
    """A task that is accepted. Its status is `queued`, unless an earlier task has its `unique_key`.

    `next` is null if that task has ended.
    """

    id: UUID
    status: BatchStatus | Literal["parked"]
    next: Next | None


class BatchView(BaseModel):
    """A batch or task as its owner sees it. A task also has its only result and its failed attempts.

    Until batch-processor has stored it, and while batch-processor cannot be reached, it has only a few
    fields. `revision` rises with each change, and is the offset of its events.
    """

    id: UUID
    kind: Kind
    operation: str | None
    status: BatchStatus | Literal["parked"]
    counts: Counts | None
    results_complete: bool | None = Field(
        default=None, description="whether all results can be read: everything has ended"
    )
    accepted_at: Moment
    run_at: Moment | None = None
    expires_at: Moment | None = None
    started_at: Moment | None = None
    finished_at: Moment | None = None
    rate_per_s: float | None = None
    eta_s: float | None = None
    next: Next | None = None
    errors: dict[str, int] | None = None
    metadata: dict[str, str] | None = None
    limits: list[Limit] | None = None
    failed_attempts: list[FailedAttempt] | None = None
    result: Any = None
    error: Any = None
    revision: int | None = None
    detail_available: bool | None = None
    reason: str | None = None


class BatchOutline(BaseModel):
    """A batch or task that was changed, for a key without `batches:read`."""

    id: UUID
    kind: Kind
    operation: str | None
    status: BatchStatus | Literal["parked"]
    counts: None = None
    accepted_at: Moment
    run_at: Moment | None
    next: Next | None
    detail_available: Literal[False] = False


CHANGED_BATCH = Excerpt(Scope.BATCHES_READ, BatchOutline)
CHANGED_BATCHES = Excerpt(Scope.BATCHES_READ, SteppedOutline)
RETRIED_ITEMS = Excerpt(Scope.BATCHES_READ, BulkOutline)


class OperationList(BaseModel):
    """The operations that are available now."""

    data: list[Operation]
    next_cursor: None
