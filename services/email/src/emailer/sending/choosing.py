"""Lists of an owner's mails, and what an owner decides about them: cancel, retry, reschedule, send again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic_core import from_json

from chassis import queries
from chassis.errors import Conflict, InvalidInput, NotFound
from chassis.paging import page_of
from chassis.postgres import Connection
from contracts.emails import (
    STORED_STATUSES,
    CancelEmails,
    EmailFilter,
    EmailLine,
    Emails,
    EmailsChanged,
    EventKind,
    ListEmails,
    RescheduleEmail,
    ResendEmail,
    RetryEmails,
)
from emailer import announcing, repository
from emailer.errors import EmailChanged

SQL = queries.load("emailer")

# Mails changed by one call.
MOST_CHANGED = 1000
# Mails that one call compares with its filter: of an owner who has very many, it may match none.
MOST_EXAMINED = 5000

_LAST = UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a decision applies to: mails in one of `statuses`, and their recipients in one of `recipients`.

    With `skips_due`, recipients that are already due are left alone: a retry could not hurry them.
    """

    query: str
    kind: EventKind
    statuses: frozenset[str]
    recipients: tuple[str, ...]
    skips_due: bool


CANCEL = Decision(
    query="cancel_recipients",
    kind="cancelled",
    statuses=frozenset(("queued", "deferred", "held")),
    recipients=("queued", "deferred", "ambiguous", "held"),
    skips_due=False,
)
RETRY = Decision(
    query="retry_recipients",
    kind="retried",
    statuses=frozenset(("deferred", "held", "failed", "expired", "suppressed", "partially_delivered")),
    recipients=("deferred", "ambiguous", "held", "failed", "expired", "suppressed"),
    skips_due=True,
)


async def list_emails(connection: Connection, request: ListEmails) -> Emails:
    """Return a page of an owner's mails, newest first.

    With a filter other than by status it examines `MOST_EXAMINED` mails at most: it may have fewer than
    `limit`, or none, and yet another page follows.
    """
    wanted, query = request.wanted, "list_named_emails"
    parameters, end = [*chosen(request.owner_id, wanted), request.before], None
    if wanted.ids is None:
        query = "list_emails"
        if wanted.tag or wanted.to or wanted.created_after or wanted.created_before:
            end = await _last_examined(connection, request)
        parameters.append(end)
    found = await connection.fetch(SQL[query], *parameters, request.limit + 1)
    rows, following = page_of(found, request.limit, lambda row: row["id"])
    return Emails(
        data=[EmailLine(**{**row, "tags": from_json(row["tags"])}) for row in rows],
        next_cursor=following or end,
    )


async def decide(
    connection: Connection, request: CancelEmails | RetryEmails, decision: Decision, *, life_s: float
) -> EmailsChanged:
    """Cancel or retry the mails that `request` selects, newest first, and announce the changes.

    It examines `MOST_EXAMINED` mails at most and changes `MOST_CHANGED` of them; the next call begins behind
    `next_cursor`. A mail that is retried has at least `life_s` seconds before it expires.
    """
    owner_id, statuses, *others = chosen(request.owner_id, request.wanted)
    before, end = request.before, await _last_examined(connection, request)
    if request.wanted.ids:
        before, end = UUID(int=min(max(request.wanted.ids).int + 1, _LAST.int)), min(request.wanted.ids)
    most = MOST_EXAMINED if request.dry_run else MOST_CHANGED
    found = await connection.fetch(
        SQL["find_changeable"],
        owner_id,
        [status for status in statuses if status in decision.statuses],
        *others,
        *(before, end, decision.recipients, decision.skips_due, most + 1),
    )
    rows, following = page_of(found, most, lambda row: row["id"])
    matched: int = await connection.fetchval(
        SQL["count_matching"], owner_id, statuses, *others, before, following or end
    )
    if not request.wanted.ids:
        following = following or end
    ids: Sequence[UUID] = [row["id"] for row in rows]
    if not request.dry_run:
        parameters: list[Any] = [ids]
        if decision is RETRY:
            parameters.append(life_s)
            # Recipients are locked before their mails, in a fixed order, as everywhere.
            await connection.execute(SQL["lock_recipients"], ids)
            await connection.execute(SQL["lock_emails"], ids)
        changed = await connection.fetch(SQL[decision.query], *parameters)
        # In the meantime some of them may have been claimed, or have lost their content.
        ids = list({row["email_id"] for row in changed})
        if decision is RETRY:
            await connection.execute(SQL["prolong_emails"], ids, life_s)
        keys = [(row["email_id"], row["position"]) for row in changed]
        await repository.note(connection, decision.kind, keys)
        await announcing.announce(connection, await repository.sum_up(connection, ids))
    return EmailsChanged(matched=matched, changed=len(ids), complete=following is None, next_cursor=following)


