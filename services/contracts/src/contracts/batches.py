"""Messages of batch-processor: batches, tasks (a batch of one), their items, results and progress."""

from __future__ import annotations

from typing import ClassVar, Literal, Self
from uuid import UUID

from pydantic import Field

from contracts.batch_options import RateLimit
from contracts.items import Item as Item
from contracts.json_texts import before_placed_items
from contracts.message import Command, Contract, Event, Json, LiveMessage, Moment, Next, Reply, Request
from contracts.topology import BATCH_PROCESSOR

BatchStatus = Literal[
    "open", "validating", "queued", "running", "paused", "completed", "failed", "cancelling", "cancelled",
    "expired",
]  # fmt: skip
# Final: a batch in one of these states does not change again.
FINISHED: frozenset[BatchStatus] = frozenset({"completed", "failed", "cancelled", "expired"})
# Those of them whose failed items can run again: an expired batch has no time left for another attempt.
RETRYABLE: tuple[BatchStatus, ...] = ("completed", "failed", "cancelled")
ItemStatus = Literal["pending", "running", "succeeded", "failed", "cancelled", "skipped"]
# Of the items of an ended batch, which can be those of another one.
SourceStatus = Literal["succeeded", "failed", "cancelled"]
Kind = Literal["batch", "task"]

INTAKE = "batch-processor.intake"
# The seconds within which work is stored, an upload compared, a first item begun, and a cancel ended.
STORED_WITHIN_S = 60
VALIDATED_WITHIN_S = 600
BEGUN_WITHIN_S = 600
CANCELLED_WITHIN_S = 60


class FollowUp(Contract):
    """The task that is created when a batch has ended; `payload` is JSON text, exactly as it was sent."""

    operation: str
    payload: str = "null"


class BatchDescription(Command):
    """The description of a batch: its owner, its operation, its rights, and the task that follows its end.

    Its `options` are those of `contracts.batch_options`, already checked.
    """

    queue: ClassVar[str] = INTAKE
    batch_id: UUID
    owner_id: str
    kind: Kind = "batch"
    operation: str
    accepted_at: Moment
    options: dict[str, Json] = Field(default_factory=dict)
    scopes: list[str] | None = Field(
        default=None,
        description="effective scopes of the owner at acceptance; null if the sender does not report them",
    )
    metadata: dict[str, str] = Field(default_factory=dict)
    expires_at: Moment | None = None
    on_finished: FollowUp | None = None


class Source(Contract):
    """The items of another batch of the same owner that ended with `status`.

    The results of succeeded items become payloads; other items keep their payloads.
    """

    batch_id: UUID
    status: SourceStatus = "succeeded"


class CreateBatch(BatchDescription):
    """Open a batch. With `items` it is sealed at once; otherwise the items follow, and `SealBatch` closes it.

    With a `source` its items are taken from another batch that has ended. The owner had the `scopes` at
    `scoped_at`, or at the acceptance. With `payloads_at`, as in `AppendItems`, `items` are the last member.
    """

    message_type: ClassVar[str] = "batch.create.v1"
    senders: ClassVar[tuple[str, ...]] = ("gateway", BATCH_PROCESSOR)
    not_before: Moment | None = None
    priority: int = Field(default=5, ge=0, le=9)
    items: list[Item] | None = None
    source: Source | None = None
    scoped_at: Moment | None = None
    payloads_at: list[int] | None = None

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Return the message, without `items` if they have places: a payload may have very many values."""
        head = before_placed_items(body)
        return cls.model_validate_json(body if head is None else head + b"}")

    @property
    def size(self) -> int | None:
        """The number of items; None if they follow."""
        found = self.items if self.payloads_at is None else self.payloads_at[::2]
        return None if found is None else len(found)


class AppendItems(Command):
    """Append consecutive items to an open batch; `offset` is the position of the first.

    `lines` are the line numbers of the items in the upload, from 1; they are present only if empty lines make
    them differ from the positions. `payloads_at` has the start and the end of each payload, including spaces
    around it, in bytes after the opening bracket of `items`: readers find the texts without parsing.
    """

    message_type: ClassVar[str] = "batch.append.v1"
    queue: ClassVar[str] = INTAKE
    batch_id: UUID
    owner_id: str
    offset: int
    items: list[Item]
    lines: list[int] | None = None
    payloads_at: list[int] | None = None

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Return the message, without `items` if they have places: making them would be most of the work."""
        head = before_placed_items(body)
        return cls.model_validate_json(body if head is None else head + b',"items":[]}')


