"""The threads for which owners take turns, all busy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from chassis import threads


@asynccontextmanager
async def busy_threads() -> AsyncIterator[Callable[[], int]]:
    """Keep the threads of this process busy during the block; yield a function that counts who waits."""
    turns = threads.of_process().turns
    owners = [f"busy {number}" for number in range(threads.MOST_AT_ONCE)]
    for owner in owners:
        await turns.take(owner)
    try:
        yield lambda: turns.waiting
    finally:
        for owner in owners:
            turns.give_back(owner)
