"""The election of the one feed on a real PostgreSQL, and the position that a leader hands to the next one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace

import asyncpg
import pytest

from contracts.stocks import Quote, StreamPosition
from native.postgres import PostgresServer
from stock_data.replay.board import Board, ReplayPosition
from stock_data.replay.leadership import Leadership
from stock_data.replay.term import Term
from support.background import in_background
from support.databases import FreshDatabase
from support.waiting import until

START = date(2012, 5, 21)
NOON = datetime(2012, 5, 21, 16, tzinfo=UTC)
_PIDS = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()"


class FeedReplica:
    """Notes the terms it is given, and shows a moment of history on its board as long as it leads."""

    def __init__(self, dsn: str, *, start_day: date = START) -> None:
        self.board = Board(stale_after_s=10)
        self.leadership = Leadership(dsn, board=self.board, start_day=start_day, save_s=0.05)
        self.terms: list[Term] = []
        self.leads = False
        self.error: Exception | None = None

    async def work(self, term: Term) -> None:
        self.terms.append(term)
        self.leads = True
        try:
            if self.error is not None:
                raise self.error
            await asyncio.Event().wait()
        finally:
            self.leads = False

    def show(self, replayed: datetime, *, epoch: int | None = None, offset: int = 1) -> None:
        """Put a tick on the board, of this replica's term or of another leader."""
        position = StreamPosition(epoch=str(epoch or self.terms[-1].number), offset=offset)
        values = {"symbol": "A", "price": Decimal(1), "source": "replay", "stream": position}
        self.board.put([Quote.model_validate(values | {"as_of": datetime.now(UTC), "replayed": replayed})])


@asynccontextmanager
async def running(replica: FeedReplica) -> AsyncIterator[None]:
    async with in_background(replica.leadership.run_while_leader(replica.work)):
        yield


@pytest.fixture
async def dsn(fresh_database: FreshDatabase) -> str:
    return await fresh_database("stock_data")


