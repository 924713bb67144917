"""A batch as callers see it: its row, running items, failures by code, and a task's only result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import orjson

from batch_processor.batches import life_cycle
from contracts.batches import (
    BEGUN_WITHIN_S,
    CANCELLED_WITHIN_S,
    VALIDATED_WITHIN_S,
    Batch,
    FailedAttempt,
    ItemError,
)
from contracts.message import Json, Next
from contracts.pauses import PauseKind


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The parts of a batch's view that are not in its row."""

    running: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    # As it was stored: to parse it would hold up the loop for every task that ends.
    result_text: str | None = None
    error: ItemError | None = None
    is_limited: bool = False
    failed_attempts: Sequence[FailedAttempt] = ()
    next_attempt: int | None = None
    next_attempt_at: datetime | None = None
    paused: PauseKind | None = None


@dataclass(frozen=True, slots=True)
class ShownBatch:
    """A batch as an event tells of it, without a result, and the JSON text of the result of a task."""

    batch: Batch
    result_text: str | None = None


def show(batch: life_cycle.StoredBatch, around: Surroundings, *, upload_expires_s: float = 0) -> Batch:
    """Return `batch` as an answer, an event or a push, without its result.

    One that has not ended needs `upload_expires_s`, for how long an upload waits for its next items.
    """
    counts = life_cycle.counts(batch, running=around.running)
    now, rate, eta_s = datetime.now(UTC), None, None
    if batch.started_at is not None and batch.done:
        elapsed_s = ((batch.finished_at or now) - batch.started_at).total_seconds()
        rate = round(batch.done / max(elapsed_s, 0.001), 1)
    # While it is paused, nobody knows when it ends.
    if rate and batch.status == "running" and around.paused is None:
        eta_s = round((counts.pending + counts.running) / rate, 1)
    error: Json = around.error.model_dump() if around.error is not None else None
    # A batch whose last item ended just before the deadline took effect has not expired. While failed items
    # run again, the error is that of the attempt before.
    if batch.error_code is not None and batch.status not in ("queued", "running", "paused", "completed"):
        error = {"code": batch.error_code, "detail": batch.error_detail or ""}
    return Batch(
        id=batch.id,
        kind=batch.kind,
        operation=batch.operation or "",
        status="cancelled" if batch.status == "abandoned" else batch.status,
        counts=counts,
        results_complete=batch.is_finished,
        accepted_at=batch.accepted_at or now,
        run_at=batch.not_before,
        expires_at=batch.expires_at,
        started_at=batch.started_at,
        finished_at=batch.finished_at,
        rate_per_s=rate,
        eta_s=eta_s,
        next=_next(
            batch,
            around,
            ends_at=None if eta_s is None else now + timedelta(seconds=eta_s),
            upload_expires_s=upload_expires_s,
        ),
        errors=around.failures,
        metadata=orjson.loads(batch.metadata),
        failed_attempts=list(around.failed_attempts),
        error=error,
        revision=batch.revision,
    )


def _next(
    batch: life_cycle.StoredBatch, around: Surroundings, *, ends_at: datetime | None, upload_expires_s: float
) -> Next | None:
    """Return the next step of the batch; steps past their time show in `tickwire_batches_overdue`.

    Whatever the batch waits for, the wait ends when it expires, if it ever does.
    """
    step = _step(batch, around, ends_at=ends_at, upload_expires_s=upload_expires_s)
    if step is None or batch.expires_at is None or batch.status == "cancelling":
        return step
    return Next(what=step.what, by=min(step.by or batch.expires_at, batch.expires_at))


def _step(
    batch: life_cycle.StoredBatch, around: Surroundings, *, ends_at: datetime | None, upload_expires_s: float
) -> Next | None:
    """Return the next step of the batch as if it did not expire."""
    if batch.status == "open":
        since = batch.appended_at or batch.accepted_at
        by = None if since is None else since + timedelta(seconds=upload_expires_s)
        return Next(what="the rest of its items, or it expires", by=by)
    if batch.status == "validating":
        since = batch.validating_since
        by = None if since is None else since + timedelta(seconds=VALIDATED_WITHIN_S)
        return Next(what="the comparison of its custom ids", by=by)
    if batch.status == "paused":
        return Next(what="its owner resumes it", by=None)
    if batch.status == "cancelling":
        since = batch.cancelling_since
        by = None if since is None else since + timedelta(seconds=CANCELLED_WITHIN_S)
        return Next(what="the end of its running items", by=by)
    if around.paused is not None and batch.status in ("queued", "running"):
        paused = f"the operation {batch.operation}" if around.paused == "operation" else "its owner's work"
        return Next(what=f"an administrator resumes {paused}", by=None)
    if around.is_limited and not around.running:
        return Next(what="its limits let more items begin", by=None)
    if around.next_attempt_at is not None:
        by = around.next_attempt_at + timedelta(seconds=BEGUN_WITHIN_S)
        return Next(what=f"attempt {around.next_attempt}", by=by)
    if batch.status == "queued" and batch.accepted_at is not None:
        due_at = max(batch.accepted_at, batch.not_before or batch.accepted_at)
        return Next(what="its first item", by=due_at + timedelta(seconds=BEGUN_WITHIN_S))
    if batch.status == "running" and ends_at is None:
        return Next(what="its first result", by=None)
    if batch.status == "running":
        return Next(what="its last item (an estimate)", by=ends_at)
    return None
