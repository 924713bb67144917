"""Commands of owners for queued and ended batches: pause, resume, move and retry; and their deadlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from batch_processor.batches import life_cycle
from batch_processor.batches.life_cycle import StoredBatch
from contracts.batches import RETRYABLE


def pause(batch: StoredBatch, *, now: datetime) -> StoredBatch:  # noqa: ARG001 - a transition
    """Begin no more items; those that run finish."""
    if batch.status not in ("queued", "running"):
        return batch
    return replace(batch, status="paused", revision=batch.revision + 1)


def resume(batch: StoredBatch, *, now: datetime) -> StoredBatch:
    """Resume a batch that is paused."""
    if batch.status != "paused":
        return batch
    if batch.started_at is not None:
        return replace(batch, status="running", revision=batch.revision + 1)
    # The time within which its first item must begin counts from now.
    not_before = max(now, batch.not_before or now)
    return replace(batch, status="queued", not_before=not_before, revision=batch.revision + 1)


def move(batch: StoredBatch, *, now: datetime, not_before: datetime) -> StoredBatch:  # noqa: ARG001 - a transition
    """Set another start time for a batch that has not begun."""
    if batch.status not in ("queued", "paused") or batch.started_at is not None:
        return batch
    return replace(batch, not_before=not_before, revision=batch.revision + 1)


def retry(
    batch: StoredBatch,
    *,
    now: datetime,
    codes: Sequence[str],
    scopes: Sequence[str] | None = None,
    scoped_at: datetime | None = None,
) -> StoredBatch:
    """Queue the failed items of an ended batch again: those with one of `codes`, or all without any.

    A batch past its deadline stays as it is, as its items would be stopped at once. From now on the batch
    has the rights `scopes`, if they are given, which its owner had at `scoped_at`.
    """
    is_late = batch.expires_at is not None and batch.expires_at <= now
    if is_late or batch.status not in RETRYABLE or not batch.failed:
        return batch
    # What was cancelled because too many had failed stays so, for that reason.
    is_stopped = batch.cancelled > 0 and batch.error_code == life_cycle.TOO_MANY_FAILURES
    return replace(
        batch,
        status="queued",
        finished_at=None,
        error_code=batch.error_code if is_stopped else None,
        error_detail=batch.error_detail if is_stopped else None,
        not_before=now,
        retry_codes=tuple(codes),
        retry_after=-1,
        scopes=batch.scopes if scopes is None else tuple(scopes),
        scoped_at=batch.scoped_at if scopes is None else scoped_at or now,
        revision=batch.revision + 1,
    )


def redrive(
    batch: StoredBatch, positions: Sequence[int], *, chunks: int, is_last: bool, now: datetime
) -> StoredBatch:
    """Count failed items at `positions` as waiting again, in `chunks`; after the last, the batch may end."""
    redriven = replace(
        batch,
        failed=batch.failed - len(positions),
        chunk_count=batch.chunk_count + chunks,
        retry_after=positions[-1] if positions else batch.retry_after,
        retry_codes=None if is_last else batch.retry_codes,
        revision=batch.revision + 1,
    )
    return life_cycle.end_if_done(redriven, now=now)


def lapse(batch: StoredBatch, *, now: datetime) -> StoredBatch:
    """Stop a batch that has not ended by its deadline; results of ended items stay."""
    if batch.is_finished or batch.status == "cancelling":
        return batch
    detail = "It had not ended by its expiry time (expires_at)."
    late = replace(batch, error_code=life_cycle.DEADLINE_EXCEEDED, error_detail=detail)
    if batch.status in ("open", "validating"):
        total = batch.received if batch.total is None else batch.total
        return life_cycle.end(replace(late, total=total, skipped=total), "expired", now=now)
    return life_cycle.cancel(late, now=now)