@pytest.fixture
async def admin(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def saved(admin: asyncpg.Connection[asyncpg.Record]) -> datetime | None:
    return await admin.fetchval("SELECT replayed FROM replay")  # type: ignore[no-any-return]


async def test_one_of_two_replicas_leads_and_the_other_takes_over_when_it_ends(dsn: str) -> None:
    first, second = FeedReplica(dsn), FeedReplica(dsn)
    async with running(second):
        async with running(first):
            await until(lambda: first.leads or second.leads)
            leader, other = (first, second) if first.leads else (second, first)
            for _ in range(5):
                await asyncio.sleep(0.05)
                assert leader.leads
                assert not other.leads
        await until(lambda: second.leads)
        assert not first.leads


async def test_each_term_has_a_higher_number(dsn: str) -> None:
    numbers = []
    for _ in range(4):
        replica = FeedReplica(dsn)
        async with running(replica):
            await until(lambda replica=replica: replica.leads)
        numbers.append(replica.terms[0].number)
    assert numbers == sorted(set(numbers))


async def test_a_term_follows_the_quotes_received_even_after_the_loss_of_the_database(
    dsn: str, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    future = int(datetime.now(UTC).timestamp() * 1000) + 10**9
    replica = FeedReplica(dsn)
    replica.show(NOON, epoch=future)
    async with running(replica):
        await until(lambda: replica.leads)
    assert replica.terms[0].number == future + 1
    await admin.execute("DELETE FROM replay")
    fresh = FeedReplica(dsn)
    async with running(fresh):
        await until(lambda: fresh.leads)
    assert fresh.terms[0].number > datetime.now(UTC).timestamp() * 1000 - 60_000


async def test_the_next_leader_learns_the_position_of_the_last_one(
    dsn: str, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    first = FeedReplica(dsn)
    async with running(first):
        await until(lambda: first.leads)
        assert first.terms[0].position is None
        first.show(NOON)

        async def is_saved() -> bool:
            return await saved(admin) == NOON

        await until(is_saved)
    second = FeedReplica(dsn)
    async with running(second):
        await until(lambda: second.leads)
    position = second.terms[0].position
    assert position is not None
    assert position == first.board.position


async def test_a_position_that_stays_the_same_is_written_every_other_time(
    dsn: str, admin: asyncpg.Connection[asyncpg.Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0

    def due_in_s(_: float) -> float:
        nonlocal turns
        turns += 1
        return 0.01

    monkeypatch.setattr("stock_data.replay.leadership.beats", SimpleNamespace(due_in_s=due_in_s))
    await admin.execute(
        """
        CREATE SEQUENCE writes;
        CREATE FUNCTION count_write() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN PERFORM nextval('writes'); RETURN NEW; END $$;
        CREATE TRIGGER counted AFTER UPDATE ON replay FOR EACH ROW EXECUTE FUNCTION count_write();
        """
    )
    replica = FeedReplica(dsn)
    async with running(replica):
        await until(lambda: replica.leads)
        replica.show(NOON)
        first, begun = await admin.fetchval("SELECT nextval('writes')"), turns
        await until(lambda: turns >= begun + 40)
    written = await admin.fetchval("SELECT nextval('writes')") - first - 1
    assert written == pytest.approx((turns - begun) / 2, abs=3)


async def test_the_next_leader_goes_on_from_the_newer_of_received_and_saved_positions(
    dsn: str, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    await admin.execute(
        "INSERT INTO replay (term, start_day, replayed, shown_at) VALUES (1, $1, $2, now() - interval '8 s')",
        START,
        NOON,
    )
    replica = FeedReplica(dsn)
    replica.show(NOON + timedelta(minutes=8), epoch=1)
    async with running(replica):
        await until(lambda: replica.leads)
    assert replica.terms[0].position == replica.board.position


async def test_a_replay_with_another_start_day_begins_anew(
    dsn: str, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    await admin.execute(
        "INSERT INTO replay (term, start_day, replayed, shown_at) VALUES (1, $1, $2, now())", START, NOON
    )
    replica = FeedReplica(dsn, start_day=date(2000, 3, 1))
    replica.show(NOON, epoch=1)
    async with running(replica):
        await until(lambda: replica.leads)
    assert replica.terms[0].position is None
    again = FeedReplica(dsn, start_day=date(2000, 3, 1))
    async with running(again):
        await until(lambda: again.leads)
        again.show(NOON)

        async def is_saved() -> bool:
            return await saved(admin) == NOON

        await until(is_saved)
    last = FeedReplica(dsn, start_day=date(2000, 3, 1))
    async with running(last):
        await until(lambda: last.leads)
    assert isinstance(last.terms[0].position, ReplayPosition)


async def test_a_lost_connection_does_not_interrupt_the_work(
    dsn: str, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    replica = FeedReplica(dsn)
    async with running(replica):
        await until(lambda: replica.leads)
        for _ in range(3):
            pid = await until(lambda: admin.fetchval(_PIDS))
            await admin.execute("SELECT pg_terminate_backend($1)", pid)

            async def has_another(pid: int = pid) -> bool:
                return await admin.fetchval(_PIDS) not in (None, pid)

            await until(has_another)
        assert replica.leads
    assert len(replica.terms) == 1


async def test_a_leader_that_finds_a_later_term_steps_down(
    dsn: str, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    replica = FeedReplica(dsn)
    async with running(replica):
        await until(lambda: replica.leads)
        await admin.execute("UPDATE replay SET term = term + 1")
        await until(lambda: len(replica.terms) == 2)
        assert replica.terms[1].number > replica.terms[0].number + 1


async def test_work_that_ends_is_begun_again_in_another_term(dsn: str) -> None:
    replica = FeedReplica(dsn)

    async def give_up(term: Term) -> None:
        replica.terms.append(term)

    task = asyncio.create_task(replica.leadership.run_while_leader(give_up))
    await until(lambda: len(replica.terms) == 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_bug_in_the_work_is_not_hidden(dsn: str) -> None:
    replica = FeedReplica(dsn)
    replica.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await replica.leadership.run_while_leader(replica.work)


async def test_a_server_that_is_away_is_waited_for(postgres_server: PostgresServer, dsn: str) -> None:
    port = str(postgres_server.ports.postgres)
    replica = FeedReplica(dsn.replace(f":{port}/", ":1/"))
    async with running(replica):
        await asyncio.sleep(0.2)
        assert replica.terms == []


async def test_nothing_holds_the_lock_after_the_end(
    dsn: str, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    replica = FeedReplica(dsn)
    async with running(replica):
        await until(lambda: replica.leads)

    async def is_free() -> bool:
        return await admin.fetchval(_PIDS) is None

    await until(is_free)
