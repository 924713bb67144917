"""What is kept of a mail that is tried, retried and rescheduled for months is bounded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from chassis.broker.envelope import new_id
from contracts.emails import SendEmail
from emailer.mails import repository, timeline
from emailer.mails.stored_mail import AttemptRecord
from emailer.sending import attempts, outcome_repository
from emailer.sending.attempts import Job, RecipientOutcome
from emailer.sending.outcome_repository import MOST_KEPT_ATTEMPTS
from support.doubles.post_office import PostOffice, mail

NOW = datetime.now(UTC)
PAUSED = "not tried: mails of this sender wait, because the relay said: 550 5.7.1 not you"


async def job_of(post_office: PostOffice, command: SendEmail) -> Job:
    await post_office.accept(command)
    claimed = await post_office.claim()
    async with post_office.postgres.connection() as connection:
        (job,) = outcome_repository.jobs(claimed, await repository.read_mails(connection, [command.email_id]))
    return job


async def record(post_office: PostOffice, job: Job, *records: AttemptRecord) -> None:
    """Record attempts of a mail that is deferred again and again."""
    for noted in records:
        async with post_office.postgres.transaction() as connection:
            holder = new_id()
            await connection.execute("UPDATE recipients SET holder = $1", holder)
            outcome = RecipientOutcome(job, "deferred", NOW, 1, noted)
            await outcome_repository.record(connection, [outcome], holder=holder)


def deferred(number: int) -> AttemptRecord:
    return AttemptRecord(NOW, "relay:25", "deferred", 450, f"4.2.1 not now, {number}")


def waiting(number: int) -> AttemptRecord:
    at = NOW + timedelta(minutes=number)
    return AttemptRecord(at, "", "deferred", None, f"{PAUSED} ({number})", was_made=False)


async def test_the_newest_attempts_of_a_recipient_are_kept(post_office: PostOffice) -> None:
    job = await job_of(post_office, mail())
    last = 2 * MOST_KEPT_ATTEMPTS
    await record(post_office, job, *map(deferred, range(1, last)))
    async with post_office.postgres.connection() as connection:
        kept = await connection.fetchval("SELECT count(*) FROM attempts")
        assert MOST_KEPT_ATTEMPTS <= kept < MOST_KEPT_ATTEMPTS + 50
    await record(post_office, job, deferred(last))
    async with post_office.postgres.connection() as connection:
        rows = await connection.fetch("SELECT smtp_reply FROM attempts ORDER BY id")
    assert [row["smtp_reply"] for row in rows] == [
        deferred(number).text for number in range(last - MOST_KEPT_ATTEMPTS + 1, last + 1)
    ]


async def test_a_mail_that_waits_with_its_sender_time_after_time_says_so_once(
    post_office: PostOffice,
) -> None:
    command = mail()
    job = await job_of(post_office, command)
    await record(
        post_office, job, deferred(1), *map(waiting, range(50)), deferred(2), waiting(50), waiting(51)
    )
    (recipient,) = (await post_office.read(command)).recipients
    assert [(attempt.at, attempt.smtp_reply) for attempt in recipient.attempts] == [
        (noted.at, noted.text) for noted in (deferred(1), waiting(49), deferred(2), waiting(51))
    ]


async def test_an_attempt_that_was_made_is_never_replaced(post_office: PostOffice) -> None:
    command = mail()
    job = await job_of(post_office, command)
    unsigned = attempts.unsigned(job, draft=deferred(1), patience=attempts.Patience()).attempt
    assert unsigned is not None
    await record(post_office, job, unsigned, unsigned, waiting(1))
    (recipient,) = (await post_office.read(command)).recipients
    assert len(recipient.attempts) == 3


async def test_the_newest_events_of_a_mail_are_kept(post_office: PostOffice) -> None:
    moved, other = mail(), mail()
    await post_office.accept(moved, other)
    async with post_office.postgres.transaction() as connection:
        for _ in range(2):
            await repository.note(connection, "rescheduled", [(moved.email_id, None)] * 400)
            await repository.note(connection, "retried", [(moved.email_id, 0), (other.email_id, 0)])
        rows = await connection.fetch("SELECT email_id, count(*) FROM email_events GROUP BY email_id")
    assert dict(map(tuple, rows)) == {moved.email_id: timeline.MOST_EVENTS, other.email_id: 2}
