"""The size of a pool of database connections: when it grows, and when it shrinks."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from asyncpg import InvalidAuthorizationSpecificationError, Pool, Record
from asyncpg.pool import PoolConnectionProxy

# The longest wait for a connection to come back; after it the pool grows.
_LONGEST_MOMENT_S = 0.2
# The server knows a new password a moment before the file that this process reads it from.
_LOGIN_AGAIN_S = 0.1
# One connection is enough for a pool that has lent fewer than this on average.
_LITTLE = 0.25


class PoolGrowth:
    """Lets statements that begin together share a connection, as periodic work does on every full second.

    A connection costs the server a process and some MiB, and is kept for a minute. Most statements take a
    millisecond, so one that is lent comes back sooner than a new one is open. After `moment_s` seconds, or as
    many as opening took last on a busy machine, the pool may grow. It shrinks to one connection after
    `shrinks_after_s` seconds with little work: those that were opened for a burst would each get a statement
    of every full second, and so never be idle for long.
    """

    def __init__(self, *, moment_s: float = 0.02, shrinks_after_s: float = 60) -> None:
        self._shortest_s = self._moment_s = moment_s
        self._shrinks_after_s = shrinks_after_s
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._lent = 0
        # How long connections were lent since `_measured_from`, in seconds of one connection.
        self._lent_s = 0.0
        self._measured_from = self._counted_at = time.monotonic()

    async def acquire(self, pool: Pool[Record], *, timeout_s: float) -> PoolConnectionProxy[Record]:
        """Lend a connection of `pool` that is idle within a moment, or a new one after it.

        A login that is refused is tried again until `timeout_s` seconds have passed.
        """
        if not pool.get_idle_size() and 0 < pool.get_size() < pool.get_max_size():
            returned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(returned)
            try:
                await asyncio.wait([returned], timeout=self._moment_s)
            finally:
                if returned in self._waiting:
                    self._waiting.remove(returned)
        is_opened = not pool.get_idle_size() and pool.get_size() < pool.get_max_size()
        began = time.monotonic()
        while True:
            try:
                connection = await pool.acquire(timeout=timeout_s)
                break
            except InvalidAuthorizationSpecificationError:
                if time.monotonic() > began + timeout_s:
                    raise
            await asyncio.sleep(_LOGIN_AGAIN_S)
        if is_opened:
            self._moment_s = max(self._shortest_s, min(time.monotonic() - began, _LONGEST_MOMENT_S))
        self._count(1)
        return connection

    def returned(self) -> None:
        """Wake the statement that has waited longest for a connection."""
        self._count(-1)
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(None)
                return

    async def shrink(self, pool: Pool[Record]) -> None:
        """Close all idle connections but one, if there was little work since the last look."""
        measured_s = time.monotonic() - self._measured_from
        if measured_s < self._shrinks_after_s:
            return
        self._count(0)
        has_little = self._lent_s < _LITTLE * measured_s
        self._measured_from, self._lent_s = self._counted_at, 0.0
        if not has_little or pool.get_idle_size() < 2:
            return
        # Idle connections are lent at once, so no other task runs in between.
        kept, *surplus = [await pool.acquire() for _ in range(pool.get_idle_size())]
        for connection in surplus:
            connection.terminate()
        # Released last, because the pool lends the connection first that came back last.
        await pool.release(kept)

    def _count(self, more: int) -> None:
        now = time.monotonic()
        self._lent_s += self._lent * (now - self._counted_at)
        self._counted_at = now
        self._lent += more
