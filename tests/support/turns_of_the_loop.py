"""The time that others wait for the loop: in processor time, so that a busy machine makes no difference."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def turns_of_the_loop() -> AsyncIterator[Callable[[], float]]:
    """Measure during the block; its value returns the longest turn so far, in seconds of this thread."""
    longest_s = 0.0

    async def take_turns() -> None:
        nonlocal longest_s
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            longest_s, before = max(longest_s, now - before), now

    task = asyncio.create_task(take_turns())
    await asyncio.sleep(0)
    try:
        yield lambda: longest_s
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
