"""The life cycle of a batch, in any order of messages."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from batch_processor.batches import life_cycle, steering
from batch_processor.batches.life_cycle import Description, Status, StoredBatch, Tally
from contracts.batches import Kind

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DESCRIPTION = Description(kind="batch", operation="echo", accepted_at=NOW)
NEW = StoredBatch(id=UUID(int=1), owner_id="ann")


def complete(count: int, *, kind: Kind = "batch") -> StoredBatch:
    known = life_cycle.describe(NEW, replace(DESCRIPTION, kind=kind), now=NOW)
    return life_cycle.receive(life_cycle.seal(known, count, now=NOW), count, now=NOW)


def started(count: int, *, kind: Kind = "batch") -> StoredBatch:
    queued = life_cycle.start(complete(count, kind=kind), chunk_size=100, now=NOW)
    return life_cycle.run(queued, now=NOW)


def test_a_batch_waits_for_its_description_its_seal_and_all_its_items() -> None:
    assert not life_cycle.describe(NEW, DESCRIPTION, now=NOW).is_complete
    assert not life_cycle.seal(life_cycle.receive(NEW, 3, now=NOW), 3, now=NOW).is_complete
    sealed = life_cycle.seal(life_cycle.describe(NEW, DESCRIPTION, now=NOW), 3, now=NOW)
    assert not life_cycle.receive(sealed, 2, now=NOW).is_complete
    assert complete(3).is_complete


def test_a_complete_batch_is_cut_into_chunks_of_the_size() -> None:
    queued = life_cycle.start(complete(1001), chunk_size=500, now=NOW)
    assert (queued.status, queued.chunk_count) == ("queued", 3)


def test_a_task_that_is_queued_at_once_equals_one_made_by_its_messages() -> None:
    description = Description(
        kind="task", operation="echo", accepted_at=NOW, not_before=NOW + timedelta(hours=1), priority=7,
        options='{"priority":"high"}', scopes=("quotes:read",), metadata='{"a":1}', expires_at=NOW,
        on_finished="{}", source="{}",
    )  # fmt: skip
    received = life_cycle.receive(NEW, 1, now=NOW)
    complete = life_cycle.seal(life_cycle.describe(received, description, now=NOW), 1, now=NOW)
    step_by_step = life_cycle.start(complete, chunk_size=500, now=NOW)
    assert life_cycle.queue_task(NEW.id, NEW.owner_id, description, now=NOW) == step_by_step


def test_a_batch_without_items_is_completed_at_once() -> None:
    done = life_cycle.start(complete(0), chunk_size=500, now=NOW)
    assert (done.status, done.finished_at) == ("completed", NOW)


def test_the_last_item_completes_the_batch_and_nothing_is_counted_after() -> None:
    half = life_cycle.record(started(4), Tally(succeeded=2), now=NOW)
    assert half.status == "running"
    done = life_cycle.record(half, Tally(succeeded=1, failed=1), now=NOW + timedelta(seconds=1))
    assert (done.status, done.finished_at) == ("completed", NOW + timedelta(seconds=1))
    assert life_cycle.record(done, Tally(succeeded=9), now=NOW) == done


def test_a_task_fails_with_its_item_but_a_batch_completes_with_failures() -> None:
    assert life_cycle.record(started(1, kind="task"), Tally(failed=1), now=NOW).status == "failed"
    assert life_cycle.record(started(1), Tally(failed=1), now=NOW).status == "completed"


def test_a_batch_of_which_more_fails_than_is_tolerated_stops_and_is_failed() -> None:
    tolerant = replace(started(10), options='{"tolerated_failure": {"count": 2}}')
    going_on = life_cycle.record(tolerant, Tally(succeeded=1, failed=2), now=NOW)
    assert (going_on.status, going_on.error_code) == ("running", None)
    stopping = life_cycle.record(going_on, Tally(failed=1), now=NOW)
    assert (stopping.status, stopping.error_code) == ("cancelling", "too-many-failures")
    assert stopping.cancelling_since == NOW
    ended = life_cycle.record(stopping, Tally(cancelled=6), now=NOW)
    assert (ended.status, ended.failed, ended.cancelled) == ("failed", 3, 6)
    assert life_cycle.record(going_on, Tally(failed=7), now=NOW).status == "failed"


def test_a_retry_of_a_batch_that_failed_too_often_runs_to_its_end() -> None:
    tolerant = replace(started(4), options='{"tolerated_failure": {"percent": 25}}')
    ended = life_cycle.record(tolerant, Tally(failed=4), now=NOW)
    again = steering.retry(ended, now=NOW, codes=["timeout"])
    assert (again.status, again.error_code) == ("queued", None)
    redriven = steering.redrive(again, [0, 1], chunks=1, is_last=True, now=NOW)
    half = life_cycle.record(life_cycle.run(redriven, now=NOW), Tally(failed=1), now=NOW)
    assert half.status == "running"
    assert life_cycle.record(half, Tally(succeeded=1), now=NOW).status == "completed"


def test_cancelling_waits_for_the_items_at_work() -> None:
    cancelling = life_cycle.cancel(started(4), now=NOW)
    assert (cancelling.status, cancelling.cancelling_since) == ("cancelling", NOW)
    done = life_cycle.record(cancelling, Tally(succeeded=1, cancelled=3), now=NOW)
    assert done.status == "cancelled"


def test_a_cancel_that_came_too_late_changes_nothing() -> None:
    cancelling = life_cycle.cancel(started(2), now=NOW)
    assert life_cycle.record(cancelling, Tally(succeeded=2), now=NOW).status == "completed"
    done = life_cycle.record(started(2), Tally(succeeded=2), now=NOW)
    assert life_cycle.cancel(done, now=NOW) == done


def test_a_cancel_before_the_description_is_remembered() -> None:
    early = life_cycle.cancel(NEW, now=NOW)
    assert early.status == "open"
    known = life_cycle.receive(
        life_cycle.seal(life_cycle.describe(early, DESCRIPTION, now=NOW), 2, now=NOW), 2, now=NOW
    )
    done = life_cycle.start(known, chunk_size=100, now=NOW)
    assert (done.status, done.cancelled, done.chunk_count) == ("cancelled", 2, 0)


def test_an_open_upload_whose_cancel_came_first_ends_with_its_description() -> None:
    early = life_cycle.cancel(life_cycle.receive(NEW, 2, now=NOW), now=NOW)
    ended = life_cycle.describe(early, DESCRIPTION, now=NOW)
    assert (ended.status, ended.total, ended.cancelled) == ("cancelled", 2, 2)


def test_items_that_a_cancel_has_overtaken_are_counted_as_cancelled() -> None:
    ended = life_cycle.cancel(life_cycle.describe(NEW, DESCRIPTION, now=NOW), now=NOW)
    late = life_cycle.receive(ended, 3, now=NOW)
    assert (late.status, late.received, late.total, late.cancelled) == ("cancelled", 3, 3, 3)
    # Of a sealed upload the number is known before the items have come.
    sealed = life_cycle.receive(life_cycle.seal(ended, 5, now=NOW), 3, now=NOW)
    assert (sealed.received, sealed.total, sealed.cancelled) == (3, 5, 5)


def test_a_batch_that_was_cancelled_in_its_chunks_accepts_no_more_items() -> None:
    done = life_cycle.record(life_cycle.cancel(started(2), now=NOW), Tally(cancelled=2), now=NOW)
    assert done.status == "cancelled"
    assert life_cycle.receive(done, 3, now=NOW) == done


def test_an_upload_that_is_cancelled_learns_from_its_seal_how_many_items_it_had() -> None:
    cancelled = life_cycle.cancel(
        life_cycle.receive(life_cycle.describe(NEW, DESCRIPTION, now=NOW), 5, now=NOW), now=NOW
    )
    assert (cancelled.status, cancelled.total) == ("cancelled", 5)
    sealed = life_cycle.seal(cancelled, 8, now=NOW)
    assert (sealed.status, sealed.total, sealed.cancelled) == ("cancelled", 8, 8)


def test_an_abandoned_upload_takes_nothing_more() -> None:
    gone = life_cycle.abandon(life_cycle.receive(NEW, 5, now=NOW), now=NOW)
    assert gone.status == "abandoned"
    assert life_cycle.receive(gone, 3, now=NOW).received == 5
    assert not life_cycle.seal(life_cycle.describe(gone, DESCRIPTION, now=NOW), 5, now=NOW).is_complete


def test_an_expired_upload_skips_what_had_arrived() -> None:
    expired = life_cycle.expire(
        life_cycle.receive(life_cycle.describe(NEW, DESCRIPTION, now=NOW), 5, now=NOW), now=NOW
    )
    assert (expired.status, expired.total, expired.skipped) == ("expired", 5, 5)


def test_an_upload_to_which_something_was_appended_meanwhile_does_not_expire() -> None:
    described = life_cycle.describe(NEW, DESCRIPTION, now=NOW - timedelta(hours=30))
    grown = life_cycle.receive(described, 5, now=NOW)
    assert life_cycle.expire(grown, silent_s=86_400, now=NOW) == grown
    assert life_cycle.expire(described, silent_s=86_400, now=NOW).status == "expired"


@pytest.mark.parametrize("status", ["queued", "running", "completed"])
def test_a_batch_that_has_started_is_not_abandoned_expired_or_failed(status: Status) -> None:
    batch = replace(started(2), status=status)
    assert life_cycle.abandon(batch, now=NOW) == batch
    assert life_cycle.expire(batch, now=NOW) == batch
    assert life_cycle.fail(batch, code="x", detail="y", now=NOW) == batch


def test_a_second_description_does_not_change_the_first() -> None:
    known = life_cycle.describe(NEW, DESCRIPTION, now=NOW)
    assert life_cycle.describe(known, replace(DESCRIPTION, operation="other"), now=NOW) == known


@pytest.mark.parametrize(
    ("scopes", "missing"),
    [
        (("batches:write",), ["emails:send"]),
        ((), ["emails:send"]),
        (("batches:write", "emails:send"), []),
        (None, []),
    ],
)
def test_scopes_are_missing_when_those_that_were_sent_do_not_cover_the_operation(
    scopes: tuple[str, ...] | None, missing: list[str]
) -> None:
    batch = life_cycle.describe(NEW, replace(DESCRIPTION, scopes=scopes), now=NOW)
    assert life_cycle.missing_scopes(batch, {"emails:send"}) == missing


def test_running_items_are_never_more_than_the_remaining_ones() -> None:
    batch = life_cycle.record(started(10), Tally(succeeded=8), now=NOW)
    counts = life_cycle.counts(batch, running=5)
    assert (counts.pending, counts.running, counts.succeeded) == (0, 2, 8)


def test_a_batch_that_ran_has_started_also_when_it_was_cancelled_meanwhile() -> None:
    queued = life_cycle.start(complete(2), chunk_size=2, now=NOW)
    cancelling = life_cycle.cancel(queued, now=NOW)
    counted = life_cycle.record(cancelling, Tally(succeeded=1), now=NOW)
    assert counted.started_at == NOW
    assert life_cycle.record(cancelling, Tally(cancelled=1), now=NOW).started_at is None


class LifeOfABatch(RuleBasedStateMachine):
    """Messages in any order, doubled, late; workers that finish items in any portions."""

    def __init__(self) -> None:
        super().__init__()
        self.batch = NEW
        self.size = 7
        self.sent = 0
        self.endings = 0

    def step(self, after: StoredBatch) -> None:
        assert after.revision >= self.batch.revision
        if self.batch.is_finished:
            assert after.status == self.batch.status, "a finished batch keeps its status"
        elif after.is_finished:
            self.endings += 1
        self.batch = after

    def begin_if_complete(self) -> None:
        self.step(life_cycle.start(self.batch, chunk_size=3, now=NOW))

    @rule()
    def describe(self) -> None:
        self.step(life_cycle.describe(self.batch, DESCRIPTION, now=NOW))
        self.begin_if_complete()

    @precondition(lambda self: self.sent < self.size)
    @rule(count=st.integers(1, 7))
    def receive(self, count: int) -> None:
        count = min(count, self.size - self.sent)
        self.sent += count
        self.step(life_cycle.receive(self.batch, count, now=NOW))
        self.begin_if_complete()

    @rule()
    def seal(self) -> None:
        self.step(life_cycle.seal(life_cycle.describe(self.batch, DESCRIPTION, now=NOW), self.size, now=NOW))
        self.begin_if_complete()

    @rule()
    def run(self) -> None:
        self.step(life_cycle.run(self.batch, now=NOW))

    @precondition(lambda self: self.batch.status in ("running", "cancelling"))
    @rule(succeeded=st.integers(0, 7), failed=st.integers(0, 7))
    def finish_items(self, succeeded: int, failed: int) -> None:
        left = self.size - self.batch.done
        succeeded = min(succeeded, left)
        tally = Tally(succeeded=succeeded, failed=min(failed, left - succeeded))
        self.step(life_cycle.record(self.batch, tally, now=NOW))

    @precondition(lambda self: self.batch.status == "cancelling")
    @rule(count=st.integers(1, 7))
    def cancel_items(self, count: int) -> None:
        tally = Tally(cancelled=min(count, self.size - self.batch.done))
        self.step(life_cycle.record(self.batch, tally, now=NOW))

    @rule()
    def cancel(self) -> None:
        self.step(life_cycle.cancel(self.batch, now=NOW))

    @rule()
    def expire(self) -> None:
        self.step(life_cycle.expire(self.batch, now=NOW))

    @rule()
    def abandon(self) -> None:
        self.step(life_cycle.abandon(self.batch, now=NOW))

    @rule()
    def refuse(self) -> None:
        if self.batch.is_complete:
            self.step(life_cycle.fail(self.batch, code="unknown-operation", detail="none", now=NOW))

    @invariant()
    def counts_add_up(self) -> None:
        counts = life_cycle.counts(self.batch, running=3)
        parts = (
            counts.pending,
            counts.running,
            counts.succeeded,
            counts.failed,
            counts.cancelled,
            counts.skipped,
        )
        assert min(parts) >= 0
        assert sum(parts) == counts.total

    @invariant()
    def it_ends_once(self) -> None:
        assert self.endings == self.batch.is_finished
        assert (self.batch.finished_at is not None) == self.batch.is_finished

    @invariant()
    def a_finished_batch_has_nothing_left(self) -> None:
        if self.batch.is_finished and self.batch.status != "abandoned":
            assert life_cycle.counts(self.batch, running=0).pending == 0

    @invariant()
    def what_never_started_ran_nothing(self) -> None:
        if self.batch.started_at is None:
            assert self.batch.succeeded == self.batch.failed == 0


TestLifeOfABatch = LifeOfABatch.TestCase
TestLifeOfABatch.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
