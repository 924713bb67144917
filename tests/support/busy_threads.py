"""The threads of the shared pool, all of them busy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def busy_threads() -> Iterator[Callable[[], int]]:
    """Keep the loop's own threads busy for the length of the block; its value says how many calls wait."""
    pool, go_on = ThreadPoolExecutor(max_workers=1), threading.Event()
    asyncio.get_running_loop().set_default_executor(pool)
    pool.submit(go_on.wait)
    try:
        yield pool._work_queue.qsize
    finally:
        go_on.set()
