"""The rest of a chunk after its turn goes on in chunks of the size that its items have shown to be right."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from batch_processor.execution import reports
from batch_processor.execution.claims import Claim, RemainingItems
from batch_processor.execution.running_chunk import Death, ItemFailure, RunningChunk, StoredItem
from batch_processor.operations.echo import OPERATION as ECHO

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLAIM = Claim(
    UUID(int=1), 0, run=3, lost=0, suspect=False, attempt=2, first_position=0, last_position=99,
    positions=None, due_at=NOW, owner_id="ann", operation="echo", status="running", accepted_at=NOW,
    traceparent=None, request_id=None, is_first=True, claimed_at=NOW,
)  # fmt: skip


class Stopped(RunningChunk):
    """Plays a chunk of a hundred items, the first of which have ended."""

    def __init__(self, ended: int) -> None:
        super().__init__(ECHO, [StoredItem(n, "1") for n in range(100)], attempt=2)
        self._ended = set(range(ended))

    def stop_beginning(self) -> None:
        """Do nothing: it has stopped."""

    async def execute(self) -> None:
        """Do nothing: it has been executed."""


@pytest.mark.parametrize(
    ("ended", "sizes"), [(20, [20] * 4), (30, [24, 24, 22]), (1, [7] * 14 + [1]), (49, [26, 25])]
)
def test_the_rest_of_a_chunk_goes_on_in_chunks_as_large_as_a_turn_began(ended: int, sizes: list[int]) -> None:
    report = reports.of_ended(CLAIM, Stopped(ended), None, has_had_turn=True)
    assert (report.fate, [rest.items for rest in report.rests]) == ("done", sizes)
    listed = [position for rest in report.rests for position in rest.positions or ()]
    assert listed == list(range(ended, 100))
    # They keep their attempt, and their place ahead of what was never at work.
    assert {(rest.attempt, rest.run, rest.delay_s) for rest in report.rests} == {(2, 3, 0)}


@pytest.mark.parametrize("ended", [0, 50, 99])
def test_a_chunk_that_one_more_turn_would_finish_or_that_began_nothing_stays_whole(ended: int) -> None:
    report = reports.of_ended(CLAIM, Stopped(ended), None, has_had_turn=True)
    assert (report.fate, report.rests) == ("ready", ())


def test_items_that_have_not_begun_in_a_turn_do_not_wait_for_those_at_work() -> None:
    run, beyond = Stopped(10), RemainingItems(100, 149, None, 50, 2)
    run.not_begun = list(range(30, 100))
    report = reports.of_running(CLAIM, run, beyond, begins=True, has_had_turn=True)
    assert (report.fate, report.begins, report.keeps) == ("running", True, list(range(10, 30)))
    assert report.rests[0] == beyond
    assert [rest.items for rest in report.rests[1:]] == [24, 24, 22]
    run.let_go(run.not_begun)
    assert (run.unfinished, run.not_begun) == (list(range(10, 30)), [])


@pytest.mark.parametrize(
    ("claim", "ended", "has_had_turn"),
    [
        (CLAIM, 10, False),
        (CLAIM, 30, True),
        (replace(CLAIM, suspect=True), 10, True),
        (replace(CLAIM, gate="batch:1"), 10, True),
    ],
    ids=["before its turn is over", "nothing is at work", "suspect", "limited"],
)
def test_a_chunk_at_work_stays_whole_otherwise(claim: Claim, ended: int, has_had_turn: bool) -> None:
    run = Stopped(ended)
    run.not_begun = list(range(30, 100))
    report = reports.of_running(claim, run, None, begins=False, has_had_turn=has_had_turn)
    assert (report.fate, report.rests, report.keeps) == ("running", (), ())


def test_a_chunk_that_was_stopped_before_its_turn_was_over_stays_whole() -> None:
    report = reports.of_ended(CLAIM, Stopped(20), None)
    assert (report.fate, report.rests) == ("ready", ())


def test_items_that_are_tried_again_are_not_part_of_the_rest() -> None:
    run = Stopped(10)
    run.retries = list(range(10, 20))
    run.take().setbacks.extend(ItemFailure(n, "unavailable", "") for n in run.retries)
    report = reports.of_ended(CLAIM, run, None, has_had_turn=True)
    again, *parts = report.rests
    assert (again.positions, again.attempt, again.run) == (list(range(10, 20)), 3, 0)
    assert [(rest.items, rest.attempt) for rest in parts] == [(20, 2)] * 4


def test_the_rest_of_a_chunk_whose_process_died_gives_up_its_place() -> None:
    run = Stopped(10)
    run.death = Death(suspects=[10], detail="")
    report = reports.of_ended(CLAIM, run, None)
    suspect, left = report.rests
    assert (suspect.positions, suspect.suspect) == ([10], True)
    # As much again may come: the owner's other chunks do not wait for that.
    assert (left.items, left.run) == (89, 0)
