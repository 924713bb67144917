"""Lists of an owner's mails, and what an owner decides about them: cancel, retry, reschedule, send again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from pydantic_core import from_json

from chassis.errors import Conflict, InvalidInput, NotFound
from chassis.paging import page_of
from chassis.postgres import Connection
from contracts.emails import (
    CancelEmails,
    Email,
    EmailLine,
    Emails,
    EmailsChanged,
    EventKind,
    GetEmail,
    ListEmails,
    RescheduleEmail,
    ResendEmail,
    RetryEmails,
)
from emailer.errors import EmailChanged
from emailer.mails import announcing, repository
from emailer.mails import decision_repository as decisions
from emailer.mails.domain_limits import DomainLimits

# Mails changed by one call.
MOST_CHANGED = 1000
# Mails changed by one transaction. Each may have fifty recipients, and the outcomes of other owners are
# written in one transaction with those that wait for its locks.
MOST_AT_ONCE = 20
# Mails that one call compares with its filter: of an owner who has very many, it may match none.
MOST_EXAMINED = 5000
# The command to send a mail again may have to wait in a queue; afterwards the mail is past its retention.
KEPT_FOR_COPY_S = 86_400.0

_LAST = UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision, and its objects: mails in one of `statuses`, and their recipients in one of `recipients`.

    With `skips_due`, recipients that are already due are left alone: a retry could not hurry them.
    """

    kind: EventKind
    statuses: frozenset[str]
    recipients: tuple[str, ...]
    skips_due: bool


CANCEL = Decision(
    kind="cancelled",
    statuses=frozenset(("queued", "deferred", "held")),
    recipients=("queued", "deferred", "ambiguous", "held"),
    skips_due=False,
)
RETRY = Decision(
    kind="retried",
    statuses=frozenset(("deferred", "held", "failed", "expired", "suppressed", "partially_delivered")),
    recipients=("deferred", "ambiguous", "held", "failed", "expired", "suppressed"),
    skips_due=True,
)


async def list_emails(connection: Connection, request: ListEmails) -> Emails:
    """Return a page of an owner's mails, newest first; call it outside of a transaction.

    With a filter other than by status it examines `MOST_EXAMINED` mails at most: it may have fewer than
    `limit`, or none, and yet another page follows.
    """
    wanted, limit, before = request.wanted, request.limit + 1, request.before or _LAST
    owner_id, statuses, end = request.owner_id, decisions.statuses_of(wanted), None
    if wanted.ids is not None:
        found = await decisions.list_named(connection, owner_id, wanted, before=before, most=limit)
    elif wanted.tag or wanted.to or wanted.created_after or wanted.created_before:
        async with repository.snapshot(connection):
            parts, end = await _examined(connection, request, statuses)
            found = await decisions.list_examined(connection, owner_id, wanted, parts, most=limit)
    else:
        parts = [(status, before, limit) for status in statuses]
        found = await decisions.list_examined(connection, owner_id, wanted, parts, most=limit)
    rows, following = page_of(found, request.limit, lambda row: row["id"])
    return Emails(
        data=[EmailLine(**{**row, "tags": from_json(row["tags"])}) for row in rows],
        next_cursor=following or end,
    )


async def find_changeable(
    connection: Connection, request: CancelEmails | RetryEmails, decision: Decision
) -> tuple[list[UUID], EmailsChanged]:
    """Return the mails that `request` would change, newest first, and the reply of a dry run.

    It examines `MOST_EXAMINED` mails at most that are in a state to be changed; those that match are counted
    among as many of all. Call it outside of a transaction.
    """
    owner_id, wanted, statuses = request.owner_id, request.wanted, decisions.statuses_of(request.wanted)
    changeable = [status for status in statuses if status in decision.statuses]
    most = MOST_EXAMINED if request.dry_run else MOST_CHANGED
    async with repository.snapshot(connection):
        parts, end = await _examined(connection, request, changeable)
        found = await decisions.find_changeable(
            *(connection, owner_id, wanted, parts),
            recipients=decision.recipients,
            skips_due=decision.skips_due,
            most=most + 1,
        )
        rows, following = page_of(found, most, lambda row: row["id"])
        end = following or end
        parts, counted = await _examined(connection, request, statuses)
        lowest = max((place for place in (end, counted) if place is not None), default=None)
        matched = await decisions.count_matching(connection, owner_id, wanted, parts, lowest=lowest)
    return [row["id"] for row in rows], EmailsChanged(
        matched=matched,
        changed=len(rows),
        complete=end is None,
        next_cursor=end,
        exact=lowest == end,
    )


