"""Crossings that wait to be written: one owner with very many of them delays no other."""

from __future__ import annotations

import asyncio

import pytest

from stock_data.alerts.crossings import Crossing, CrossingQueue
from stock_data.alerts.watched import OVER, UNDER
from support.alert_ticks import MONDAY, tick, watched


def crossing(owner_id: str) -> Crossing:
    return Crossing(watched("above", 10, UNDER, owner_id=owner_id), OVER, tick(11), MONDAY)


async def test_owners_take_turns_and_each_keeps_its_order() -> None:
    queue = CrossingQueue()
    of_a, of_b = [crossing("a") for _ in range(500)], [crossing("b") for _ in range(2)]
    for one in (*of_a, *of_b):
        queue.add(one)
    assert len(queue) == 502
    assert await queue.take(5) == [of_a[0], of_b[0], of_a[1], of_b[1], of_a[2]]
    assert (len(queue), list(queue), list(queue.firsts())) == (497, of_a[3:], [of_a[3]])
    assert await queue.take(1_000) == of_a[3:]


async def test_whoever_takes_waits_until_there_is_one() -> None:
    queue = CrossingQueue()
    taking = asyncio.create_task(queue.take(10))
    await asyncio.sleep(0)
    assert not taking.done()
    queue.add(one := crossing("a"))
    assert await taking == [one]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await queue.take(10)
