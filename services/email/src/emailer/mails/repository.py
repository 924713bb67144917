"""The service's tables: storing accepted mails, summing up their statuses, reading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any
from uuid import UUID

from pydantic_core import from_json

from chassis import queries
from chassis.postgres import Connection
from contracts.emails import Attempt as AttemptShown
from contracts.emails import Email, EmailCounts, EmailStatus, EventKind, MadeOf
from emailer.mails import intake, promises, states, table_rows, timeline
from emailer.mails.announcing import StatusChange
from emailer.mails.domain_limits import UNLIMITED, DomainLimits
from emailer.mails.intake import PreparedMail
from emailer.mails.letters import File
from emailer.mails.stored_mail import StoredMail
from emailer.uploads import repository as uploads

_SQL = queries.of("emailer")

Key = tuple[UUID, int]

# Attempts shown for a mail, divided equally among its recipients: one that is deferred for months, and
# retried by hand, has thousands.
MOST_ATTEMPTS = 500
_LEAST_ATTEMPTS = 10


async def store(
    connection: Connection,
    accepted: Sequence[PreparedMail],
    *,
    traces: Sequence[tuple[str | None, str | None]],
) -> set[UUID]:
    """Store mails, each with its (traceparent, request id); return the ids of those that were new."""
    rows = [table_rows.email_row(one, *trace) for one, trace in zip(accepted, traces, strict=True)]
    stored = {row["id"] for row in await connection.fetch(_SQL["store_emails"], rows)}
    # The same command twice in one group: the first counts.
    fresh = list(
        {one.command.email_id: one for one in reversed(accepted) if one.command.email_id in stored}.values()
    )
    await connection.execute(_SQL["store_recipients"], table_rows.recipient_rows(fresh))
    refused = table_rows.refusal_rows(fresh)
    if refused:
        await connection.execute(_SQL["record_attempts"], *_columns(refused, 8))
    files = table_rows.file_rows(fresh)
    if files:
        await connection.execute(_SQL["store_attachments"], *_columns(files, 7))
        await uploads.note_used(connection, {row[-1] for row in files if row[-1]})
    emptied = (parcel_id for one in fresh for parcel_id, _ in intake.parcels_of([one.command]))
    await uploads.empty_parcels(connection, Counter(emptied))
    return stored


async def read_mails(
    connection: Connection, ids: Sequence[UUID], *, with_files: bool = True
) -> dict[UUID, StoredMail]:
    """Return the mails `ids` with bodies and attachments, by id; the bytes of uploads are not read."""
    rows = await connection.fetch(_SQL["read_mails"], ids) if ids else []
    wanted = [row["id"] for row in rows if row["attachment_count"] and with_files]
    files: dict[UUID, list[File]] = {}
    if wanted:
        for row in await connection.fetch(_SQL["read_attachments"], wanted):
            file = File(
                row["filename"], row["content_type"], row["content"], row["content_id"], row["upload_id"]
            )
            files.setdefault(row["email_id"], []).append(file)
    return {row["id"]: table_rows.stored_mail(row, files.get(row["id"], ())) for row in rows}


async def keep_text(connection: Connection, email_id: UUID, text: str) -> None:
    """Store the text part made for a mail that came with HTML only."""
    await connection.execute(_SQL["keep_text"], email_id, text)


async def count_held(connection: Connection) -> int:
    """Return the number of recipients that wait for a decision."""
    count: int = await connection.fetchval(_SQL["count_held"])
    return count


async def note(connection: Connection, kind: EventKind, keys: Sequence[tuple[UUID, int | None]]) -> None:
    """Add an event to the timeline of these recipients, or of mails as a whole (position None).

    Owners can retry and reschedule a mail as often as they like: as many events as a timeline shows are kept.
    """
    if not keys:
        return
    await connection.execute(_SQL["note_events"], *_columns(keys, 2), kind)
    if kind in ("retried", "rescheduled"):
        await connection.execute(_SQL["forget_events"], list({key[0] for key in keys}), timeline.MOST_EVENTS)


async def sum_up(
    connection: Connection, ids: Collection[UUID], *, known: Mapping[UUID, EmailStatus] = MappingProxyType({})
) -> list[StatusChange]:
    """Store the statuses of the mails `ids`, computed from those of their recipients; return the changes.

    A status that is `known` is stored as it is. Statuses that are only transient are not among the changes.
    """
    sums = dict(known)
    shared = sorted(set(ids) - sums.keys())
    if shared:
        # Another process may be recording another recipient of the same mail: take turns.
        await connection.execute(_SQL["lock_emails"], shared)
        for row in await connection.fetch(_SQL["read_states"], shared):
            sums[row["email_id"]] = states.summed_up(row["statuses"])
    # "sending" is transient, and is not announced.
    # In one order here too: mails with one recipient were not locked before.
    changed = {key: sums[key] for key in sorted(sums) if sums[key] not in ("queued", "sending")}
    if not changed:
        return []
    rows = await connection.fetch(_SQL["change_statuses"], list(changed), list(changed.values()))
    return [StatusChange(**row) for row in rows]


def snapshot(connection: Connection) -> AbstractAsyncContextManager[object]:
    """Open a transaction whose statements all see the same snapshot: a status and the attempts behind it."""
    return connection.transaction(isolation="repeatable_read", readonly=True)


async def find(
    connection: Connection, email_id: UUID, *, owner_id: str, limits: DomainLimits = UNLIMITED
) -> Email | None:
    """Return a mail of `owner_id` with recipients and attempts, or None; call it within a `snapshot`.

    The next step shown for a recipient depends on the `limits` of its domain.
    """
    row = await connection.fetchrow(_SQL["read_email"], email_id, owner_id)
    if row is None:
        return None
    attempts: dict[int, list[AttemptShown]] = {}
    rows = await connection.fetch(_SQL["read_recipients"], email_id)
    most = max(MOST_ATTEMPTS // max(1, len(rows)), _LEAST_ATTEMPTS)
    tried = await connection.fetch(_SQL["read_attempts"], email_id, most)
    replies = timeline.shortened([attempt["smtp_reply"] for attempt in tried])
    for attempt, reply in zip(tried, replies, strict=True):
        shown = AttemptShown.model_validate({**attempt, "smtp_reply": reply})
        attempts.setdefault(attempt["position"], []).append(shown)
    recipients = [
        table_rows.recipient(
            recipient,
            attempts.get(recipient["position"], []),
            expires_at=row["expires_at"],
            limits=limits,
        )
        for recipient in rows
    ]
    metadata = row["metadata"]
    fields = {
        **row,
        "tags": from_json(row["tags"]),
        "metadata": from_json(metadata),
        "metadata_text": metadata,
    }
    if row["template_name"] is not None:
        fields["template"] = MadeOf(name=row["template_name"], version=row["template_version"])
    fields["status"] = states.summed_up([recipient.status for recipient in recipients])
    happened = await connection.fetch(_SQL["read_events"], email_id, timeline.MOST_EVENTS)
    following = promises.of_mail(recipient.next for recipient in recipients)
    events = timeline.of(row["accepted_at"], recipients, happened)
    return Email(**fields, recipients=recipients, next=following, timeline=events)


async def count(connection: Connection, *, owner_id: str) -> EmailCounts:
    """Return the number of mails of `owner_id` in each status, as last recorded."""
    rows = await connection.fetch(_SQL["count_emails"], owner_id)
    return EmailCounts(counts={row["status"]: row["count"] for row in rows})


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]
