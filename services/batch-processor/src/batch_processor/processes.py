"""Processes for functions that compute: bounded, started when first needed, made anew when they die."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from batch_processor.errors import PoolBroken
from chassis import logging

log = logging.get(__name__)

T = TypeVar("T")


class Processes:
    """A pool of at most `size` processes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._pool: ProcessPoolExecutor | None = None

    async def compute(self, function: Callable[..., T], *arguments: Any) -> T:
        """What `function` returns. Raises `PoolBroken` (retryable) when its process died."""
        pool = self._pool = self._pool or self._start()
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)
        except BrokenProcessPool as error:
            log.warning("computing processes died", error=str(error))
            # Whoever notices first throws the pool away, unless it has been replaced already.
            if self._pool is pool:
                self._pool = None
                pool.shutdown(wait=False)
            raise PoolBroken("A computing process died; the item is tried again.") from error

    async def close(self) -> None:
        """End the processes; what they compute now is lost."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        # Not fork: a copy of a process with threads and open connections is not safe to run.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._size, mp_context=context, initializer=_lower_priority)


def _lower_priority() -> None:
    """Let the process that answers and acknowledges go first."""
    os.nice(5)
