"""The deadline of an item."""

from __future__ import annotations

import pytest

from batch_processor.execution import deadlines
from batch_processor.execution.deadlines import ItemDeadline
from support.clocks import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(deadlines, "time", clock)
    return clock


def test_only_the_items_own_seconds_count(clock: Clock) -> None:
    deadline = ItemDeadline(10)
    clock.now += 3
    with deadline.stopped():
        clock.now += 60
        assert deadline.left_s() == 7
    clock.now += 8
    assert deadline.left_s() == -1


def test_without_an_item_there_is_nothing_to_stop(clock: Clock) -> None:
    with deadlines.stopped():
        clock.now += 1


def test_the_item_at_work_is_found(clock: Clock) -> None:
    deadline = ItemDeadline(10)
    token = deadlines.CURRENT.set(deadline)
    try:
        with deadlines.stopped():
            clock.now += 60
    finally:
        deadlines.CURRENT.reset(token)
    assert deadline.left_s() == 10
