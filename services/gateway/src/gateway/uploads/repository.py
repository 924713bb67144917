"""Uploads in PostgreSQL, and the idempotency keys of those in progress."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from uuid import UUID

from chassis.postgres import Connection, affected_rows
from gateway.http.calls import IdempotencyKey
from gateway.uploads.inputs import UploadView


class UploadRepository:
    """Runs its statements on the caller's connection."""

    def __init__(self, queries: Mapping[str, str]) -> None:
        self._queries = queries

    async def insert(self, connection: Connection, upload: UploadView, *, owner_id: str) -> None:
        """Store a complete upload."""
        await connection.execute(
            self._queries["insert_upload"],
            *(upload.id, owner_id, upload.size_bytes, upload.sha256, upload.created_at, upload.expires_at),
        )

    async def answer(
        self,
        connection: Connection,
        key: IdempotencyKey,
        *,
        owner_id: str,
        claim: bytes,
        answer: bytes,
        location: str,
        etag: str,
    ) -> bool:
        """Record the answer to the request that holds `key` with `claim`; return False if none does."""
        query = self._queries["answer_claim"]
        held = await connection.fetchval(
            query, owner_id, key.key, claim, key.body_hash, answer, location, etag
        )
        return held is not None

    async def release(self, connection: Connection, key: str, *, owner_id: str, claim: bytes) -> None:
        """Release a claimed key."""
        await connection.execute(self._queries["release_claim"], owner_id, key, claim)

    async def find(
        self, connection: Connection, ids: Collection[UUID], *, owner_id: str
    ) -> dict[UUID, UploadView]:
        """Return the uploads of `owner_id` that a mail may attach now."""
        rows = await connection.fetch(self._queries["find_usable_uploads"], list(ids), owner_id)
        return {row["id"]: UploadView.model_validate(dict(row)) for row in rows}

    async def remove_expired(self, connection: Connection, *, most: int) -> int:
        """Remove up to `most` expired uploads; return how many there were."""
        tag = await connection.execute(self._queries["remove_expired_uploads"], most)
        return affected_rows(tag)
