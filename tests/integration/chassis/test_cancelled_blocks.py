"""A block that is cancelled, wherever it waits, gives its connection back clean, and the pool keeps it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any, Literal

import asyncpg
import pytest

from chassis.postgres import Postgres
from support.databases import FreshDatabase
from support.waiting import until

Moment = Literal["asked", "answered"]
Block = Callable[[Postgres], Coroutine[Any, Any, None]]
Admin = asyncpg.Connection

COUNT = "SELECT count(*) FROM guests WHERE id > $1"
ADD = "INSERT INTO guests VALUES ($1)"
# What PostgreSQL says of another connection: its state, since when a transaction is open, and its locks.
SEEN = """
SELECT state, xact_start, (SELECT count(*) FROM pg_locks AS lock WHERE lock.pid = activity.pid)
FROM pg_stat_activity AS activity WHERE pid = $1
"""
CLEAN = ("idle", None, 0)


@pytest.fixture
async def dsn(fresh_database: FreshDatabase) -> str:
    return await fresh_database()


@pytest.fixture
async def admin(dsn: str) -> AsyncIterator[Admin]:
    """Yield a connection beside the pool, in a database with a table of guests."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE guests (id int)")
    yield connection
    await connection.close()


async def _ask(postgres: Postgres) -> None:
    async with postgres.connection() as connection:
        await connection.fetch(COUNT, 1)


async def _change(postgres: Postgres) -> None:
    async with postgres.transaction() as connection:
        await connection.execute(ADD, 1)
        await connection.fetch(COUNT, 1)


async def _read_one_state(postgres: Postgres) -> None:
    async with (
        postgres.connection() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await connection.fetch(COUNT, 1)


async def _change_in_a_savepoint(postgres: Postgres) -> None:
    async with postgres.transaction() as connection, connection.transaction():
        await connection.execute(ADD, 1)


async def _change_many(postgres: Postgres) -> None:
    async with postgres.connection() as connection:
        await connection.executemany(ADD, [(number,) for number in range(10)])


async def _copy(postgres: Postgres) -> None:
    async with postgres.transaction() as connection:
        await connection.copy_records_to_table("guests", records=[(1,), (2,)], columns=["id"])


async def _fail(postgres: Postgres) -> None:
    async with postgres.transaction() as connection:
        await connection.execute(ADD, 1)
        raise LookupError("the block's own error")


@pytest.mark.parametrize("moment", ["asked", "answered"])
@pytest.mark.parametrize(
    "block", [_ask, _change, _read_one_state, _change_in_a_savepoint, _change_many, _copy, _fail]
)
async def test_a_block_cancelled_at_any_wait_leaves_nothing_open_and_costs_no_connection(
    dsn: str, admin: Admin, caplog: pytest.LogCaptureFixture, block: Block, moment: Moment
) -> None:
    for at in range(1, 20):
        # Each on a connection of its own: what was prepared once is not parsed again.
        postgres = Postgres(dsn, size=1)
        await postgres.open()
        pid = await _pid(postgres)
        cut = _Cut(at, moment)
        with contextlib.suppress(asyncio.CancelledError, LookupError):
            await asyncio.create_task(cut.run(block(postgres)))
        assert tuple(await admin.fetchrow(SEEN, pid) or ()) == CLEAN, f"cancelled at wait {at}"
        async with postgres.connection() as connection, connection.transaction(isolation="repeatable_read"):
            assert await connection.fetchval("SELECT pg_backend_pid()") == pid
        await postgres.close()
        if cut.waits < at:
            break
    assert 3 < at < 19
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_an_argument_that_does_not_fit_leaves_no_transaction_open(dsn: str, admin: Admin) -> None:
    postgres = Postgres(dsn, size=1)
    await postgres.open()
    pid = await _pid(postgres)
    with pytest.raises(asyncpg.DataError):
        async with postgres.connection() as connection:
            await connection.fetch(COUNT, "a hundred")
    assert tuple(await admin.fetchrow(SEEN, pid) or ()) == CLEAN
    async with postgres.connection() as connection:
        with pytest.raises(asyncpg.DataError):
            await connection.fetch(ADD, "a hundred")
    assert tuple(await admin.fetchrow(SEEN, pid) or ()) == CLEAN
    assert await _pid(postgres) == pid
    await postgres.close()


async def test_a_connection_whose_cancelled_statement_does_not_end_is_cut(dsn: str, admin: Admin) -> None:
    postgres = Postgres(dsn, size=1)
    await postgres.open()
    pid = await _pid(postgres)

    async def run() -> None:
        async with postgres.transaction() as connection:
            await connection.execute("SELECT pg_sleep(60)")

    async def sleeps() -> bool:
        waits_for = "SELECT wait_event FROM pg_stat_activity WHERE pid = $1"
        return bool(await admin.fetchval(waits_for, pid) == "PgSleep")

    running = asyncio.create_task(run())
    await until(sleeps)
    # What does not run notices no cancel.
    os.kill(pid, signal.SIGSTOP)
    try:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await _pid(postgres) != pid
    finally:
        os.kill(pid, signal.SIGCONT)
    await postgres.close()


class _Cut:
    """Cancels the task that runs a block at its `at`-th wait: as it begins, or as its answer is there."""

    def __init__(self, at: int, moment: Moment) -> None:
        self.waits = 0
        self._at = at
        self._moment = moment

    async def run(self, block: Coroutine[Any, Any, None]) -> None:
        await self._steps(block)

    @types.coroutine
    def _steps(self, block: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        task = asyncio.current_task()
        assert task is not None
        step: Callable[[Any], Any] = block.send
        value: Any = None
        while True:
            try:
                future = step(value)
            except StopIteration:
                return
            self.waits += 1
            if self.waits == self._at and self._moment == "answered":
                future.add_done_callback(lambda _: task.cancel())
            elif self.waits == self._at:
                task.get_loop().call_soon(task.cancel)
            try:
                yield future
            except BaseException as error:
                step, value = block.throw, error
            else:
                step, value = block.send, None


async def _pid(postgres: Postgres) -> int:
    async with postgres.connection() as connection:
        return int(await connection.fetchval("SELECT pg_backend_pid()"))
