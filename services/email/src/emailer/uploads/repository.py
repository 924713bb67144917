"""Uploads in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from uuid import UUID

import asyncpg

from chassis import queries
from chassis.postgres import Connection, Row

_SQL = queries.of("emailer")

# A smaller upload counts as this many bytes, so that the bound on bytes bounds the number, too.
LEAST_COUNTED_BYTES = 64 * 1024

# The bytes of uploads, by id and owner.
Sizes = Mapping[tuple[UUID, str], int]


async def measure(connection: Connection, owner_id: str = "") -> tuple[int, int]:
    """Return the bytes of uploads: those of `owner_id`, and those of all owners."""
    row = await connection.fetchrow(_SQL["measure_uploads"], owner_id, LEAST_COUNTED_BYTES)
    assert row is not None
    return row["own"], row["total"]


async def measure_parcels(connection: Connection, owner_id: str) -> tuple[int, int]:
    """Return the bytes of parcels whose mails are not all stored: those of `owner_id`, and of all owners."""
    row = await connection.fetchrow(_SQL["measure_parcels"], owner_id, LEAST_COUNTED_BYTES)
    assert row is not None
    return row["own"], row["total"]


async def read_parcels(
    connection: Connection, wanted: Collection[tuple[UUID, str]]
) -> dict[tuple[UUID, str], bytes]:
    """Return the contents of those parcels that exist, each asked for with its owner."""
    if not wanted:
        return {}
    ids, owners = [id_ for id_, _ in wanted], [owner_id for _, owner_id in wanted]
    rows = await connection.fetch(_SQL["read_parcels"], ids, owners)
    return {(row["id"], row["owner_id"]): row["content"] or b"" for row in rows}


async def empty_parcels(connection: Connection, mail_counts: Mapping[UUID, int]) -> None:
    """Subtract stored mails from the counts of their parcels; remove parcels with none left."""
    if mail_counts:
        ids = sorted(mail_counts)
        await connection.execute(_SQL["lock_parcels"], ids)
        await connection.execute(_SQL["empty_parcels"], ids, [mail_counts[id_] for id_ in ids])
        await connection.execute(_SQL["remove_empty_parcels"], ids)


async def lock_room(connection: Connection) -> None:
    """Lock the allocation of room for uploads until the transaction ends."""
    await connection.execute(_SQL["lock_room_for_uploads"])


async def insert(
    connection: Connection,
    upload_id: UUID,
    owner_id: str,
    *,
    token_hash: bytes,
    most_bytes: int,
    life_s: float,
    mail_count: int | None = None,
) -> None:
    """Reserve room for an upload of up to `most_bytes` that must be complete within `life_s` seconds.

    With `mail_count` it is a parcel, shared by that many mails.
    """
    await connection.execute(
        _SQL["insert_upload"], upload_id, owner_id, token_hash, most_bytes, life_s, mail_count
    )


async def reopen_parcel(
    connection: Connection,
    parcel_id: UUID,
    owner_id: str,
    *,
    token_hash: bytes,
    life_s: float,
    stored_life_s: float,
) -> Row | None:
    """Begin a parcel anew; leave one that is complete as it is. Return it, or None when there is none.

    It then has `life_s` seconds for its bytes, and a complete one `stored_life_s` for its mails.
    """
    arguments = parcel_id, owner_id, token_hash, life_s, stored_life_s
    found: Row | None = await connection.fetchrow(_SQL["reopen_parcel"], *arguments)
    if found is not None and found["completed_at"] is None:
        await connection.execute(_SQL["clear_upload"], parcel_id)
    return found


async def begin(connection: Connection, upload_id: UUID, *, token_hash: bytes) -> str | None:
    """Use up the token for sending the bytes; return `upload` or `parcel`.

    Return None when the token is invalid or was used before.
    """
    kind: str | None = await connection.fetchval(_SQL["begin_upload"], upload_id, token_hash)
    return kind


async def append(connection: Connection, upload_id: UUID, position: int, content: bytes) -> bool:
    """Store the next part; return False when the upload was removed, or opened and sent again, meanwhile."""
    try:
        await connection.execute(_SQL["append_to_upload"], upload_id, position, content)
    except (asyncpg.ForeignKeyViolationError, asyncpg.UniqueViolationError):
        return False
    return True


async def complete(
    connection: Connection, upload_id: UUID, *, size_bytes: int, sha256: bytes, life_s: float
) -> datetime | None:
    """Mark an upload as complete; return until when it may be used.

    Return None when it was removed, or opened again, meanwhile. Within a transaction.
    """
    # The count of what is there must not be older than a parcel that is opened again just now.
    await connection.execute(_SQL["lock_upload"], upload_id)
    found: datetime | None = await connection.fetchval(
        _SQL["complete_upload"], upload_id, size_bytes, sha256, life_s
    )
    return found


async def drop(connection: Connection, upload_id: UUID) -> None:
    """Remove an upload that is not complete."""
    await connection.execute(_SQL["drop_upload"], upload_id)


async def find(connection: Connection, wanted: Collection[tuple[UUID, str]]) -> Sizes:
    """Return the sizes of those uploads that exist, each asked for with its owner."""
    if not wanted:
        return {}
    ids, owners = [id_ for id_, _ in wanted], [owner_id for _, owner_id in wanted]
    rows = await connection.fetch(_SQL["find_uploads"], ids, owners)
    return {(row["id"], row["owner_id"]): row["size_bytes"] for row in rows}


async def note_used(connection: Connection, ids: Collection[UUID]) -> None:
    """Note that mails name these uploads."""
    if ids:
        await connection.execute(_SQL["note_used_uploads"], sorted(ids))


async def read(connection: Connection, ids: Collection[UUID]) -> dict[UUID, bytes]:
    """Return the contents of uploads; an empty upload has no entry."""
    rows = await connection.fetch(_SQL["read_uploads"], list(ids))
    return {row["upload_id"]: row["content"] for row in rows}


async def remove(connection: Connection, *, most: int, grace_s: float) -> list[str]:
    """Remove up to `most` expired uploads; return for each whether it was used, unused or incomplete."""
    return [row["kind"] for row in await connection.fetch(_SQL["remove_uploads"], most, grace_s)]
