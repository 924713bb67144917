"""A thread pool of the loop whose threads are all busy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any


@contextmanager
def busy_threads() -> Iterator[Callable[[], int]]:
    """Keep the loop's threads busy during the block; yield a function that counts the calls that wait."""
    pool, go_on, waiting = ThreadPoolExecutor(max_workers=1), threading.Event(), 0

    def submit(*call: Any, **more: Any) -> Future[Any]:
        nonlocal waiting
        waiting += 1
        return submitted(*call, **more)

    asyncio.get_running_loop().set_default_executor(pool)
    pool.submit(go_on.wait)
    submitted, pool.submit = pool.submit, submit  # type: ignore[method-assign]  # to count the calls
    try:
        yield lambda: waiting
    finally:
        go_on.set()