class SealBatch(BatchDescription):
    """Seal a batch of `total` items; it repeats the description, so that it may arrive before them."""

    message_type: ClassVar[str] = "batch.seal.v1"
    total: int


class AbandonBatch(Command):
    """Remove what has arrived of a batch whose upload failed."""

    message_type: ClassVar[str] = "batch.abandon.v1"
    queue: ClassVar[str] = INTAKE
    batch_id: UUID
    owner_id: str


class CancelBatch(Command):
    """Cancel a batch or task: no more items start, and unfinished ones are cancelled."""

    message_type: ClassVar[str] = "batch.cancel.v1"
    queue: ClassVar[str] = INTAKE
    batch_id: UUID
    owner_id: str


class PauseBatch(Command):
    """Pause a batch: no more items start until it is resumed."""

    message_type: ClassVar[str] = "batch.pause.v1"
    queue: ClassVar[str] = INTAKE
    batch_id: UUID
    owner_id: str


class ResumeBatch(Command):
    """Resume a batch that is paused."""

    message_type: ClassVar[str] = "batch.resume.v1"
    queue: ClassVar[str] = INTAKE
    batch_id: UUID
    owner_id: str


class RetryBatch(Command):
    """Retry failed items of a batch that has ended: all, or those with one of the error `codes`.

    The follow-up gets the `scopes`, where they are present, that the caller has at `requested_at`."""

    message_type: ClassVar[str] = "batch.retry.v1"
    queue: ClassVar[str] = INTAKE
    batch_id: UUID
    owner_id: str
    codes: list[str] = Field(default_factory=list)
    scopes: list[str] | None = None
    requested_at: Moment | None = None


class MoveBatch(Command):
    """Reschedule a batch or task that has not started."""

    message_type: ClassVar[str] = "batch.move.v1"
    queue: ClassVar[str] = INTAKE
    batch_id: UUID
    owner_id: str
    not_before: Moment


class LimitOwner(Command):
    """Limit the batches of an owner who has only `scopes` since `limited_at`: work that needs more is ended.

    The others, and what was accepted before and arrives later, have at most these; once that `is_noted`, only
    stored batches remain to be limited.
    """

    message_type: ClassVar[str] = "batch.limit-owner.v1"
    queue: ClassVar[str] = INTAKE
    senders: ClassVar[tuple[str, ...]] = ("gateway", BATCH_PROCESSOR)
    owner_id: str
    scopes: list[str]
    limited_at: Moment | None = None
    is_noted: bool = False


class Counts(Contract):
    """The number of items by state; the sum is `total`."""

    total: int = 0
    pending: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    skipped: int = 0


class Limit(Contract):
    """A limit on the items of a batch; `key` is `batch` for its own limit, else one shared by all owners.

    At most `max_concurrency` of the items with the key run at once, and no more start than `rate_limit`
    allows.
    """

    key: str
    max_concurrency: int | None = None
    rate_limit: RateLimit | None = None


class FailedAttempt(Contract):
    """A failed attempt at an item that was followed by another attempt."""

    code: str
    detail: str
    failed_at: Moment


class Batch(Reply):
    """The state of a batch. A task also has its only result, and the attempts that failed before."""

    id: UUID
    kind: Kind
    operation: str
    status: BatchStatus
    counts: Counts
    results_complete: bool | None = None
    accepted_at: Moment
    run_at: Moment | None = None
    expires_at: Moment | None = None
    started_at: Moment | None = None
    finished_at: Moment | None = None
    rate_per_s: float | None = None
    eta_s: float | None = None
    next: Next | None = None
    errors: dict[str, int] = Field(default_factory=dict)
    metadata: dict[str, str] = Field(default_factory=dict)
    limits: list[Limit] = Field(default_factory=list)
    failed_attempts: list[FailedAttempt] = Field(default_factory=list)
    result: Json = None
    error: Json = None
    revision: int = 0  # rises with each change that is pushed


