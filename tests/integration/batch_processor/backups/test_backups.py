"""Requests for backups on a real database, with a stand-in for the agent that takes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from batch_processor.backups.answers import PATIENCE_S, BackupAnswers
from batch_processor.errors import BackupFailed, BackupNotFound, NoBackupAgent
from batch_processor.operations.database_backup import OPERATION
from chassis.deadlines import Deadline
from contracts.backups import Backup, GetBackup, RequestBackup
from support.batch_engine import BatchEngine
from support.batch_stack import BatchProcessors, Caller
from support.waiting import until
from upkeep.backups import AT_WORK

FIRST, SECOND, THIRD = (UUID(int=number) for number in (1, 2, 3))
TAKE = "UPDATE backup_requests SET began_at = now() WHERE ended_at IS NULL RETURNING id"
COMPLETE = "UPDATE backup_requests SET ended_at = now(), file = 'a.tar', bytes = 5, is_encrypted = true"
FAIL = "UPDATE backup_requests SET ended_at = now(), error = 'the disk is full'"


@pytest.fixture
def answers(engine: BatchEngine) -> BackupAnswers:
    return BackupAnswers(engine.postgres)


async def request(answers: BackupAnswers, batch_id: UUID) -> Backup:
    return await answers.request(RequestBackup(batch_id=batch_id), Deadline.after(5))


async def get(answers: BackupAnswers, id_: UUID) -> Backup:
    return await answers.get(GetBackup(id=id_), Deadline.after(5))


@asynccontextmanager
async def agent_at_work(dsn: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """Yield a connection that holds the lock of whoever makes a backup, and close it at the end."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f"SELECT pg_advisory_lock({AT_WORK})")
        yield connection
    finally:
        await connection.close()


async def test_requests_during_a_backup_get_it_and_later_requests_get_another(
    answers: BackupAnswers, dsn: str
) -> None:
    found = await asyncio.gather(*(request(answers, id_) for id_ in (FIRST, SECOND, THIRD)))
    assert {backup.id for backup in found} == {found[0].id}
    async with agent_at_work(dsn) as agent:
        assert await agent.fetchval(TAKE) == found[0].id
        joined = await request(answers, SECOND)
        assert (joined.id, joined.file, joined.began_at is None) == (found[0].id, None, False)
        await agent.execute(COMPLETE)
    done = await get(answers, found[0].id)
    assert (done.file, done.bytes, done.is_encrypted) == ("a.tar", 5, True)
    # An item of the same batch, or the same item, whose worker has died: it is not made twice.
    assert await request(answers, found[0].id) == done
    other = next(id_ for id_ in (FIRST, SECOND, THIRD) if id_ != found[0].id)
    later = await request(answers, other)
    assert (later.id, later.file) == (other, None)


async def test_agents_are_notified_of_a_request(answers: BackupAnswers, dsn: str) -> None:
    told = asyncio.Event()
    connection = await asyncpg.connect(dsn)
    await connection.add_listener("backup_requests", lambda *_: told.set())
    await request(answers, FIRST)
    async with asyncio.timeout(5):
        await told.wait()
    await connection.close()


async def test_a_failed_backup_says_why_and_is_made_again_for_the_same_batch(
    answers: BackupAnswers, dsn: str
) -> None:
    await request(answers, FIRST)
    async with agent_at_work(dsn) as agent:
        await agent.execute(TAKE)
        await agent.execute(FAIL)
        with pytest.raises(BackupFailed, match="the disk is full") as caught:
            await get(answers, FIRST)
        assert caught.value.retryable
        again = await request(answers, FIRST)
        assert (again.id, again.began_at, again.ended_at) == (FIRST, None, None)


async def test_a_backup_whose_agent_has_died_fails_at_once_and_does_not_block_the_next(
    answers: BackupAnswers, dsn: str
) -> None:
    await request(answers, FIRST)
    async with agent_at_work(dsn) as agent:
        await agent.execute(TAKE)
        assert (await get(answers, FIRST)).ended_at is None
    with pytest.raises(BackupFailed, match="ended before the backup was complete"):
        await get(answers, FIRST)
    assert (await request(answers, SECOND)).id == SECOND


async def test_a_request_that_no_agent_takes_fails_and_says_how_to_start_one(
    engine: BatchEngine, dsn: str
) -> None:
    impatient = BackupAnswers(engine.postgres, patience_s=0)
    await request(impatient, FIRST)
    async with agent_at_work(dsn):
        # It waits for a backup by hand.
        assert (await get(impatient, FIRST)).ended_at is None
    with pytest.raises(NoBackupAgent, match=r"within 0 s.*make backup-agent") as caught:
        await get(impatient, FIRST)
    assert not caught.value.retryable
    with pytest.raises(BackupNotFound):
        await get(impatient, SECOND)


async def test_a_request_for_a_backup_fails_when_no_agent_takes_it_within_a_minute(
    answers: BackupAnswers, engine: BatchEngine
) -> None:
    assert PATIENCE_S == 60
    await request(answers, FIRST)
    async with engine.postgres.connection() as connection:
        await connection.execute("UPDATE backup_requests SET requested_at = now() - interval '55 s'")
    assert (await get(answers, FIRST)).ended_at is None
    async with engine.postgres.connection() as connection:
        await connection.execute("UPDATE backup_requests SET requested_at = now() - interval '61 s'")
    with pytest.raises(NoBackupAgent):
        await get(answers, FIRST)


async def test_requests_are_forgotten_after_a_week(answers: BackupAnswers, engine: BatchEngine) -> None:
    await request(answers, FIRST)
    async with engine.postgres.connection() as connection:
        await connection.execute(COMPLETE)
        await connection.execute("UPDATE backup_requests SET ended_at = now() - interval '8 days'")
        await request(answers, SECOND)
        assert [row["id"] for row in await connection.fetch("SELECT id FROM backup_requests")] == [SECOND]


async def test_the_items_of_a_batch_share_one_backup(
    house: BatchProcessors, caller: Caller, dsn: str
) -> None:
    await house.start()
    batch_id = await caller.submit(OPERATION.name, [{}, {}, {}])
    async with agent_at_work(dsn) as agent:

        async def is_taken() -> bool:
            return bool(await agent.fetchval(TAKE) == batch_id)

        await until(is_taken)
        await agent.execute(COMPLETE)
    assert (await caller.reach(batch_id)).status == "completed"
    assert {result.result["file"] for result in await caller.results(batch_id)} == {"a.tar"}
    assert await caller.database.fetchval("SELECT count(*) FROM backup_requests") == 1
