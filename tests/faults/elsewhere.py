"""A niced thread with a loop of its own, for everything that stands for another machine or only observes.

The relay, the provider and whoever watches the processes take no time away from the product's processors
then, and what keeps one of them busy delays no other.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

T = TypeVar("T")

# As the floods: the product's processes come first, and on a busy machine get nine tenths of the time.
NICENESS = 10


@asynccontextmanager
async def elsewhere(context: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Hold `context` in a niced thread for the length of the block; its value is shared with this one.

    What is done to the value from here must be safe between threads, as an assignment is.
    """
    entered: Future[tuple[T, asyncio.AbstractEventLoop]] = Future()
    over = asyncio.Event()

    async def hold() -> None:
        # In Linux a thread has its own niceness; the processes that others start do not have it.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        async with context as value:
            entered.set_result((value, asyncio.get_running_loop()))
            await over.wait()

    # A thread of its own, as a niceness cannot be taken back.
    with ThreadPoolExecutor(max_workers=1) as thread:
        held = asyncio.get_running_loop().run_in_executor(thread, asyncio.run, hold())
        try:
            entering = asyncio.wrap_future(entered)
            await asyncio.wait((held, entering), return_when=asyncio.FIRST_COMPLETED)
            if held.done():
                held.result()
            yield entering.result()[0]
        finally:
            entered.add_done_callback(lambda done: done.result()[1].call_soon_threadsafe(over.set))
            await held