class GetBatch(Request):
    """Ask for a batch or task of `owner_id`; another owner's is not found."""

    message_type: ClassVar[str] = "batch.get.v1"
    reply: ClassVar[type[Reply]] = Batch
    service: ClassVar[str] = BATCH_PROCESSOR
    batch_id: UUID
    owner_id: str
    kind: Kind = "batch"


class BatchFilter(Contract):
    """A filter of batches or tasks; an empty list and None match all. Both times are exclusive.

    `with_failures` matches those with a failed item, and `failure_codes` those with one of these errors.
    """

    statuses: list[BatchStatus] = Field(default_factory=list)
    operations: list[str] = Field(default_factory=list)
    with_failures: bool = False
    failure_codes: list[str] = Field(default_factory=list)
    created_after: Moment | None = None
    created_before: Moment | None = None


class Batches(Reply):
    """A page of batches."""

    data: list[Batch]
    next_cursor: str | None = None


class ListBatches(Request):
    """Ask for a page of `owner_id`'s batches that match `wanted`, newest first."""

    message_type: ClassVar[str] = "batch.list.v1"
    reply: ClassVar[type[Reply]] = Batches
    service: ClassVar[str] = BATCH_PROCESSOR
    owner_id: str
    kind: Kind = "batch"
    wanted: BatchFilter = BatchFilter()
    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = None


class ItemError(Contract):
    """The reason why an item failed."""

    code: str
    detail: str


class Result(Contract):
    """The outcome of one item; `position` counts from 0 in input order."""

    position: int
    custom_id: str | None = None
    status: ItemStatus
    result: Json = None
    error: ItemError | None = None
    attempts: int = 1


class Results(Reply):
    """A page of results. While the batch runs, `complete` is false: results after the first unfinished
    item follow later, and `next_cursor` is null on the page that ends before it."""

    data: list[Result]
    next_cursor: str | None = None
    complete: bool = True


class ListResults(Request):
    """Ask for a page of results in input order, all or of one status.

    With `lines` each row is on a line of its own, and each but the last ends with a comma; the reply has no
    other line breaks than those around its rows, so it can be split into lines without being parsed.
    """

    message_type: ClassVar[str] = "batch.results.v1"
    reply: ClassVar[type[Reply]] = Results
    service: ClassVar[str] = BATCH_PROCESSOR
    batch_id: UUID
    owner_id: str
    status: ItemStatus | None = None
    limit: int = Field(default=1000, ge=1, le=5000)
    cursor: str | None = None
    lines: bool = False


class BatchCounts(Reply):
    """Number of batches by status; when `exact` is false, some statuses have more."""

    counts: dict[str, int]
    exact: bool = True


class CountBatches(Request):
    """Ask how many of `owner_id`'s batches that fit `wanted` are in each status; without `kind` tasks too.
    Only those before the id `before` and from the id `until` on, which are cursors of a list."""

    message_type: ClassVar[str] = "batch.count.v1"
    reply: ClassVar[type[Reply]] = BatchCounts
    service: ClassVar[str] = BATCH_PROCESSOR
    owner_id: str
    kind: Kind | None = None
    wanted: BatchFilter = BatchFilter()
    before: str | None = None
    until: str | None = None


class BatchProgressed(LiveMessage):
    """The progress of a batch (exchange `live`, routing key `batch.<id>`), at most every 250 ms."""

    message_type: ClassVar[str] = "batch.progressed.v1"
    routing_key: ClassVar[str] = "batch.{batch_id}"
    senders: ClassVar[tuple[str, ...]] = ("batch-processor",)
    batch: Batch
    owner_id: str
    offset: int


class BatchFinished(Event):
    """A batch reached its end: completed, failed, cancelled or expired (exchange `events`)."""

    message_type: ClassVar[str] = "batch.finished.v1"
    routing_key: ClassVar[str] = "batch.finished"
    batch: Batch
    owner_id: str
