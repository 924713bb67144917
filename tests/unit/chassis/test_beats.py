"""Tasks that wait for the next beat of a shared clock wake together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from chassis import beats


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_tasks_that_wait_for_a_beat_wake_together_whenever_they_began(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def wake_up(begins_in_s: float) -> int:
        await asyncio.sleep(begins_in_s)
        await beats.following(0.25)
        return round(asyncio.get_running_loop().time() * 1000) // 250

    async def wake_all() -> list[int]:
        # Begun within the first half of a beat, all have the same next one.
        await beats.following(0.25)
        return await asyncio.gather(*(wake_up(begins_in_s) for begins_in_s in (0, 0.013, 0.037, 0.071)))

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert len(set(runner.run(wake_all()))) == 1


async def test_the_next_beat_is_always_in_the_future() -> None:
    for _ in range(3):
        assert 0 < beats.due_in_s(0.05) <= 0.05
        await beats.following(0.05)
