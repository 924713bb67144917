"""A process of the post office that kills itself at the boundary of one of its writes.

A boundary is the moment before a transaction that has written is committed, or after it, or after a statement
of its own that has changed something. `run` is the target of a process.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from chassis import queries
from chassis.postgres import Postgres
from support.doubles.post_office import OfficeWorkers, PostOffice
from support.doubles.smtp import SmtpServer

Work = Callable[[PostOffice], Awaitable[None]]

_WRITES = re.compile(r"\bINSERT\s+INTO\b|\bDELETE\s+FROM\b|\bUPDATE\s+\w+(\s+AS\s+\w+)?\s+SET\b")


def run(dsn: str, port: int, work: Work, at: int) -> None:
    """Do `work` on the database and the relay that are named, and be killed at boundary `at` (from 0)."""
    queries.load("chassis", "emailer")
    _die_at(at)
    asyncio.run(_work(dsn, port, work))


async def _work(dsn: str, port: int, work: Work) -> None:
    postgres = Postgres(dsn)
    await postgres.open()
    workers = OfficeWorkers()
    await work(PostOffice(postgres, SmtpServer(port=port), dsn=dsn, workers=workers))
    await workers.close()
    await postgres.close()


def _die_at(at: int) -> None:
    passed = 0

    async def boundary() -> None:
        nonlocal passed
        if passed == at:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    watch(boundary)


def watch(
    boundary: Callable[[], Awaitable[None]], *, patch: Callable[[type, str, object], None] = setattr
) -> None:
    """Call `boundary` at each boundary of what this process writes from now on."""
    has_written: set[int] = set()

    def watched(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(connection: asyncpg.Connection[Any], query: str, *values: Any, **options: Any) -> Any:
            ends = query.startswith(("COMMIT", "ROLLBACK"))
            commits = query.startswith("COMMIT") and id(connection) in has_written
            if ends:
                has_written.discard(id(connection))
            if commits:
                await boundary()
            answer = await method(connection, query, *values, **options)
            has_changed = (
                _WRITES.search(query) and answer not in (None, []) and not str(answer).endswith(" 0")
            )
            if has_changed and connection.is_in_transaction():
                has_written.add(id(connection))
            elif has_changed or commits:
                await boundary()
            return answer

        return call

    for name in ("execute", "fetch", "fetchrow", "fetchval"):
        patch(asyncpg.Connection, name, watched(getattr(asyncpg.Connection, name)))