async def reschedule(connection: Connection, request: RescheduleEmail) -> None:
    """Change the time of a mail of which no attempt has begun.

    Without a new `expires_at` the time that it has before it expires stays the same. Raise `NotFound`,
    `Conflict`, or `EmailChanged` when its times differ from those that the caller has read.
    """
    found = await repository.find(connection, request.email_id, owner_id=request.owner_id)
    if found is None:
        raise NotFound(f"There is no e-mail {request.email_id}.")
    await connection.execute(SQL["lock_recipients"], [request.email_id])
    row = await connection.fetchrow(SQL["lock_untried"], request.email_id, request.owner_id)
    if row is None:
        raise Conflict(
            f"E-mail {request.email_id} is {found.status}: only a mail of which no attempt has begun can be"
            " rescheduled."
        )
    seen = request.seen_send_at, request.seen_expires_at
    if request.seen_send_at is not None and seen != (row["planned"], row["expires_at"]):
        raise EmailChanged(f"E-mail {request.email_id} was rescheduled meanwhile: read it again and retry.")
    expires_at = request.expires_at or request.send_at + (row["expires_at"] - row["planned"])
    if expires_at <= request.send_at:
        raise InvalidInput("expires_at must be later than send_at")
    moved = await connection.fetch(
        SQL["reschedule_recipients"], request.email_id, request.send_at, expires_at
    )
    if not moved:
        raise Conflict(f"E-mail {request.email_id} is being sent: it can no longer be rescheduled.")
    await connection.execute(SQL["reschedule_email"], request.email_id, request.send_at, expires_at)
    await repository.note(connection, "rescheduled", [(request.email_id, None)])


async def copy(
    connection: Connection,
    command: ResendEmail,
    *,
    life_s: float,
    trace: tuple[str | None, str | None],
) -> bool:
    """Store a copy of a mail under a new id, due at once; return whether there was something to copy.

    If all its recipients are refused, the mail ends at once, which is announced.
    """
    at: datetime = command.accepted_at
    source = command.source_id
    made = await connection.fetchval(
        SQL["copy_email"], command.email_id, source, command.owner_id, at, life_s, *trace, command.message_id
    )
    if made is None:
        return False
    await connection.execute(SQL["copy_recipients"], command.email_id, source, at, life_s)
    await connection.execute(SQL["copy_refusals"], command.email_id, source, at)
    await connection.execute(SQL["copy_attachments"], command.email_id, source)
    await announcing.announce(connection, await repository.sum_up(connection, [command.email_id]))
    return True


async def _last_examined(
    connection: Connection, request: ListEmails | CancelEmails | RetryEmails
) -> UUID | None:
    """Return the id of the oldest mail that this request examines; None when those are all."""
    statuses = list(request.wanted.status or STORED_STATUSES)
    found: UUID | None = await connection.fetchval(
        SQL["find_last_examined"], request.owner_id, statuses, request.before, MOST_EXAMINED
    )
    return found


def chosen(owner_id: str, wanted: EmailFilter) -> list[Any]:
    """Return the parameters that select mails, in the order that the statements expect."""
    return [
        owner_id,
        list(wanted.status or STORED_STATUSES),
        wanted.created_after,
        wanted.created_before,
        wanted.tag,
        wanted.to,
        wanted.ids,
    ]
