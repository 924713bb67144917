"""Coroutines begun by hand end as they would have ended under `await`."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from gateway.http.stepping import Finished, begin


async def nothing_to_wait_for() -> int:
    return 7


async def two_waits() -> str:
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    return "done"


async def fails(*, after: int) -> None:
    for _ in range(after):
        await asyncio.sleep(0)
    raise KeyError("broken")


def test_work_that_waits_for_nothing_is_finished_at_once() -> None:
    with pytest.raises(Finished) as finished:
        begin(nothing_to_wait_for())
    assert finished.value.value == 7


async def test_the_rest_of_the_work_goes_on_where_it_waits() -> None:
    assert await begin(two_waits()) == "done"


async def test_an_error_comes_out_of_the_step_that_raised_it() -> None:
    with pytest.raises(KeyError):
        begin(fails(after=0))
    rest = begin(fails(after=1))
    with pytest.raises(KeyError):
        await rest


async def test_a_time_out_reaches_the_work_that_waits() -> None:
    seen: list[str] = []

    async def patient() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    rest = begin(patient())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await rest
    assert seen == ["cancelled"]


async def test_nothing_that_cancelled_work_held_waits_for_the_garbage_collector() -> None:
    class Answer:
        """Something large."""

    async def sends(answer: Answer) -> None:
        await asyncio.sleep(60)
        del answer

    async def serves(answer: Answer) -> None:
        try:
            await begin(sends(answer))
        except asyncio.CancelledError:
            return

    answer = Answer()
    left = weakref.ref(answer)
    task = asyncio.create_task(serves(answer))
    await asyncio.sleep(0)
    del answer
    gc.disable()
    try:
        task.cancel()
        await task
        del task
        assert left() is None
    finally:
        gc.enable()
