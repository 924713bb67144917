"""Claimed recipients as jobs, their leases, and their outcomes: functions on the caller's connection."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from chassis import queries
from chassis.postgres import Connection, Row
from emailer.mails import repository, states, table_rows
from emailer.mails.announcing import StatusChange
from emailer.mails.stored_mail import StoredMail
from emailer.sending.attempts import Job, RecipientOutcome

_SQL = queries.of("emailer")

# Attempts kept of a recipient. The oldest are removed with every fiftieth, so there may be 49 more.
MOST_KEPT_ATTEMPTS = 100
_FORGET_EVERY = 50
# The columns of an attempt when none was made.
_NO_ATTEMPT = (None,) * 6


async def renew(
    connection: Connection, keys: Sequence[tuple[UUID, int]], *, holder: UUID, lease_s: float
) -> None:
    """Extend the leases on the recipients `keys` to `lease_s` seconds from now."""
    await connection.execute(_SQL["renew_leases"], holder, *_columns(sorted(keys), 2), lease_s)


def jobs(claimed: Iterable[Row], mails: dict[UUID, StoredMail]) -> list[Job]:
    """Return claimed rows as jobs, with their mails."""
    return [
        Job(
            mail=mails[row["email_id"]],
            position=row["position"],
            address=row["address"],
            tries=row["tries"],
            was=row["was"],
            doubts=row["doubts"],
            stream=row["stream"],
            due_at=row["was_due_at"],
            taken_at=time.monotonic(),
        )
        for row in claimed
    ]


async def record(
    connection: Connection, outcomes: Sequence[RecipientOutcome], *, holder: UUID
) -> list[StatusChange]:
    """Write outcomes and attempts; return the changes of the mails' overall statuses."""
    rows = [
        (
            *o.job.key,
            *(o.status, o.due_at, o.tries, o.doubts),
            *(table_rows.attempt_row(o.attempt) if o.attempt and o.attempt.was_made else _NO_ATTEMPT),
        )
        # In one order, like the renewal of leases.
        for o in sorted(outcomes, key=lambda o: o.job.key)
    ]
    written = {
        (row["email_id"], row["position"]): row["attempts"]
        for row in await connection.fetch(_SQL["record_outcomes"], holder, rows)
    }
    waits = [
        (*o.job.key, *table_rows.attempt_row(o.attempt))
        for o in outcomes
        if o.attempt and not o.attempt.was_made
    ]
    if waits:
        await connection.execute(_SQL["record_waits"], *_columns(waits, 8))
    worn = [
        key for key, count in written.items() if count > MOST_KEPT_ATTEMPTS and count % _FORGET_EVERY == 0
    ]
    if worn:
        await connection.execute(_SQL["forget_attempts"], *_columns(worn, 2), MOST_KEPT_ATTEMPTS)
    own = [o for o in outcomes if o.job.key in written]
    await repository.note(connection, "expired", [o.job.key for o in own if o.status == "expired"])
    sums = {o.job.mail.id: states.summed_up([o.status]) for o in own if o.job.mail.recipient_count == 1}
    return await repository.sum_up(connection, {o.job.mail.id for o in own}, known=sums)


async def expire(connection: Connection, *, most: int) -> tuple[int, list[StatusChange]]:
    """Expire recipients whose deadline has passed; return their number, and the changes of their mails."""
    rows = await connection.fetch(_SQL["expire_recipients"], most)
    await repository.note(connection, "expired", [(row["email_id"], row["position"]) for row in rows])
    return len(rows), await repository.sum_up(connection, {row["email_id"] for row in rows})


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]
