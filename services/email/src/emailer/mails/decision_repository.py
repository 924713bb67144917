"""Lists of mails and decisions about them, in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from chassis import queries
from chassis.postgres import Connection, Row
from contracts.emails import STORED_STATUSES, EmailFilter, ResendEmail

_SQL = queries.of("emailer")

# Mails to examine: in which status, before which id, and how many.
Part = tuple[str, UUID, int]


def statuses_of(wanted: EmailFilter) -> list[str]:
    """Return the statuses that a filter lets through."""
    return list(wanted.status or STORED_STATUSES)


async def list_named(
    connection: Connection, owner_id: str, wanted: EmailFilter, *, before: UUID, most: int
) -> list[Row]:
    """Return the mails that `wanted` names and matches, newest first, found one by one."""
    columns = _columns(owner_id, wanted, statuses_of(wanted))
    return await connection.fetch(_SQL["list_named_emails"], *columns, before, most)


async def find_examined(
    connection: Connection, owner_id: str, statuses: Sequence[str], *, before: UUID, most: int
) -> list[Row]:
    """Return how many of the `most` newest mails are in each of these statuses, and which is the last."""
    return await connection.fetch(_SQL["find_examined"], owner_id, statuses, before, most)


async def list_examined(
    connection: Connection, owner_id: str, wanted: EmailFilter, parts: Sequence[Part], *, most: int
) -> list[Row]:
    """Return the mails among `parts` that match `wanted`, newest first."""
    return await connection.fetch(_SQL["list_emails"], *_columns_within(owner_id, wanted, parts), most)


async def find_changeable(
    connection: Connection,
    owner_id: str,
    wanted: EmailFilter,
    parts: Sequence[Part],
    *,
    recipients: Sequence[str],
    skips_due: bool,
    most: int,
) -> list[Row]:
    """Return the mails of `list_examined` with a recipient in one of the statuses `recipients`.

    With `skips_due`, recipients that are due already do not count.
    """
    columns = _columns_within(owner_id, wanted, parts)
    return await connection.fetch(_SQL["find_changeable"], *columns, recipients, skips_due, most)


async def count_matching(
    connection: Connection, owner_id: str, wanted: EmailFilter, parts: Sequence[Part], *, lowest: UUID | None
) -> int:
    """Return the number of mails of `list_examined`, from the id `lowest` on."""
    columns = _columns_within(owner_id, wanted, parts)
    count: int = await connection.fetchval(_SQL["count_matching"], *columns, lowest)
    return count


async def lock_recipients(connection: Connection, ids: Sequence[UUID]) -> None:
    """Lock the recipients of mails, in a fixed order. They are locked before their mails, as everywhere."""
    await connection.execute(_SQL["lock_recipients"], ids)


async def cancel(connection: Connection, ids: Sequence[UUID]) -> list[Row]:
    """Cancel the recipients of mails that are not in hand; return those that were."""
    return await connection.fetch(_SQL["cancel_recipients"], ids)


async def retry(connection: Connection, ids: Sequence[UUID], *, life_s: float) -> list[Row]:
    """Begin the schedule of recipients anew; return those that can be retried.

    Each has at least `life_s` seconds before it expires. Their mails are locked, so that the content stays.
    """
    await lock_recipients(connection, ids)
    await connection.execute(_SQL["lock_emails"], ids)
    return await connection.fetch(_SQL["retry_recipients"], ids, life_s)


async def prolong(connection: Connection, ids: Sequence[UUID], *, life_s: float) -> None:
    """Give mails, and their recipients that wait, at least `life_s` seconds before they expire."""
    await connection.execute(_SQL["prolong_emails"], ids, life_s)


async def lock_untried(connection: Connection, email_id: UUID, owner_id: str) -> Row | None:
    """Lock a mail of which no attempt has begun, and return its times; None when one has."""
    return await connection.fetchrow(_SQL["lock_untried"], email_id, owner_id)


async def reschedule(
    connection: Connection, email_id: UUID, *, send_at: datetime, expires_at: datetime
) -> bool:
    """Change the times of a mail and its queued recipients; change nothing and return False without any."""
    if not await connection.fetch(_SQL["reschedule_recipients"], email_id, send_at, expires_at):
        return False
    await connection.execute(_SQL["reschedule_email"], email_id, send_at, expires_at)
    return True


async def keep_for_copy(connection: Connection, email_id: UUID, owner_id: str, *, for_s: float) -> None:
    """Keep the content of a mail for `for_s` seconds from now, past its retention."""
    await connection.execute(_SQL["keep_for_copy"], email_id, owner_id, for_s)


async def copy(
    connection: Connection,
    command: ResendEmail,
    *,
    life_s: float,
    trace: tuple[str | None, str | None],
) -> bool:
    """Store a copy of a mail, as accepted at the time of `command`; return False when it has no content."""
    at: datetime = command.accepted_at
    source = command.source_id
    made = await connection.fetchval(
        _SQL["copy_email"], command.email_id, source, command.owner_id, at, life_s, *trace, command.message_id
    )
    if made is None:
        return False
    await connection.execute(_SQL["copy_recipients"], command.email_id, source, at, life_s)
    await connection.execute(_SQL["copy_refusals"], command.email_id, source, at)
    await connection.execute(_SQL["copy_attachments"], command.email_id, source)
    return True


def _columns(owner_id: str, wanted: EmailFilter, statuses: Sequence[str]) -> list[Any]:
    """Return the parameters that select mails, in the order that the statements expect."""
    return [
        owner_id,
        statuses,
        wanted.created_after,
        wanted.created_before,
        wanted.tag,
        wanted.to,
        wanted.ids,
    ]


def _columns_within(owner_id: str, wanted: EmailFilter, parts: Sequence[Part]) -> list[Any]:
    """Return the parameters that select mails among `parts`."""
    statuses, befores, numbers = zip(*parts, strict=True) if parts else ((), (), ())
    return [*_columns(owner_id, wanted, statuses), befores, numbers]
