"""Ready chunks of many batches, as rows, where nobody may claim them before all are there."""

from __future__ import annotations

from chassis.postgres import Connection

_PLANT = (
    """
    INSERT INTO batches (id, owner_id, operation, status, accepted_at, total, received, chunk_count)
    SELECT md5(n::text)::uuid, 'owner' || n % 100, 'echo', 'queued', now(), 10, 10, 10
    FROM generate_series($1::int, $2::int - 1) AS n
    """,
    """
    INSERT INTO chunks (
        batch_id, number, state, first_position, last_position, remaining, due_at, owner_id, priority
    )
    SELECT md5(n::text)::uuid, number, 'ready', number, number, 1, now(), 'owner' || n % 100, 5
    FROM generate_series($1::int, $2::int - 1) AS n CROSS JOIN generate_series(0, 9) AS number
    """,
)


async def plant(database: Connection, first: int, end: int) -> None:
    """Store the batches from `first` to `end`, of up to a hundred owners, with ten ready chunks each."""
    for statement in _PLANT:
        await database.execute(statement, first, end)
