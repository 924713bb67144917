"""Parcels that wait in PostgreSQL until email takes them: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from chassis import outbox, queries
from chassis.broker.envelope import Outgoing
from chassis.paging import page_of
from chassis.postgres import Connection, affected_rows
from contracts import addresses
from contracts.emails import EmailFilter, SendPackedEmail
from gateway.emails.parcels import Parcel

_SQL = queries.of("gateway")

# The bytes that a small parcel counts for, so that the bound on bytes bounds the number, too.
LEAST_COUNTED_BYTES = 16 * 1024
# Mails that one call compares with its filter: of an owner who has very many, it may match none.
MOST_EXAMINED = 2000


@dataclass(frozen=True, slots=True)
class ParcelLoad:
    """The bytes that parcels of one owner and of all take, and the age of the oldest in seconds."""

    own: int
    total: int
    oldest_s: float


def listed(mails: Sequence[SendPackedEmail]) -> list[list[Any]]:
    """Return the eight columns of the table of waiting mails, a row for each of `mails`, for `note_mails`.

    They are id, owner, sender, subject, tags and recipients (both as JSON), and when the mail is sent and
    expires. A recipient is listed once, and every address is written as email stores it. All addresses are
    parsed: call it in a thread.
    """
    rows = []
    for mail in mails:
        sender = addresses.parse(mail.sender).written if mail.sender else None
        recipients = dict.fromkeys(addresses.parse(each).address for each in (*mail.to, *mail.cc, *mail.bcc))
        texts = (orjson.dumps(mail.tags).decode(), orjson.dumps(list(recipients)).decode())
        rows.append(
            (mail.email_id, mail.owner_id, sender, mail.subject, *texts, mail.send_at, mail.expires_at)
        )
    return [list(column) for column in zip(*rows, strict=True)]


async def lock_room(connection: Connection) -> None:
    """Make other transactions that keep a parcel wait here until this one has ended."""
    await connection.execute(_SQL["lock_parcels_room"])


async def measure(connection: Connection, owner_id: str = "") -> ParcelLoad:
    """Return the bytes of waiting parcels, of `owner_id` and of all owners, and the age of the oldest."""
    row = await connection.fetchrow(_SQL["measure_parcels"], owner_id, LEAST_COUNTED_BYTES)
    assert row is not None
    return ParcelLoad(**row)


async def keep(
    connection: Connection, parcel: Parcel, messages: Sequence[Outgoing], *, size_bytes: int
) -> None:
    """Store a parcel, and the messages that must not leave before it, a row each."""
    await connection.execute(
        _SQL["keep_parcel"],
        *(parcel.id, parcel.owner_id, parcel.mail_count, parcel.content, size_bytes),
        *outbox.columns(messages),
        [1] * len(messages),
    )


async def note_mails(connection: Connection, columns: Sequence[list[Any]]) -> None:
    """Store mails that were accepted and wait, for lists; `columns` is the result of `listed`."""
    await connection.execute(_SQL["note_waiting_mails"], *columns)


async def list_mails(
    connection: Connection,
    owner_id: str,
    wanted: EmailFilter,
    *,
    waiting: bool | None,
    before: UUID | None,
    limit: int,
) -> tuple[list[dict[str, Any]], UUID | None]:
    """Return up to `limit` mails of an owner that email has not reported on, newest first.

    With `waiting` only those whose attachments are here, or are not. The next page begins behind the id
    that is returned; it examines `MOST_EXAMINED` mails at most, so there may be fewer than `limit`, or
    none, and yet another page.
    """
    end = await connection.fetchval(_SQL["find_last_examined_mail"], owner_id, before, MOST_EXAMINED)
    times = (wanted.created_after, wanted.created_before)
    rows = await connection.fetch(
        _SQL["list_waiting_mails"],
        *(owner_id, wanted.status, *times, wanted.tag, wanted.to, waiting, before, end, limit + 1),
    )
    page, following = page_of([dict(row) for row in rows], limit, lambda row: row["id"])
    return page, following or end


async def count_mails(connection: Connection, owner_id: str) -> tuple[dict[str, int], bool]:
    """Return by status how many mails of an owner wait or have ended here, and whether those are all.

    Of very many only the newest are counted.
    """
    end = await connection.fetchval(_SQL["find_last_examined_mail"], owner_id, None, MOST_EXAMINED)
    rows = await connection.fetch(_SQL["count_waiting_mails"], owner_id, end)
    return {row["status"]: row["count"] for row in rows}, end is None


async def claim(
    connection: Connection, *, after: str, of_owner: int, most: int, lease_s: float
) -> list[Parcel]:
    """Return up to `most` parcels that are due, up to `of_owner` of each owner, beginning behind `after`.

    Nobody else gets them for `lease_s` seconds.
    """
    rows = await connection.fetch(_SQL["claim_parcels"], after, of_owner, most, lease_s)
    return [Parcel(**row) for row in rows]


async def postpone(connection: Connection, ids: Collection[UUID]) -> None:
    """Let parcels wait for their next try, each time longer, up to half a minute."""
    await connection.execute(_SQL["postpone_parcels"], list(ids))


async def release(connection: Connection, parcel_id: UUID) -> bool:
    """Let the messages of a parcel leave, and remove it; False when it is gone, or must stay for now."""
    await connection.execute(_SQL["lock_parcel"], parcel_id)
    tag = await connection.execute(_SQL["release_parcel"], parcel_id)
    return affected_rows(tag) > 0


async def drop(connection: Connection, parcel_id: UUID) -> list[UUID]:
    """Remove a parcel with the mails that name it; return their ids."""
    await connection.execute(_SQL["lock_parcel"], parcel_id)
    return [row["message_id"] for row in await connection.fetch(_SQL["drop_parcel"], parcel_id)]


async def lock_mail(connection: Connection, email_id: UUID, owner_id: str) -> UUID | None:
    """Return the parcel for which a mail of `owner_id` waits, locked; None when it does not wait."""
    found: UUID | None = await connection.fetchval(_SQL["lock_parcel_of_mail"], email_id, owner_id)
    return found


async def drop_mail(connection: Connection, parcel_id: UUID, email_id: UUID) -> bool:
    """Remove a mail from its locked parcel; return whether it was there."""
    return bool(await connection.fetchval(_SQL["drop_waiting_mail"], parcel_id, email_id))


async def read_mail(connection: Connection, parcel_id: UUID, email_id: UUID) -> bytes | None:
    """Return the command of a mail that waits for a locked parcel."""
    found: bytes | None = await connection.fetchval(_SQL["read_waiting_mail"], parcel_id, email_id)
    return found


async def read_parcel(connection: Connection, parcel_id: UUID) -> bytes:
    """Return the content of a locked parcel."""
    content: bytes = await connection.fetchval(_SQL["read_waiting_parcel"], parcel_id)
    return content


async def change_mail(connection: Connection, parcel_id: UUID, mail: SendPackedEmail) -> None:
    """Replace the command of a mail that waits for a locked parcel."""
    await connection.execute(
        _SQL["change_waiting_mail"],
        *(parcel_id, mail.email_id, mail.model_dump_json().encode(), mail.send_at, mail.expires_at),
    )


async def end_mails(
    connection: Connection, ids: Collection[UUID], *, status: str, reason: str, at: datetime
) -> None:
    """Record that mails have ended here, and why."""
    await connection.execute(_SQL["end_waiting_mails"], list(ids), status, reason, at)
