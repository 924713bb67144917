"""A batch as it is shown."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from batch_processor.batches.life_cycle import StoredBatch
from batch_processor.batches.views import Surroundings, show
from contracts.batches import ItemError

START = datetime(2026, 1, 1, tzinfo=UTC)
DONE = StoredBatch(
    id=UUID(int=1),
    owner_id="ann",
    operation="echo",
    status="completed",
    accepted_at=START,
    total=100,
    received=100,
    succeeded=90,
    failed=10,
    started_at=START,
    finished_at=START + timedelta(seconds=4),
)


def test_the_rate_of_a_finished_batch_is_that_of_its_run() -> None:
    view = show(DONE, Surroundings(failures={"timeout": 10}))
    assert (view.rate_per_s, view.eta_s, view.errors) == (25.0, None, {"timeout": 10})


def test_all_results_can_be_read_once_a_batch_has_ended() -> None:
    assert show(DONE, Surroundings()).results_complete is True
    for status in ("open", "validating", "queued", "running", "paused", "cancelling"):
        unended = replace(DONE, status=status, succeeded=40, finished_at=None)
        assert show(unended, Surroundings()).results_complete is False


def test_a_running_batch_has_an_eta() -> None:
    begun = datetime.now(UTC) - timedelta(seconds=10)
    running = replace(DONE, status="running", succeeded=40, started_at=begun, finished_at=None)
    view = show(running, Surroundings(running=20))
    assert view.eta_s is not None
    assert (view.counts.pending, view.counts.running) == (30, 20)
    # Nobody knows when one ends that waits for somebody.
    assert show(replace(running, status="paused"), Surroundings()).eta_s is None
    assert show(running, Surroundings(paused="owner")).eta_s is None


def test_the_error_is_the_batchs_own_or_that_of_the_only_item() -> None:
    refused = replace(DONE, status="failed", error_code="unknown-operation", error_detail="none")
    assert show(refused, Surroundings()).error == {"code": "unknown-operation", "detail": "none"}
    failed = show(DONE, Surroundings(error=ItemError(code="timeout", detail="late")))
    assert failed.error == {"code": "timeout", "detail": "late"}


def test_each_unfinished_batch_says_what_happens_next() -> None:
    assert show(DONE, Surroundings()).next is None
    waiting = replace(DONE, status="queued", succeeded=0, failed=0, started_at=None, finished_at=None)
    begins = show(waiting, Surroundings()).next
    assert begins is not None
    assert (begins.what, begins.by) == ("its first item", START + timedelta(minutes=10))
    later = show(replace(waiting, not_before=START + timedelta(hours=1)), Surroundings()).next
    assert later is not None
    assert later.by == START + timedelta(hours=1, minutes=10)
    since = START + timedelta(minutes=1)
    compared = show(replace(waiting, status="validating", validating_since=since), Surroundings()).next
    assert compared is not None
    assert (compared.what, compared.by) == ("the comparison of its custom ids", START + timedelta(minutes=11))
    again = show(
        replace(waiting, status="running", started_at=START),
        Surroundings(next_attempt=2, next_attempt_at=START + timedelta(minutes=1)),
    ).next
    assert again is not None
    assert (again.what, again.by) == ("attempt 2", START + timedelta(minutes=11))
    since = START + timedelta(minutes=2)
    ends = show(replace(waiting, status="cancelling", cancelling_since=since), Surroundings()).next
    assert ends is not None
    assert (ends.what, ends.by) == ("the end of its running items", START + timedelta(minutes=3))


def test_a_running_batch_estimates_its_end_from_its_first_result_on() -> None:
    before = datetime.now(UTC)
    begun, expires = before - timedelta(seconds=10), before + timedelta(hours=1)
    running = replace(DONE, status="running", started_at=begun, finished_at=None, expires_at=expires)
    first = show(replace(running, succeeded=0, failed=0), Surroundings(running=5)).next
    assert first is not None
    assert (first.what, first.by) == ("its first result", expires)
    last = show(replace(running, succeeded=40, failed=10), Surroundings(running=5)).next
    assert last is not None
    assert last.what == "its last item (an estimate)"
    assert last.by is not None
    # Half of the items are left, which take as long as those before.
    after = datetime.now(UTC)
    assert before + (before - begun) <= last.by <= after + (after - begun)


def test_an_open_upload_says_when_it_expires() -> None:
    upload = replace(DONE, status="open", started_at=None, finished_at=None)
    appended, day = START + timedelta(hours=2), 86_400.0
    for appended_at, expires_at, by in (
        (None, None, START + timedelta(days=1)),
        (appended, None, appended + timedelta(days=1)),
        (appended, START + timedelta(hours=9), START + timedelta(hours=9)),
        (appended, START + timedelta(days=9), appended + timedelta(days=1)),
    ):
        batch = replace(upload, appended_at=appended_at, expires_at=expires_at)
        expected = show(batch, Surroundings(), upload_expires_s=day).next
        assert expected is not None
        assert (expected.what, expected.by) == ("the rest of its items, or it expires", by)


def test_a_wait_for_others_ends_when_the_batch_expires() -> None:
    waiting = replace(DONE, status="queued", started_at=None, finished_at=None)
    expires = START + timedelta(hours=9)
    for batch, around in (
        (replace(waiting, status="paused"), Surroundings()),
        (waiting, Surroundings(paused="owner")),
        (waiting, Surroundings(is_limited=True)),
    ):
        for expires_at in (None, expires):
            waits = show(replace(batch, expires_at=expires_at), around).next
            assert waits is not None
            assert waits.by == expires_at


def test_no_step_is_promised_for_later_than_the_batch_expires() -> None:
    expires = START + timedelta(minutes=5)
    batch = replace(DONE, succeeded=0, failed=0, finished_at=None, expires_at=expires)
    running, queued = replace(batch, status="running"), replace(batch, status="queued", started_at=None)
    for late, around in (
        (queued, Surroundings()),
        (replace(queued, not_before=START + timedelta(hours=1)), Surroundings()),
        (replace(batch, status="validating", validating_since=START), Surroundings()),
        (running, Surroundings(next_attempt=2, next_attempt_at=START)),
        (replace(running, succeeded=50), Surroundings(running=5)),
    ):
        step = show(late, around).next
        assert step is not None
        assert step.by == expires, step
