"""Pausing, moving, retrying and expiring: the states they apply to, and what they leave unchanged."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from batch_processor.batches import life_cycle, steering
from batch_processor.batches.life_cycle import Status, StoredBatch, Tally
from batch_processor.batches.views import Surroundings, show

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
NEW = StoredBatch(id=UUID(int=1), owner_id="ann", operation="echo", total=10, received=10, chunk_count=1)
QUEUED = replace(NEW, status="queued")
RUNNING = replace(NEW, status="running", started_at=NOW, succeeded=2)
ENDED = replace(NEW, status="completed", started_at=NOW, finished_at=NOW, succeeded=7, failed=3)


def test_a_batch_that_is_resumed_has_the_state_from_before_its_pause() -> None:
    for before, status in ((QUEUED, "queued"), (RUNNING, "running")):
        paused = steering.pause(before, now=NOW)
        assert (paused.status, paused.revision) == ("paused", before.revision + 1)
        assert steering.resume(paused, now=LATER).status == status


def test_a_batch_that_has_not_begun_is_due_when_it_is_resumed_and_not_before_its_time() -> None:
    paused = steering.pause(QUEUED, now=NOW)
    assert steering.resume(paused, now=LATER).not_before == LATER
    far = LATER + timedelta(days=1)
    assert steering.resume(replace(paused, not_before=far), now=LATER).not_before == far


def test_items_that_were_at_work_may_end_a_paused_batch() -> None:
    paused = steering.pause(RUNNING, now=NOW)
    assert life_cycle.record(paused, Tally(succeeded=7), now=NOW).status == "paused"
    assert life_cycle.record(paused, Tally(succeeded=8), now=NOW).status == "completed"


def test_a_paused_batch_can_be_cancelled() -> None:
    cancelling = life_cycle.cancel(steering.pause(RUNNING, now=NOW), now=NOW)
    assert cancelling.status == "cancelling"
    assert life_cycle.record(cancelling, Tally(cancelled=8), now=NOW).status == "cancelled"


@pytest.mark.parametrize(
    ("step", "statuses"),
    [
        (steering.pause, {"queued", "running"}),
        (steering.resume, {"paused"}),
        (partial(steering.move, not_before=LATER), {"queued", "paused"}),
        (partial(steering.retry, codes=()), {"completed", "failed", "cancelled"}),
        (steering.lapse, {"open", "validating", "queued", "running", "paused"}),
    ],
)
def test_a_step_changes_no_state_that_it_is_not_for(step: Any, statuses: set[Status]) -> None:
    every: tuple[Status, ...] = (
        *("open", "validating", "queued", "running", "paused", "cancelling"),
        *("completed", "failed", "cancelled", "expired", "abandoned"),
    )
    changed = {
        status for status in every if (batch := replace(NEW, status=status, failed=1)) != step(batch, now=NOW)
    }
    assert changed == statuses


def test_a_batch_that_has_begun_is_not_moved() -> None:
    begun = replace(QUEUED, started_at=NOW)
    assert steering.move(begun, now=NOW, not_before=LATER) == begun


def test_a_batch_is_not_retried_after_its_deadline() -> None:
    late = replace(ENDED, expires_at=NOW)
    assert steering.retry(late, now=LATER, codes=()) == late
    assert steering.retry(replace(ENDED, expires_at=LATER), now=NOW, codes=()).status == "queued"


def test_the_follow_up_of_a_retry_has_the_rights_of_the_caller_who_retried() -> None:
    ended = replace(ENDED, scopes=("batches:write", "emails:send"))
    assert steering.retry(ended, now=LATER, codes=(), scopes=["batches:write"]).scopes == ("batches:write",)
    # A gateway of an earlier release does not tell.
    assert steering.retry(ended, now=LATER, codes=()).scopes == ended.scopes


def test_a_retry_takes_failed_items_step_by_step_and_ends_with_the_last_of_them() -> None:
    batch = steering.retry(ENDED, now=LATER, codes=("timeout",))
    assert (batch.status, batch.finished_at, batch.retry_codes) == ("queued", None, ("timeout",))
    batch = steering.redrive(batch, [1, 4], chunks=1, is_last=False, now=LATER)
    assert (batch.failed, batch.retry_after, batch.chunk_count) == (1, 4, 2)
    # As long as more of them are taken, what has ended does not end the batch.
    batch = life_cycle.record(life_cycle.run(batch, now=LATER), Tally(succeeded=2), now=LATER)
    assert (batch.status, batch.done, batch.started_at) == ("running", 10, NOW)
    batch = steering.redrive(batch, [9], chunks=1, is_last=True, now=LATER)
    assert (batch.status, batch.failed, batch.retry_codes) == ("running", 0, None)
    batch = life_cycle.record(batch, Tally(failed=1), now=LATER)
    assert (batch.status, batch.succeeded, batch.failed) == ("completed", 9, 1)


def test_a_batch_that_was_stopped_for_its_failures_is_not_cancelled_by_a_retry() -> None:
    failed = replace(
        ENDED, status="failed", error_code=life_cycle.TOO_MANY_FAILURES, error_detail="3 have failed"
    )
    for cancelled, status in ((4, "failed"), (0, "completed")):
        stopped = replace(failed, succeeded=7 - cancelled, cancelled=cancelled)
        batch = steering.retry(stopped, now=LATER, codes=())
        assert show(batch, Surroundings()).error is None
        batch = steering.redrive(batch, [1, 4, 9], chunks=1, is_last=True, now=LATER)
        batch = life_cycle.record(life_cycle.run(batch, now=LATER), Tally(succeeded=3), now=LATER)
        assert (batch.status, batch.succeeded) == (status, 10 - cancelled)
        assert bool(show(batch, Surroundings()).error) is bool(cancelled)


def test_a_retry_that_its_owner_cancels_ends_the_batch_as_cancelled() -> None:
    stopped = replace(
        ENDED,
        status="failed",
        succeeded=3,
        cancelled=4,
        error_code=life_cycle.TOO_MANY_FAILURES,
        error_detail="3 have failed",
    )
    retried = steering.retry(stopped, now=LATER, codes=())
    # Before any of its items is queued again, nothing is left undone.
    again = life_cycle.cancel(retried, now=LATER)
    assert (again.status, again.error_code) == ("failed", life_cycle.TOO_MANY_FAILURES)
    running = life_cycle.run(
        steering.redrive(retried, [1, 4, 9], chunks=1, is_last=True, now=LATER), now=LATER
    )
    stopping = life_cycle.cancel(running, now=LATER)
    for tally in (Tally(succeeded=1, cancelled=2), Tally(failed=1, cancelled=2), Tally(succeeded=3)):
        ended = life_cycle.record(stopping, tally, now=LATER)
        assert (ended.status, ended.error_code) == ("cancelled", None)
        assert show(ended, Surroundings()).error is None
    late = life_cycle.record(steering.lapse(running, now=LATER), Tally(cancelled=3), now=LATER)
    assert late.status == "expired"


def test_a_retry_that_finds_no_item_ends_the_batch_again() -> None:
    batch = steering.redrive(
        steering.retry(ENDED, now=LATER, codes=("x",)), [], chunks=0, is_last=True, now=LATER
    )
    assert (batch.status, batch.finished_at, batch.failed) == ("completed", LATER, 3)


def test_without_failed_items_there_is_nothing_to_retry() -> None:
    batch = replace(ENDED, failed=0, succeeded=10)
    assert steering.retry(batch, now=NOW, codes=()) == batch


def test_a_retry_that_is_cancelled_before_its_first_item_ends_at_once() -> None:
    batch = life_cycle.cancel(steering.retry(ENDED, now=LATER, codes=()), now=LATER)
    assert (batch.status, batch.retry_codes, batch.failed) == ("completed", None, 3)


def test_a_batch_past_its_deadline_stops_and_expires_with_the_results_that_it_has() -> None:
    late = steering.lapse(RUNNING, now=LATER)
    assert (late.status, late.error_code) == ("cancelling", "deadline-exceeded")
    ended = life_cycle.record(late, Tally(succeeded=1, cancelled=7), now=LATER)
    assert (ended.status, ended.succeeded, ended.cancelled) == ("expired", 3, 7)


@pytest.mark.parametrize("status", ["open", "validating"])
def test_an_upload_past_its_deadline_ends_at_once(status: Status) -> None:
    late = steering.lapse(replace(NEW, status=status), now=LATER)
    assert (late.status, late.skipped, late.error_code) == ("expired", 10, "deadline-exceeded")
