"""The work for which others wait for the loop, in calls: the same on every machine, busy or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from support.calls import counted_calls


@asynccontextmanager
async def turns_of_the_loop() -> AsyncIterator[Callable[[], int]]:
    """Count during the block; its value returns the most calls so far between two turns of another task."""
    most = 0

    async def take_turns(calls: Callable[[], int]) -> None:
        nonlocal most
        before = calls()
        while True:
            await asyncio.sleep(0)
            now = calls()
            most, before = max(most, now - before), now

    with counted_calls() as calls:
        task = asyncio.create_task(take_turns(calls))
        await asyncio.sleep(0)
        try:
            yield lambda: most
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
