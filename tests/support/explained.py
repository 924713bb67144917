"""The rows and pages that a statement reads, as PostgreSQL explains it."""

from __future__ import annotations

import json

from chassis import queries
from chassis.postgres import Connection


async def buffers(
    connection: Connection, name: str, *arguments: object, package: str = "batch_processor"
) -> int:
    """Return how many buffers the statement `name` of `package` reads; its changes are rolled back."""
    statement = queries.load(package)[name]
    transaction = connection.transaction()
    await transaction.start()
    explained = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *arguments)
    await transaction.rollback()
    plan = json.loads(explained)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
