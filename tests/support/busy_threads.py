"""The threads for which owners take turns, all busy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from chassis import threads


@asynccontextmanager
async def busy_threads(*owners: str) -> AsyncIterator[Callable[[], int]]:
    """Keep the thread of each owner busy during the block, or all threads of this process.

    Yield a function that counts who waits.
    """
    turns = threads.of_process().turns
    busy = owners or [f"busy {number}" for number in range(threads.MOST_AT_ONCE)]
    for owner in busy:
        await turns.take(owner)
    try:
        yield lambda: turns.waiting
    finally:
        for owner in busy:
            turns.give_back(owner)
