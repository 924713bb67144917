"""The catalogue of operations in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from chassis.postgres import Connection
from contracts.batches import Operation


class OperationRepository:
    """Runs its statements on the connection of the caller."""

    def __init__(self, queries: Mapping[str, str]) -> None:
        self._queries = queries

    async def replace(self, connection: Connection, operations: Sequence[Operation]) -> None:
        """Replace the catalogue of operations."""
        names = [operation.name for operation in operations]
        await connection.execute(self._queries["drop_other_operations"], names)
        await connection.execute(
            self._queries["put_operations"],
            names,
            [operation.description for operation in operations],
            [orjson.dumps(operation.item_schema).decode() for operation in operations],
            [" ".join(operation.required_scopes) for operation in operations],
        )

    async def list(self, connection: Connection) -> list[dict[str, Any]]:
        """Return the catalogue of operations, in the order of their names."""
        rows = await connection.fetch(self._queries["list_operations"])
        return [{**row, "item_schema": orjson.loads(row["item_schema"])} for row in rows]
