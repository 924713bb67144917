"""The rows and pages that a statement reads, as PostgreSQL explains it."""

from __future__ import annotations

import json
from typing import Any

from chassis import queries
from chassis.postgres import Connection


async def buffers(
    connection: Connection, name: str, *arguments: object, package: str = "batch_processor"
) -> int:
    """Return how many buffers the statement `name` of `package` reads; its changes are rolled back."""
    statement = queries.of(package)[name]
    transaction = connection.transaction()
    await transaction.start()
    explained = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *arguments)
    await transaction.rollback()
    plan = json.loads(explained)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


class Explained:
    """A connection that notes how many buffers each statement reads which it fetches, by its name."""

    def __init__(self, connection: Connection, *, package: str = "emailer") -> None:
        self.read: dict[str, int] = {}
        self._connection = connection
        self._package = package
        self._names = {statement: name for name, statement in queries.of(package).items()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def fetch(self, statement: str, *arguments: object) -> Any:
        await self._explain(statement, arguments)
        return await self._connection.fetch(statement, *arguments)

    async def fetchval(self, statement: str, *arguments: object) -> Any:
        await self._explain(statement, arguments)
        return await self._connection.fetchval(statement, *arguments)

    async def _explain(self, statement: str, arguments: tuple[object, ...]) -> None:
        name = self._names[statement]
        read = await buffers(self._connection, name, *arguments, package=self._package)
        self.read[name] = max(read, self.read.get(name, 0))
