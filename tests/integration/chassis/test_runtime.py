"""The resources of a service are all closed, whatever fails on the way."""

from __future__ import annotations

import pytest

from chassis.errors import DatabaseUnavailable
from contracts.topology import BATCH_PROCESSOR
from support.bench import Bench, running
from support.waiting import until


async def _break() -> None:
    raise KeyError("a step that nobody expects to fail")


async def test_a_closing_step_that_fails_keeps_none_of_the_others_from_running(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = await bench.build(BATCH_PROCESSOR)
    link = runtime.messaging.publisher.link
    close = link.close

    async def close_and_break() -> None:
        # Left open, it would be closed when it is collected: in another test, where perhaps no loop runs.
        await close()
        await _break()

    async def open_and_break() -> None:
        async with running(runtime):
            monkeypatch.setattr(runtime.messaging, "drain", lambda _: _break())
            monkeypatch.setattr(runtime.relay, "flush", _break)
            monkeypatch.setattr(link, "close", close_and_break)

    with pytest.raises(KeyError):
        await open_and_break()
    with pytest.raises(DatabaseUnavailable):
        async with runtime.postgres.connection():
            raise AssertionError("the pool is open")
    assert not runtime.messaging.link.is_connected
    assert runtime.tasks.unfinished == []


async def test_a_block_that_fails_is_closed_like_one_that_ends_well(bench: Bench) -> None:
    runtime = await bench.build(BATCH_PROCESSOR)
    with pytest.raises(ValueError, match="the block"):
        async with running(runtime):
            raise ValueError("the block")
    assert runtime.health.reasons()["shutdown"] == "shutting down"
    assert runtime.tasks.unfinished == []


async def test_the_connection_that_prepared_the_database_does_not_stay(bench: Bench) -> None:
    runtime, prepared_by = await bench.build(BATCH_PROCESSOR), 0

    async def note() -> None:
        nonlocal prepared_by
        async with runtime.postgres.connection() as connection:
            prepared_by = await connection.fetchval("SELECT pg_backend_pid()")

    async def is_gone() -> bool:
        async with runtime.postgres.connection() as connection:
            return not await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = $1", prepared_by
            )

    runtime.on_database(note)
    async with running(runtime):
        assert prepared_by
        await until(is_gone)
