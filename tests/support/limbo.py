"""The search for mails in limbo: recipients that would never reach an end."""

from __future__ import annotations

from chassis.broker.envelope import new_id
from chassis.postgres import Connection
from contracts.emails import Email
from emailer.mails import states
from emailer.sending.lanes import Terms
from emailer.sending.rounds import Rounds
from emailer.sending.waiting_recipients import WaitingRecipients
from support.doubles.post_office import PostOffice

# Each row names a recipient and what is wrong with it.
_STRAY = """
SELECT recipients.email_id::text || '/' || position || ' (' || recipients.status || ') ' || reason AS stray
FROM recipients
JOIN emails ON emails.id = recipients.email_id
CROSS JOIN LATERAL (VALUES
    (
        'is open and has no time',
        recipients.status = ANY('{queued,deferred,ambiguous,sending}') AND due_at IS NULL
    ),
    (
        'has ended, or waits for a decision, and has a time',
        NOT recipients.status = ANY('{queued,deferred,ambiguous,sending}') AND (due_at IS NOT NULL OR ready)
    ),
    ('stands in a lane that nobody finds', ready AND '' IN (recipients.owner_id, domain)),
    ('stands in a lane before its time', ready AND due_at > now() + interval '1 s'),
    ('is being sent by nobody', recipients.status = 'sending' AND holder IS NULL AND NOT ready),
    (
        'is open and has lost its content',
        NOT recipients.status = ANY('{delivered,failed,suppressed,expired,cancelled}') AND (
            stripped > 0 OR letter::text = '{}'
            OR attachment_count <> (SELECT count(*) FROM attachments WHERE email_id = emails.id)
        )
    )
) AS flaws (reason, is_so)
WHERE is_so
"""
_OPEN = """
SELECT email_id, position FROM recipients WHERE status = ANY('{queued,deferred,ambiguous,sending}')
"""
_SUMS = """
SELECT emails.id, emails.status, ended_at IS NOT NULL AS has_ended, array_agg(recipients.status) AS recipients
FROM emails JOIN recipients ON recipients.email_id = emails.id
GROUP BY emails.id
"""
_OVER = ("delivered", "partially_delivered", "failed", "suppressed", "cancelled", "expired")


class _Looked(Exception):
    """Rolls back the transaction in which time was moved."""


async def strays(post_office: PostOffice) -> list[str]:
    """Return the errors of the mails in the tables; there are none unless something is in limbo.

    Each recipient that is open is found by a claim once its time has come, each mail says what its recipients
    sum up to, and those that are over are on their way to be removed.
    """
    found: list[str] = []
    async with post_office.postgres.connection() as connection:
        found += [row["stray"] for row in await connection.fetch(_STRAY)]
        for row in await connection.fetch(_SUMS):
            summed = states.summed_up(row["recipients"])
            if summed not in ("queued", "sending", row["status"]):
                found.append(f"{row['id']} is stored as {row['status']} and sums up to {summed}")
            if row["has_ended"] and summed not in _OVER:
                found.append(f"{row['id']} is {summed} and would be removed")
    try:
        async with post_office.postgres.transaction() as connection:
            found += await _not_found_by_a_claim(connection)
            raise _Looked
    except _Looked:
        return found


async def _not_found_by_a_claim(connection: Connection) -> list[str]:
    wanted = {tuple(row) for row in await connection.fetch(_OPEN)}
    await pass_time(connection)
    await WaitingRecipients().line_up(connection, most=1000)
    rounds, terms = Rounds(), Terms(new_id(), 60, 1 << 30)
    await rounds.look(connection)
    for turn in rounds.streams:
        divided = dict.fromkeys(turn.next(), 100)
        claimed = await turn.claim(connection, divided, most=1000, terms=terms)
        wanted -= {(row["email_id"], row["position"]) for row in claimed}
    return [f"{email_id}/{position} is found by no claim" for email_id, position in wanted]


async def pass_time(connection: Connection) -> None:
    """Make everything due that has a time: the next attempt, the end of a lease."""
    # In the order in which outcomes are recorded meanwhile, or the two could deadlock.
    await connection.execute(
        "WITH later AS ("
        "  SELECT email_id, position FROM recipients WHERE due_at > now()"
        "  ORDER BY email_id, position FOR UPDATE"
        ")"
        " UPDATE recipients SET due_at = now() FROM later"
        " WHERE recipients.email_id = later.email_id AND recipients.position = later.position"
    )


def is_settled(email: Email) -> bool:
    """Return whether nothing more happens to a mail without a request."""
    return email.status in (*_OVER, "held")
