"""The catalogue of operations, and uploads of several requests, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from chassis import queries
from chassis.postgres import Connection
from contracts.batches import FINISHED
from contracts.operations import Operation

_SQL = queries.of("gateway")


@dataclass(frozen=True, slots=True)
class UploadState:
    """The progress of an upload: its size in bytes, its items and lines, and the incomplete last line."""

    size: int = 0
    items: int = 0
    lines: int = 0
    rest: bytes = b""


async def replace_operations(connection: Connection, operations: Sequence[Operation]) -> None:
    """Replace the catalogue of operations."""
    names = [operation.name for operation in operations]
    await connection.execute(_SQL["drop_other_operations"], names)
    await connection.execute(
        _SQL["put_operations"],
        names,
        [operation.description for operation in operations],
        [orjson.dumps(operation.item_schema).decode() for operation in operations],
        [" ".join(operation.required_scopes) for operation in operations],
    )


async def list_operations(connection: Connection) -> list[dict[str, Any]]:
    """Return the catalogue of operations, in the order of their names."""
    rows = await connection.fetch(_SQL["list_operations"])
    return [{**row, "item_schema": orjson.loads(row["item_schema"])} for row in rows]


async def count_uploads(connection: Connection, owner_id: str) -> int:
    """Return how many uploads the owner has open; no other one is opened until the transaction ends."""
    await connection.execute(_SQL["lock_uploads_of_owner"], owner_id)
    return int(await connection.fetchval(_SQL["count_open_uploads"], owner_id, list(FINISHED)))


async def create_upload(connection: Connection, batch_id: UUID, owner_id: str, about: str) -> None:
    """Create an empty upload; `about` is the command that will seal it, as JSON."""
    await connection.execute(_SQL["create_open_upload"], batch_id, owner_id, about)


async def find_upload(
    connection: Connection, batch_id: UUID, owner_id: str
) -> tuple[UploadState, bool] | None:
    """Return the progress of an open upload, and whether it has a writer; None if it is not open."""
    row = await connection.fetchrow(_SQL["find_open_upload"], batch_id, owner_id)
    if row is None:
        return None
    *state, is_written = row
    return UploadState(*state), is_written


async def claim_upload(
    connection: Connection, batch_id: UUID, owner_id: str, *, offset: int, writer: UUID
) -> UploadState | None:
    """Let `writer` append at `offset`; return None if it does not end there or has a writer."""
    row = await connection.fetchrow(_SQL["claim_open_upload"], batch_id, owner_id, offset, writer)
    return UploadState(*row) if row else None


async def renew_upload(connection: Connection, batch_id: UUID, writer: UUID) -> None:
    """Note that `writer` still appends, unless another one has taken over."""
    await connection.execute(_SQL["renew_open_upload"], batch_id, writer)


async def save_upload(
    connection: Connection, batch_id: UUID, writer: UUID, state: UploadState, *, goes_on: bool
) -> bool:
    """Store the progress of `writer`, which keeps the claim if it `goes_on`.

    Return False if another writer has taken over.
    """
    saved = await connection.fetchval(
        _SQL["save_open_upload"],
        batch_id,
        writer,
        state.size,
        state.items,
        state.lines,
        state.rest,
        goes_on,
    )
    return saved is not None


async def take_upload(
    connection: Connection, batch_id: UUID, owner_id: str
) -> tuple[str, UploadState] | None:
    """Remove an upload without a writer; return its sealing command and its progress."""
    row = await connection.fetchrow(_SQL["take_open_upload"], batch_id, owner_id)
    if row is None:
        return None
    about, *state = row
    return about, UploadState(*state)
