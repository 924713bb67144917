"""Owners take turns, and a caller that stops waiting costs the others nothing."""

from __future__ import annotations

import asyncio
import random
import weakref
from collections import Counter

import pytest

from chassis.errors import TooManyAtOnce
from chassis.turns import OwnerTurns


class RequestCrowd:
    """Requests that keep their turns until they are told to end."""

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
    crowd = RequestCrowd(OwnerTurns(most=3, of_owner=2, most_waiting=100))
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
    crowd = RequestCrowd(OwnerTurns(most=1, of_owner=1, most_waiting=100))
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
    crowd = RequestCrowd(OwnerTurns(most=1, of_owner=1, most_waiting=100))
    await crowd.come(*["a"] * 102)
    with pytest.raises(TooManyAtOnce):
        await crowd.tasks[101]
    await crowd.come("b")
    await crowd.end("a")
    assert crowd.begun == ["a", "b"]
    for task in crowd.tasks:
        task.cancel()
    await asyncio.gather(*crowd.tasks, return_exceptions=True)


async def test_a_caller_that_stops_waiting_does_not_send_its_owner_to_the_end() -> None:
    crowd = RequestCrowd(OwnerTurns(most=1, of_owner=1, most_waiting=100))
    await crowd.come(*"abbc")
    crowd.tasks[1].cancel()
    await asyncio.gather(crowd.tasks[1], return_exceptions=True)
    await crowd.end("a")
    assert crowd.begun == ["a", "b"]
    await crowd.end("b")
    assert crowd.begun == ["a", "b", "c"]
    await crowd.end("c")


async def test_some_turns_are_left_for_another_owner_however_many_hold_some() -> None:
    crowd = RequestCrowd(OwnerTurns(most=10, of_owner=8, most_waiting=100, leaves_room=True))
    await crowd.come(*"a" * 20)
    assert crowd.begun == ["a"] * 5
    for number, owner in enumerate("bcde", start=1):
        await crowd.come(*owner * 20)
        assert owner in crowd.begun, f"the first of {number} others finds a turn"
    for _ in range(3):
        await crowd.end("a")
    assert crowd.begun[10:] == ["c"], "one of three that ended; two are left for owners that have none"
    await crowd.come("f")
    assert crowd.begun[-1] == "f"
    for task in crowd.tasks:
        task.cancel()
    await asyncio.gather(*crowd.tasks, return_exceptions=True)


async def test_the_order_is_that_of_a_search_through_all_owners() -> None:
    chance = random.Random(7)
    crowd = RequestCrowd(OwnerTurns(most=5, of_owner=3, most_waiting=100))
    waiting: list[str] = []
    at_work: Counter[str] = Counter()
    last: dict[str, int] = {}
    expected: list[str] = []

    def admit() -> None:
        while at_work.total() < 5:
            able = [owner for owner in waiting if at_work[owner] < 3]
            if not able:
                return
            following = min(able, key=lambda owner: (at_work[owner], last.get(owner, -1)))
            waiting.remove(following)
            at_work[following] += 1
            last[following] = len(expected)
            expected.append(following)

    for _ in range(2000):
        held = list(at_work.elements())
        if held and chance.random() < 0.5:
            owner = chance.choice(held)
            at_work[owner] -= 1
            admit()
            await crowd.end(owner)
        else:
            owner = chance.choice("abcdefgh")
            waiting.append(owner)
            admit()
            await crowd.come(owner)
        assert crowd.begun == expected
    for task in crowd.tasks:
        task.cancel()
    await asyncio.gather(*crowd.tasks, return_exceptions=True)


@pytest.mark.parametrize("others", [10, 1500])
async def test_whoever_asks_one_at_a_time_has_no_advantage_over_requests_that_wait_together(
    others: int,
) -> None:
    crowd = RequestCrowd(OwnerTurns(most=4, of_owner=1, most_waiting=100))
    names = [f"other {number}" for number in range(others)]
    await crowd.come("a", "a", *names)
    # All turns are equally long, so the one that began first ends first.
    for turn in range(4 * (others + 1)):
        owner = crowd.begun[turn]
        await crowd.end(owner)
        await crowd.come(owner)
    counts = Counter(crowd.begun)
    assert set(counts) == {"a", *names}
    assert max(counts.values()) - min(counts.values()) <= 1
    for task in crowd.tasks:
        task.cancel()
    await asyncio.gather(*crowd.tasks, return_exceptions=True)


async def test_a_thousand_of_the_owners_that_come_and_go_are_remembered_while_others_wait() -> None:
    class Owner(str):
        """A name that tells when nobody has it any more."""

        __slots__ = ("__weakref__",)

    names = weakref.WeakSet[Owner]()
    turns = OwnerTurns(most=1, of_owner=1, most_waiting=10)
    held = Owner("first")
    await turns.take(held)
    for number in range(3000):
        names.add(owner := Owner(number))
        following = asyncio.create_task(turns.take(owner))
        await asyncio.sleep(0)
        turns.give_back(held)
        await following
        held = owner
    assert len(names) < 1200


async def test_a_caller_that_leaves_as_a_turn_is_given_back_is_passed_over() -> None:
    turns = OwnerTurns(most=1, of_owner=1, most_waiting=10)
    await turns.take("a")
    waiting = [asyncio.create_task(turns.take("a")) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    turns.give_back("a")
    left, began = await asyncio.gather(*waiting, return_exceptions=True)
    assert (type(left), began) == (asyncio.CancelledError, None)
    assert (turns.taken_by("a"), turns.waiting) == (1, 0)
