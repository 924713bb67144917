"""A database without room is away, in other words, and is back when a write works."""

from __future__ import annotations

import pytest

from chassis.errors import DatabaseUnavailable
from contracts.topology import BATCH_PROCESSOR
from support.bench import Bench


@pytest.mark.parametrize("code", ["53100", "53200"], ids=["disk full", "out of memory"])
async def test_a_database_without_room_is_unavailable_until_a_write_works(bench: Bench, code: str) -> None:
    worker = await bench.run(await bench.build(BATCH_PROCESSOR))
    with pytest.raises(DatabaseUnavailable, match="takes no writes"):
        async with worker.postgres.transaction() as connection:
            await connection.execute(f"DO $$ BEGIN RAISE 'no room' USING ERRCODE = '{code}'; END $$")
    assert await worker.postgres.ping()
    assert "database" not in worker.health.reasons()
    async with worker.postgres.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM outbox WHERE message_type = 'probe'") == 0
