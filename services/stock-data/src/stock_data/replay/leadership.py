"""One feed among replicas: whoever holds an advisory lock of PostgreSQL leads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg

from chassis import logging
from chassis.errors import DatabaseUnavailable
from chassis.postgres import AWAY

log = logging.get(__name__)

_Dedicated: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# Any number that all replicas share.
LOCK = 7_214_803_552
_TIMEOUT_S = 3
# The server must notice a leader whose machine vanished, or nobody could take over.
_SERVER_SETTINGS = {
    "application_name": "stock-data feed",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}
_LOST = (*AWAY, asyncpg.PostgresError, DatabaseUnavailable, TimeoutError)


class Leadership:
    """Runs a piece of work while this process holds the lock, on a connection kept for nothing else."""

    def __init__(self, dsn: str, *, check_s: float = 1.0) -> None:
        self._dsn = dsn
        self._check_s = check_s
        self._said = ""

    async def lead(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Try for the lock for ever; hold it as long as the connection lives, and run `work` meanwhile."""
        while True:
            try:
                async with self._connected() as connection:
                    await self._wait_for_lock(connection)
                    await self._work(connection, work)
            except _LOST as error:
                self._say(str(error) or type(error).__name__)
            await asyncio.sleep(self._check_s)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[_Dedicated]:
        connection = await asyncpg.connect(
            self._dsn, timeout=_TIMEOUT_S, command_timeout=_TIMEOUT_S, server_settings=_SERVER_SETTINGS
        )
        try:
            yield connection
        finally:
            # Ending the session is what gives the lock back; a server that is away needs no goodbye.
            connection.terminate()

    async def _wait_for_lock(self, connection: _Dedicated) -> None:
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
            await asyncio.sleep(self._check_s)
        self._said = ""

    async def _work(self, connection: _Dedicated, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` and watch the lock; the end of either ends both."""
        tasks = [asyncio.create_task(work()), asyncio.create_task(self._watch(connection))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    def _say(self, reason: str) -> None:
        """Log why there is no lock, once for as long as the reason stays the same."""
        if reason != self._said:
            log.warning("the feed has no lock", reason=reason)
        self._said = reason

    async def _watch(self, connection: _Dedicated) -> None:
        while True:
            await asyncio.sleep(self._check_s)
            await connection.fetchval("SELECT 1")
