"""A database without disk space counts as unavailable, and as available when a write works again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from chassis import outbox, shares
from chassis.broker.handlers import InTransaction
from chassis.deadlines import Deadline
from chassis.errors import DatabaseUnavailable
from chassis.postgres import RESERVED, Postgres
from contracts.batches import INTAKE, CancelBatch
from contracts.stocks import Instruments, SearchSymbols
from contracts.topology import BATCH_PROCESSOR, GATEWAY
from support.background import in_background
from support.bench import Bench
from support.databases import FreshDatabase
from support.effects import cancel, has_effects, store
from support.waiting import until

# The error of a statement that the server has cancelled at its `statement_timeout`.
_TIMED_OUT = "DO $$ BEGIN RAISE 'too late' USING ERRCODE = '57014'; END $$"


@pytest.mark.parametrize("code", ["53100", "53200"], ids=["disk full", "out of memory"])
async def test_a_database_without_room_is_unavailable_until_a_write_works(bench: Bench, code: str) -> None:
    worker = await bench.run(await bench.build(BATCH_PROCESSOR))
    with pytest.raises(DatabaseUnavailable, match="accepts no writes"):
        async with worker.postgres.transaction() as connection:
            await connection.execute(f"DO $$ BEGIN RAISE 'no room' USING ERRCODE = '{code}'; END $$")
    assert await worker.postgres.ping()
    assert "database" not in worker.health.reasons()
    async with worker.postgres.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM outbox WHERE message_type = 'probe'") == 0


async def test_an_error_of_the_block_itself_is_not_taken_for_the_database(
    fresh_database: FreshDatabase, tmp_path: Path
) -> None:
    postgres = Postgres(await fresh_database())
    await postgres.open()
    for failing in (_read_missing(tmp_path), _refused(), _late()):
        with pytest.raises((FileNotFoundError, ConnectionRefusedError, TimeoutError)):
            async with postgres.connection():
                await failing
        assert postgres.check() is None
    await postgres.close()


async def test_a_slow_statement_does_not_make_the_database_unavailable_for_others(
    fresh_database: FreshDatabase,
) -> None:
    postgres = Postgres(await fresh_database())
    await postgres.open()
    for statement, timeout_s in ((_TIMED_OUT, None), ("SELECT pg_sleep(60)", 0.02)):
        with pytest.raises(DatabaseUnavailable, match="did not answer"):
            async with postgres.connection() as connection:
                await connection.execute(statement, timeout=timeout_s)
        assert postgres.check() is None
    await postgres.close()


class CountedPostgres(Postgres):
    """Counts how often the server was asked whether it answers."""

    asked = 0

    async def ping(self) -> bool:
        self.asked += 1
        return await super().ping()


async def test_a_server_that_has_just_answered_is_asked_only_while_a_statement_waits(
    fresh_database: FreshDatabase,
) -> None:
    postgres = CountedPostgres(await fresh_database())
    await postgres.open()

    async def look() -> int:
        # The first look is at once, and only a look that asks waits for anything.
        before = postgres.asked
        async with in_background(postgres.watch()):
            await asyncio.sleep(0)
        return postgres.asked - before

    async with postgres.connection() as connection:
        await connection.execute("SELECT 1")
    assert await look() == 0, "it has answered since"
    assert await look() == 1, "nothing was asked since the last look"
    async with postgres.connection() as connection:
        await connection.execute("SELECT 1")
    async with postgres.connection():
        assert await look() == 1, "something is still in progress"
    await postgres.close()


async def test_connections_are_renewed_now_and_then_but_not_while_statements_run(
    fresh_database: FreshDatabase,
) -> None:
    postgres = Postgres(await fresh_database(), renewed_after_s=0.5)
    await postgres.open()

    async def process() -> int:
        async with postgres.connection() as connection:
            return int(await connection.fetchval("SELECT pg_backend_pid()"))

    async with in_background(postgres.watch()):
        async with postgres.connection():
            before = await process()
            # Two looks, each of them due.
            await asyncio.sleep(2)
            assert await process() == before
        await until(lambda: _is_other(process, before))
    await postgres.close()


async def test_connections_of_a_burst_are_closed_when_there_is_little_work(
    fresh_database: FreshDatabase,
) -> None:
    dsn = await fresh_database()
    postgres, observer = Postgres(dsn, shrinks_after_s=1), await asyncpg.connect(dsn)
    await postgres.open()

    async def together() -> list[int]:
        """Use three connections at the same time, as periodic work does on a full second if it can."""
        async with postgres.connection() as one, postgres.connection() as two, postgres.connection() as three:
            return [connection.get_server_pid() for connection in (one, two, three)]

    async with in_background(postgres.watch()):
        opened = await together()

        async def is_small() -> bool:
            alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)"
            return bool(await observer.fetchval(alive, opened) == 1)

        await until(is_small)
        assert opened[0] in await together(), "the one that came back last is kept"
    await postgres.close()
    await observer.close()


async def _is_other(process: Callable[[], Awaitable[int]], before: int) -> bool:
    return await process() != before


async def test_a_server_is_away_when_it_was_silent_at_two_looks_but_not_because_a_new_connection_is_late(
    fresh_database: FreshDatabase,
) -> None:
    dsn = await fresh_database()
    place, only_the_first = urlsplit(dsn), asyncio.Semaphore(1)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with only_the_first:
            server_reader, server_writer = await asyncio.open_connection(place.hostname, place.port)
            await asyncio.gather(_copy(reader, server_writer), _copy(server_reader, writer))

    async with await asyncio.start_server(forward, "127.0.0.1") as proxy:
        port = proxy.sockets[0].getsockname()[1]
        postgres = Postgres(dsn.replace(f":{place.port}/", f":{port}/"))
        await postgres.open()
        async with in_background(_ask(postgres)):
            assert await postgres.ping()
            async with postgres.connection() as connection:
                assert await connection.fetchval("SELECT 1") == 1
        assert not await postgres.ping(), "nothing was answered this time"
        async with postgres.connection() as connection:
            assert await connection.fetchval("SELECT 1") == 1, "once may be the machine"
        # Its look begins after that answer.
        assert not await postgres.ping()
        with pytest.raises(DatabaseUnavailable):
            async with postgres.connection():
                pass
        await postgres.close()


async def test_a_look_whose_own_connection_has_ended_asks_on_a_new_one(fresh_database: FreshDatabase) -> None:
    dsn = await fresh_database()
    postgres, admin = Postgres(dsn), await asyncpg.connect(dsn)
    await postgres.open()
    assert await postgres.ping()
    async with postgres.connection() as connection:
        others = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), $1)"
        )
        assert await admin.fetchval(others, connection.get_server_pid()) == 1
        assert await postgres.ping()
        assert postgres.check() is None
    await postgres.close()
    await admin.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def _ask(postgres: Postgres) -> None:
    while True:
        async with postgres.connection() as connection:
            await connection.execute("SELECT 1")
        await asyncio.sleep(0.05)


async def test_a_connection_goes_back_without_a_query_and_without_a_transaction(
    fresh_database: FreshDatabase,
) -> None:
    postgres = Postgres(dsn := await fresh_database())
    await postgres.open()
    admin = await asyncpg.connect(dsn)
    said = "SELECT query, state FROM pg_stat_activity WHERE pid = $1"
    for statements, last in ((["SELECT 42"], "SELECT 42"), (["BEGIN", "SELECT 42"], "ROLLBACK")):
        async with postgres.connection() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            for statement in statements:
                await connection.execute(statement)
        assert tuple(await admin.fetchrow(said, pid) or ()) == (last, "idle")
    await admin.close()
    await postgres.close()


async def test_an_error_of_the_connection_is_one_of_the_database(fresh_database: FreshDatabase) -> None:
    dsn = await fresh_database()
    postgres = Postgres(dsn, statement_timeout_s=0.2)
    await postgres.open()
    with pytest.raises(DatabaseUnavailable):
        async with postgres.connection() as connection:
            await connection.execute("SELECT pg_sleep(5)", timeout=0.1)

    async def cut(connection: Any) -> None:
        admin = await asyncpg.connect(dsn)
        pid = await connection.fetchval("SELECT pg_backend_pid()")
        await admin.execute("SELECT pg_terminate_backend($1)", pid)
        await admin.close()
        while True:
            await connection.execute("SELECT 1")

    with pytest.raises(DatabaseUnavailable):
        async with postgres.transaction() as connection:
            await cut(connection)
    await postgres.close()


async def test_a_hook_that_finds_no_database_does_not_run_the_others_again(bench: Bench) -> None:
    ran: list[str] = []
    worker = await bench.build(BATCH_PROCESSOR)

    async def first() -> None:
        ran.append("first")

    async def second() -> None:
        ran.append("second")
        if ran.count("second") == 1:
            raise DatabaseUnavailable("just away")

    worker.on_database(first)
    worker.on_database(second)
    async with worker:
        await until(lambda: worker.health.reasons() == {}, what=lambda: str(worker.health.reasons()))
    assert ran == ["first", "second", "second"]


async def test_four_owners_with_slow_statements_leave_a_connection_for_a_fifth(
    fresh_database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres = Postgres(await fresh_database(), size=12, acquire_timeout_s=30)
    await postgres.open()
    holding: list[str] = []
    is_over = asyncio.Event()

    async def ask(owner_id: str) -> str:
        shares.current.set(owner_id)
        async with postgres.connection() as connection:
            found = await connection.fetchval("SELECT $1", owner_id)
            if owner_id in set("abcd"):
                holding.append(owner_id)
                await is_over.wait()
        return str(found)

    slow = [asyncio.create_task(ask(owner_id)) for owner_id in "abcd" for _ in range(10)]
    await until(lambda: len(holding) == 9)
    assert await asyncio.create_task(ask("quick")) == "quick"
    assert await asyncio.create_task(ask("")) == ""
    monkeypatch.setattr(postgres, "acquire_timeout_s", 0.05)
    with pytest.raises(DatabaseUnavailable, match="was free in time"):
        await asyncio.create_task(ask("a"))
    assert postgres.check() is None, "owners who wait for each other do not make the service unready"
    is_over.set()
    assert Counter(await asyncio.gather(*slow)) == dict.fromkeys("abcd", 10)
    await postgres.close()


async def test_thirteen_owners_with_slow_questions_leave_connections_for_the_service_itself(
    bench: Bench, fresh_database: FreshDatabase
) -> None:
    worker = await bench.build(BATCH_PROCESSOR, dsn=(dsn := await fresh_database()))
    worker.postgres.acquire_timeout_s = 30

    async def answer(request: SearchSymbols, _: Deadline) -> Instruments:
        async with worker.postgres.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock_shared(1)")
        return Instruments(data=[])

    worker.answer({SearchSymbols: answer})
    worker.consume(INTAKE, {CancelBatch: InTransaction(store, group=50)})
    await bench.run(worker)
    asker = await bench.run(await bench.build(GATEWAY))
    slow = await asyncpg.connect(dsn)
    await slow.execute("SELECT pg_advisory_lock(1)")

    async def ask(owner_id: str) -> bytes:
        shares.current.set(owner_id)
        question = SearchSymbols(q=owner_id)
        return await asker.messaging.rpc.ask(question, Deadline.after(25), service=BATCH_PROCESSOR)

    async def at_the_server() -> int:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'"
        return int(await slow.fetchval(f"{waiting} AND datname = current_database()"))

    questions = [asyncio.create_task(ask(f"owner {number}")) for number in range(13)]
    await until(lambda: worker.postgres.in_use == 12 - RESERVED)
    async with worker.postgres.transaction() as connection:
        await outbox.add(connection, [cancel(str(number)) for number in range(5)])
    worker.relay.wake()
    await until(lambda: has_effects(worker, 5))
    assert worker.health.reasons() == {}
    assert await at_the_server() == 12 - RESERVED
    await slow.close()
    assert len(await asyncio.gather(*questions)) == 13


async def _read_missing(folder: Path) -> None:
    await asyncio.to_thread((folder / "no-such-file").read_text)


async def _refused() -> None:
    raise ConnectionRefusedError("a relay, not the database")


async def _late() -> None:
    async with asyncio.timeout(0):
        await asyncio.Event().wait()
