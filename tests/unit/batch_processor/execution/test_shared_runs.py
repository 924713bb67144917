"""Chunks of one item each run together, and none is to blame for another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from batch_processor.execution import reports
from batch_processor.execution.claims import Claim
from batch_processor.execution.running_chunk import Death, ItemFailure, RunningChunk, StoredItem
from batch_processor.execution.shared_runs import SharedRuns
from batch_processor.operation import Operation
from batch_processor.operations import echo, http_request
from support.waiting import until

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def claim(number: int = 1, **changes: Any) -> Claim:
    return replace(
        Claim(
            batch_id=UUID(int=number),
            number=0,
            run=1,
            lost=0,
            suspect=False,
            attempt=1,
            first_position=7,
            last_position=7,
            positions=None,
            due_at=NOW,
            owner_id="ann",
            operation="echo",
            status="queued",
            accepted_at=NOW,
            traceparent=None,
            request_id=None,
            is_first=False,
            claimed_at=NOW,
        ),
        **changes,
    )


class _Run(RunningChunk):
    """Ends as a test says, when it says so."""

    def __init__(self, operation: Operation, items: Sequence[StoredItem]) -> None:
        super().__init__(operation, items, attempt=1)
        self.items = items
        self.go_on = asyncio.Event()
        self.is_cancelled = False

    def stop_beginning(self) -> None:
        raise AssertionError("no part stops the others")

    async def execute(self) -> None:
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        for item in self.items:
            match item.payload:
                case '"fail"':
                    self._outcomes.failures.append(ItemFailure(item.position, "operation-failed", "no"))
                case '"later"':
                    self._outcomes.setbacks.append(ItemFailure(item.position, "timeout", "late"))
                case '"die"':
                    dead = [*self.death.suspects] if self.death is not None else []
                    self.death = Death("The process ended.", [*dead, item.position])
                case text:
                    self._outcomes.positions.append(item.position)
                    self._outcomes.results.append(text)


class _House:
    """Starts the runs of parts, and knows them."""

    def __init__(self) -> None:
        self.runs: list[_Run] = []
        self.shared = SharedRuns(self._start)

    def _start(self, _: Claim, operation: Operation, items: Sequence[StoredItem]) -> RunningChunk:
        self.runs.append(_Run(operation, items))
        return self.runs[-1]

    def join(self, number: int, payload: str, **changes: Any) -> RunningChunk:
        part = self.shared.join(claim(number, **changes), echo.OPERATION, [StoredItem(7, payload)])
        assert part is not None
        return part

    async def finish(self, *parts: RunningChunk) -> None:
        before = len(self.runs)
        executing = [asyncio.create_task(part.execute()) for part in parts]
        await until(lambda: len(self.runs) > before)
        self.runs[-1].go_on.set()
        await asyncio.gather(*executing)


async def test_each_chunk_has_the_outcome_of_its_own_item() -> None:
    house = _House()
    payloads = ["1", '"fail"', "3", '"later"']
    parts = [house.join(number, payload) for number, payload in enumerate(payloads)]
    await house.finish(*parts)
    assert [item.payload for item in house.runs[0].items] == payloads
    assert len(house.runs) == 1
    taken = [part.take() for part in parts]
    assert [outcomes.results for outcomes in taken] == [["1"], [], ["3"], []]
    assert [outcomes.positions for outcomes in taken] == [[7], [], [7], []]
    assert taken[1].failures == [ItemFailure(7, "operation-failed", "no")]
    assert (taken[3].setbacks, parts[3].retries) == ([ItemFailure(7, "timeout", "late")], [7])
    assert [part.unfinished for part in parts] == [[], [], [], [7]]


async def test_owners_and_attempts_have_runs_of_their_own() -> None:
    house = _House()
    parts = [house.join(1, "1"), house.join(2, "2", owner_id="bob"), house.join(3, "3", attempt=2)]
    executing = [asyncio.create_task(part.execute()) for part in parts]
    await until(lambda: len(house.runs) == 3)
    for run in house.runs:
        run.go_on.set()
    await asyncio.gather(*executing)
    assert [part.take().results for part in parts] == [["1"], ["2"], ["3"]]


async def test_an_item_that_comes_later_has_a_run_of_its_own() -> None:
    house = _House()
    await house.finish(house.join(1, "1"))
    await house.finish(house.join(2, "2"))
    assert len(house.runs) == 2


async def test_cancelling_one_item_leaves_the_others_alone() -> None:
    house = _House()
    first, second = house.join(1, "1"), house.join(2, "2")
    executing = [asyncio.create_task(part.execute()) for part in (first, second)]
    await until(lambda: house.runs)
    executing[0].cancel()
    await asyncio.gather(executing[0], return_exceptions=True)
    assert not house.runs[0].is_cancelled
    house.runs[0].go_on.set()
    await executing[1]
    assert (first.take().results, first.unfinished) == ([], [7])
    assert second.take().results == ["2"]


async def test_the_run_is_cancelled_with_its_last_item() -> None:
    house = _House()
    executing = [asyncio.create_task(house.join(number, "1").execute()) for number in (1, 2)]
    await until(lambda: house.runs)
    for one in executing:
        one.cancel()
    await until(lambda: house.runs[0].is_cancelled)
    await asyncio.gather(*executing, return_exceptions=True)


async def test_neighbours_at_work_in_a_process_that_died_are_not_charged() -> None:
    house = _House()
    claims = [claim(number) for number in (1, 2)]
    parts = [house.join(number, '"die"') for number in (1, 2)]
    await house.finish(*parts)
    for own, part in zip(claims, parts, strict=True):
        report = reports.of_ended(own, part, None)
        assert (report.outcomes.failures, report.outcomes.setbacks) == ([], [])
        [rest] = report.rests
        assert (rest.positions, rest.lost, rest.suspect) == ([7], 1, True)


async def test_the_only_item_at_work_in_a_process_that_died_is_to_blame() -> None:
    house = _House()
    parts = [house.join(1, '"die"'), house.join(2, "2")]
    await house.finish(*parts)
    report = reports.of_ended(claim(1), parts[0], None)
    assert [setback.code for setback in report.outcomes.setbacks] == ["worker-died"]
    assert reports.of_ended(claim(2), parts[1], None).outcomes.results == ["2"]


@pytest.mark.parametrize("changes", [{"lost": 1}, {"suspect": True}])
def test_an_item_that_may_be_harmful_runs_alone(changes: dict[str, Any]) -> None:
    assert _House().shared.join(claim(**changes), echo.OPERATION, [StoredItem(7, "1")]) is None


def test_only_small_items_of_light_functions_run_together() -> None:
    shared = _House().shared
    assert shared.join(claim(), http_request.OPERATION, [StoredItem(7, "1")]) is None
    assert shared.join(claim(), echo.OPERATION, [StoredItem(7, "1"), StoredItem(8, "2")]) is None
    assert shared.join(claim(), echo.OPERATION, [StoredItem(7, '"' + 70_000 * "x" + '"')]) is None
