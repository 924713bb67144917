"""The rows that are read to find the batches of the next steps: a few of many thousand."""

from __future__ import annotations

import pytest

from support import explained
from support.batch_engine import BatchEngine

_PLANT = """
INSERT INTO batches (id, owner_id, operation, status, accepted_at, total, received, chunk_count, retry_codes)
SELECT gen_random_uuid(), 'owner' || n % 100, 'echo',
    CASE WHEN n % 50 = 0 THEN 'cancelling' ELSE 'completed' END, now(), 1, 1, 1,
    CASE WHEN n % 50 = 1 THEN '{}'::text[] END
FROM generate_series(1, 50000) AS n
"""


@pytest.mark.parametrize("statement", ["next_cancelling", "next_retrying"])
async def test_the_batches_of_the_next_step_are_found_by_an_index(
    engine: BatchEngine, statement: str
) -> None:
    async with engine.postgres.connection() as connection:
        await connection.execute(_PLANT)
        await connection.execute("VACUUM ANALYZE batches")
        assert await explained.buffers(connection, statement, [], 4, "owner50") < 100
