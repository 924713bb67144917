"""Owners take turns, and a caller that stops waiting costs the others nothing."""

from __future__ import annotations

import asyncio

import pytest

from chassis.errors import TooManyAtOnce
from chassis.turns import OwnerTurns


class Crowd:
    """Requests that hold their turns until they are told to end."""

    def __init__(self, turns: OwnerTurns) -> None:
        self._turns = turns
        self.begun: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.ends: dict[str, list[asyncio.Event]] = {}

    async def come(self, *owners: str) -> None:
        for owner in owners:
            self.tasks.append(asyncio.create_task(self._hold(owner)))
            await asyncio.sleep(0)

    async def end(self, owner: str) -> None:
        self.ends[owner].pop(0).set()
        for _ in range(5):
            await asyncio.sleep(0)

    async def _hold(self, owner: str) -> None:
        async with self._turns.turn(owner):
            self.begun.append(owner)
            end = asyncio.Event()
            self.ends.setdefault(owner, []).append(end)
            await end.wait()


async def test_an_owner_has_its_share_and_the_one_with_the_fewest_is_next() -> None:
    crowd = Crowd(OwnerTurns(most=3, of_owner=2, most_waiting=100))
    await crowd.come(*"aaaa")
    assert crowd.begun == ["a", "a"]
    await crowd.come(*"bbc")
    assert crowd.begun == ["a", "a", "b"]
    await crowd.end("a")
    assert crowd.begun[3:] == ["c"]
    await crowd.end("a")
    assert crowd.begun[4:] == ["a"]
    await crowd.end("c")
    assert crowd.begun[5:] == ["b"], "both have one at work; b waits longer"
    for owner in "abba":
        await crowd.end(owner)
    await asyncio.gather(*crowd.tasks)


async def test_a_caller_that_stops_waiting_takes_nobody_elses_turn() -> None:
    crowd = Crowd(OwnerTurns(most=1, of_owner=1, most_waiting=100))
    await crowd.come(*"abc")
    waiting = crowd.tasks[1]
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await crowd.end("a")
    assert crowd.begun == ["a", "c"]
    await crowd.come("d")
    # Cancelled in the very moment in which its turn came.
    crowd.ends["c"].pop(0).set()
    await asyncio.sleep(0)
    crowd.tasks[3].cancel()
    await crowd.come("e")
    for _ in range(5):
        await asyncio.sleep(0)
    assert crowd.begun[-1] == "e"
    await crowd.end("e")


async def test_an_owner_with_very_many_waiting_is_refused() -> None:
    crowd = Crowd(OwnerTurns(most=1, of_owner=1, most_waiting=100))
    await crowd.come(*["a"] * 102)
    with pytest.raises(TooManyAtOnce):
        await crowd.tasks[101]
    await crowd.come("b")
    await crowd.end("a")
    assert crowd.begun == ["a", "b"]
    for task in crowd.tasks:
        task.cancel()
    await asyncio.gather(*crowd.tasks, return_exceptions=True)
