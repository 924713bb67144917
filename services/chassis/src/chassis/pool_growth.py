"""The growth of a pool of database connections."""

from __future__ import annotations

import asyncio
from collections import deque

from asyncpg import Pool, Record
from asyncpg.pool import PoolConnectionProxy


class PoolGrowth:
    """Lets statements that begin together share a connection, as periodic work does on every full second.

    A connection costs the server a process and some MiB, and is kept for a minute. Most statements take a
    millisecond, so one that is lent comes back sooner than a new one is open. After `moment_s` seconds, which
    is about what opening takes, the pool may grow.
    """

    def __init__(self, *, moment_s: float = 0.02) -> None:
        self._moment_s = moment_s
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self, pool: Pool[Record], *, timeout_s: float) -> PoolConnectionProxy[Record]:
        """Lend a connection of `pool` that is idle within a moment, or a new one after it."""
        if not pool.get_idle_size() and 0 < pool.get_size() < pool.get_max_size():
            returned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(returned)
            try:
                await asyncio.wait([returned], timeout=self._moment_s)
            finally:
                if returned in self._waiting:
                    self._waiting.remove(returned)
        return await pool.acquire(timeout=timeout_s)

    def returned(self) -> None:
        """Wake the statement that has waited longest for a connection."""
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(None)
                return
