"""The catalogue of operations, and uploads of several requests, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from chassis.postgres import Connection
from contracts.operations import Operation


@dataclass(frozen=True, slots=True)
class UploadState:
    """The progress of an upload: its size in bytes, its items and lines, and the incomplete last line."""

    size: int = 0
    items: int = 0
    lines: int = 0
    rest: bytes = b""


class OperationRepository:
    """Runs its statements on the caller's connection."""

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


class OpenUploadRepository:
    """Runs its statements on the caller's connection."""

    def __init__(self, queries: Mapping[str, str]) -> None:
        self._queries = queries

    async def create(self, connection: Connection, batch_id: UUID, owner_id: str, about: str) -> None:
        """Create an empty upload; `about` is the command that will seal it, as JSON."""
        await connection.execute(self._queries["create_open_upload"], batch_id, owner_id, about)

    async def find(
        self, connection: Connection, batch_id: UUID, owner_id: str
    ) -> tuple[UploadState, bool] | None:
        """Return the progress of an open upload, and whether it has a writer; None if it is not open."""
        row = await connection.fetchrow(self._queries["find_open_upload"], batch_id, owner_id)
        if row is None:
            return None
        *state, is_written = row
        return UploadState(*state), is_written

    async def claim(
        self, connection: Connection, batch_id: UUID, owner_id: str, *, offset: int, writer: UUID
    ) -> UploadState | None:
        """Let `writer` append at `offset`; return None if it does not end there or has a writer."""
        row = await connection.fetchrow(
            self._queries["claim_open_upload"], batch_id, owner_id, offset, writer
        )
        return UploadState(*row) if row else None

    async def renew(self, connection: Connection, batch_id: UUID, writer: UUID) -> None:
        """Note that `writer` still appends, unless another one has taken over."""
        await connection.execute(self._queries["renew_open_upload"], batch_id, writer)

    async def save(
        self, connection: Connection, batch_id: UUID, writer: UUID, state: UploadState, *, goes_on: bool
    ) -> bool:
        """Store the progress of `writer`, which keeps the claim if it `goes_on`.

        Return False if another writer has taken over.
        """
        saved = await connection.fetchval(
            self._queries["save_open_upload"],
            batch_id,
            writer,
            state.size,
            state.items,
            state.lines,
            state.rest,
            goes_on,
        )
        return saved is not None

    async def take(
        self, connection: Connection, batch_id: UUID, owner_id: str
    ) -> tuple[str, UploadState] | None:
        """Remove an upload without a writer; return its sealing command and its progress."""
        row = await connection.fetchrow(self._queries["take_open_upload"], batch_id, owner_id)
        if row is None:
            return None
        about, *state = row
        return about, UploadState(*state)
