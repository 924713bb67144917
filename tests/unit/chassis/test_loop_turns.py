"""Work that owners have sent at once is done in small parts, between which the loop serves all others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from chassis.loop_turns import USUAL_WEIGHT, LoopTurns


async def passes(turns: LoopTurns, done: list[str]) -> list[list[str]]:
    """Return the work of each pass of the loop until nothing waits."""
    found: list[list[str]] = [list(done)]
    while turns.waiting:
        before = len(done)
        await asyncio.sleep(0)
        found.append(done[before:])
    return found


async def test_a_pass_begins_as_much_as_it_may_and_the_loop_is_free_in_between() -> None:
    turns, done = LoopTurns(most=3 * USUAL_WEIGHT), list[str]()
    for number in range(8):
        turns.run("a", partial(done.append, str(number)))
    assert [len(part) for part in await passes(turns, done)] == [3, 3, 2]
    assert done == [str(number) for number in range(8)]


async def test_owners_take_turns_however_much_waits_for_one() -> None:
    turns, done = LoopTurns(most=4 * USUAL_WEIGHT), list[str]()
    for _ in range(1000):
        turns.run("a", partial(done.append, "a"))
    for owner in ("b", "b", "c"):
        turns.run(owner, partial(done.append, owner))
    first, second, third, *_ = await passes(turns, done)
    assert (first, second, third) == (["a"] * 4, ["a", "b", "c", "a"], ["b", "a", "a", "a"])
    assert len(done) == 1003


async def test_what_weighs_more_than_a_pass_is_made_up_for_before_anything_else_begins() -> None:
    turns, done = LoopTurns(most=10), list[str]()
    turns.run("a", partial(done.append, "heavy"), weight=35)
    turns.run("b", partial(done.append, "next"), weight=1)
    assert await passes(turns, done) == [["heavy"], [], [], ["next"]]


async def test_nobody_is_kept_from_a_turn_by_work_that_fails_or_has_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    turns, done = LoopTurns(most=1), list[str]()

    def fail() -> None:
        raise RuntimeError("broken")

    works: list[tuple[str, Callable[[], None]]] = [("a", fail), ("b", partial(done.append, "b"))]
    turns.run("a", partial(done.append, "a"), weight=1)
    gone = asyncio.create_task(turns.take("a", weight=1))
    await asyncio.sleep(0)
    gone.cancel()
    for owner, work in works:
        turns.run(owner, work, weight=1)
    await passes(turns, done)
    assert done == ["a", "b"]
    assert "work failed in its turn at the event loop" in capsys.readouterr().out


async def test_whoever_waits_for_a_turn_goes_on_in_it() -> None:
    turns, done = LoopTurns(most=2), list[int]()

    async def take(number: int) -> None:
        await turns.take("a", weight=1)
        done.append(number)

    tasks = [asyncio.create_task(take(number)) for number in range(7)]
    await asyncio.gather(*tasks)
    assert done == list(range(7))


async def test_a_stop_waits_for_what_waits_for_a_turn() -> None:
    turns, done = LoopTurns(most=1), list[int]()
    for number in range(100):
        turns.run("a", partial(done.append, number), weight=3)
    await turns.finish(within_s=60)
    assert (done, turns.waiting) == ([*range(100)], 0)


async def test_a_stop_waits_for_a_limited_time_and_says_what_was_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    turns = LoopTurns(most=1)
    turns.run("a", lambda: None, weight=1_000_000_000)
    turns.run("a", lambda: None)
    await turns.finish(within_s=0)
    assert turns.waiting == 1
    assert "work of owners was not begun before the stop" in capsys.readouterr().out


async def test_the_longest_wait_is_known() -> None:
    turns = LoopTurns(most=1)
    assert turns.oldest_s == 0
    turns.run("a", lambda: None, weight=1_000_000_000)
    turns.run("b", lambda: None)
    await asyncio.sleep(0.01)
    turns.run("c", lambda: None)
    assert turns.oldest_s >= 0.01
