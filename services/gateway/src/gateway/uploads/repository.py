"""Uploads in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from chassis import queries
from chassis.postgres import Connection, affected_rows
from gateway.uploads.inputs import UploadView

_SQL = queries.of("gateway")


async def insert(connection: Connection, upload: UploadView, *, owner_id: str) -> None:
    """Store a complete upload."""
    await connection.execute(
        _SQL["insert_upload"],
        *(upload.id, owner_id, upload.size_bytes, upload.sha256, upload.created_at, upload.expires_at),
    )


async def find(connection: Connection, ids: Collection[UUID], *, owner_id: str) -> dict[UUID, UploadView]:
    """Return the uploads of `owner_id` that a mail may attach now."""
    rows = await connection.fetch(_SQL["find_usable_uploads"], list(ids), owner_id)
    return {row["id"]: UploadView.model_validate(dict(row)) for row in rows}


async def remove_expired(connection: Connection, *, most: int) -> int:
    """Remove up to `most` expired uploads; return how many there were."""
    tag = await connection.execute(_SQL["remove_expired_uploads"], most)
    return affected_rows(tag)