async def decide(
    connection: Connection, request: CancelEmails | RetryEmails, decision: Decision, *, life_s: float
) -> EmailsChanged:
    """Cancel or retry mails that `request` selects, at most 1,000 of them, and announce the changes.

    The next call begins behind `next_cursor`. A mail that is retried has at least `life_s` seconds before it
    expires. It takes several transactions, and those that were committed stay when a later one fails: the
    same call then changes the others. Call it outside of a transaction.
    """
    ids, found = await find_changeable(connection, request, decision)
    if request.dry_run:
        return found
    count = 0
    for start in range(0, len(ids), MOST_AT_ONCE):
        some = ids[start : start + MOST_AT_ONCE]
        async with connection.transaction():
            if decision is RETRY:
                changed = await decisions.retry(connection, some, life_s=life_s)
            else:
                changed = await decisions.cancel(connection, some)
            # In the meantime some of them may have been claimed, or have lost their content.
            some = list({row["email_id"] for row in changed})
            if decision is RETRY:
                await decisions.prolong(connection, some, life_s=life_s)
            keys = [(row["email_id"], row["position"]) for row in changed]
            await repository.note(connection, decision.kind, keys)
            await announcing.announce(connection, await repository.sum_up(connection, some))
        count += len(some)
    return found.model_copy(update={"changed": count})


async def reschedule(connection: Connection, request: RescheduleEmail) -> None:
    """Change the time of a mail of which no attempt has begun.

    Without a new `expires_at` the time that it has before it expires stays the same. Raise `NotFound`,
    `Conflict`, or `EmailChanged` when its times differ from those that the caller has read.
    """
    found = await repository.find(connection, request.email_id, owner_id=request.owner_id)
    if found is None:
        raise NotFound(f"There is no e-mail {request.email_id}.")
    await decisions.lock_recipients(connection, [request.email_id])
    row = await decisions.lock_untried(connection, request.email_id, request.owner_id)
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
    moved = await decisions.reschedule(
        connection, request.email_id, send_at=request.send_at, expires_at=expires_at
    )
    if not moved:
        raise Conflict(f"E-mail {request.email_id} is being sent: it can no longer be rescheduled.")
    await repository.note(connection, "rescheduled", [(request.email_id, None)])


async def find(connection: Connection, request: GetEmail, *, limits: DomainLimits) -> Email:
    """Return the mail that `request` asks for. Raise `NotFound`; call it outside of a transaction."""
    if request.for_copy:
        await keep_for_copy(connection, request.email_id, owner_id=request.owner_id)
    async with repository.snapshot(connection):
        found = await repository.find(connection, request.email_id, owner_id=request.owner_id, limits=limits)
    if found is None:
        raise NotFound(f"There is no e-mail {request.email_id}.")
    return found


async def keep_for_copy(connection: Connection, email_id: UUID, *, owner_id: str) -> None:
    """Keep the content of a mail past its retention, for a day, as it is about to be sent again."""
    await decisions.keep_for_copy(connection, email_id, owner_id, for_s=KEPT_FOR_COPY_S)


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
    if not await decisions.copy(connection, command, life_s=life_s, trace=trace):
        return False
    await announcing.announce(connection, await repository.sum_up(connection, [command.email_id]))
    return True


async def _examined(
    connection: Connection, request: ListEmails | CancelEmails | RetryEmails, statuses: Sequence[str]
) -> tuple[list[decisions.Part], UUID | None]:
    """Return the parts that this request examines, and the id of the last mail; None when those are all.

    They hold for the snapshot of the caller: a mail that is stored later would push the last one out.
    """
    if request.wanted.ids is not None:
        behind = [UUID(int=min(key.int + 1, _LAST.int)) for key in request.wanted.ids]
        return [(status, key, 1) for status in statuses for key in behind], None
    before = request.before or _LAST
    rows = await decisions.find_examined(
        connection, request.owner_id, statuses, before=before, most=MOST_EXAMINED
    )
    parts = [(row["status"], before, row["most"]) for row in rows]
    is_cut = sum(row["most"] for row in rows) == MOST_EXAMINED
    return parts, min(row["last"] for row in rows) if is_cut else None
