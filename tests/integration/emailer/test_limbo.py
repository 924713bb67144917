"""A process that is killed at the boundary of any write leaves no mail in limbo: all reach an end."""

from __future__ import annotations

import asyncio
import base64
import multiprocessing
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from chassis.deadlines import Deadline
from contracts.emails import (
    CancelEmails,
    EmailFilter,
    RecordBounce,
    RescheduleEmail,
    ResendEmail,
    RetryEmails,
)
from emailer.bounces.answers import BounceAnswers
from emailer.bounces.return_path import ReturnPath
from emailer.mails import choosing
from emailer.retention import removal
from emailer.retention.removal import Retention
from emailer.sending.attempts import Patience
from emailer.suppression.rules import SuppressionTerms
from support import databases, killed_office, limbo
from support.doubles.post_office import OWNER, DispatcherTerms, PostOffice, mail
from support.doubles.smtp import HANG_UP, Step
from support.waiting import until

IDS = [UUID(int=(7 << 76) + (2 << 62) + number) for number in range(6)]
COPY = UUID(int=(7 << 76) + (2 << 62) + 99)
PATHS = ReturnPath("bounces.example.com", (b"k" * 32,))
FILE = {"filename": "a.txt", "content": "aGVsbG8="}
GONE = b"""\
Content-Type: multipart/report; boundary="B"

--B
Content-Type: message/delivery-status

Reporting-MTA: dns; relay.example

Final-Recipient: rfc822; taken@example.com
Action: failed
Status: 5.1.1

--B--
"""
# Nothing is tried a second time before the test lets time pass.
SLOW = DispatcherTerms(patience=Patience(scale=1))
WHEN = datetime(2027, 1, 1, tzinfo=UTC)
EACH = EmailFilter()


async def deliver(office: PostOffice) -> None:
    """Deliver until all that is left waits for another time, and stop as the service does."""
    async with office.delivering(SLOW):
        await until(lambda: _is_waiting(office))


async def _is_waiting(office: PostOffice) -> bool:
    async with office.postgres.connection() as connection:
        return not await connection.fetchval(
            "SELECT count(*) FROM recipients WHERE status = 'sending' OR due_at <= now()"
        )


async def pause(office: PostOffice) -> None:
    """Use a relay that limits mails, so that a pause returns all claimed ones."""
    async with office.delivering(SLOW) as dispatcher:
        await until(lambda: dispatcher.is_route_paused)


async def retry(office: PostOffice) -> None:
    """Retry every mail that can be retried."""
    async with office.postgres.connection() as connection:
        request = RetryEmails(owner_id=OWNER, wanted=EACH)
        await choosing.decide(connection, request, choosing.RETRY, life_s=3600)


async def cancel(office: PostOffice) -> None:
    """Cancel every mail that can be cancelled."""
    async with office.postgres.connection() as connection:
        request = CancelEmails(owner_id=OWNER, wanted=EACH)
        await choosing.decide(connection, request, choosing.CANCEL, life_s=3600)


async def reschedule(office: PostOffice) -> None:
    """Move a mail to another time."""
    async with office.postgres.transaction() as connection:
        request = RescheduleEmail(email_id=IDS[0], owner_id=OWNER, send_at=WHEN)
        await choosing.reschedule(connection, request)


async def resend(office: PostOffice) -> None:
    """Send a mail again."""
    async with office.postgres.transaction() as connection:
        again = ResendEmail(email_id=COPY, source_id=IDS[0], owner_id=OWNER, accepted_at=datetime.now(UTC))
        await choosing.copy(connection, again, life_s=3600, trace=(None, None))


async def bounce(office: PostOffice) -> None:
    """Record that a mail has come back."""
    parts = (office.postgres, PATHS, office.bounce_reader)
    answers = BounceAnswers(*parts, terms=SuppressionTerms(), changed=lambda: None)
    recipient = PATHS.address(IDS[0], 0, sender="")
    content = base64.b64encode(GONE).decode()
    await answers.record(RecordBounce(recipient=recipient, content=content), Deadline.after(30))


async def remove(office: PostOffice) -> None:
    """Remove files, content and records."""
    await removal.remove(office.postgres, Retention(content_days=7, record_days=8))


async def expire(office: PostOffice) -> None:
    """Expire recipients whose deadline has passed."""
    dispatcher, _ = office.dispatcher(SLOW)
    await dispatcher.recorder.expire()


Part = Callable[[PostOffice], Awaitable[None]]


async def stored(office: PostOffice) -> None:
    """Store mails with every outcome: taken, refused, deferred, lost after the dot, to two, with a file."""
    office.server.scripts.clear()
    office.server.script("refused@example.com", Step("rcpt", "550 5.7.1 not from you"))
    office.server.script("later@example.com", Step("rcpt", "450 4.7.1 later"))
    office.server.script("lost@example.com", Step("content", HANG_UP))
    wanted = (["taken@example.com"], ["refused@example.com"], ["later@example.com"], ["lost@example.com"])
    await office.accept(
        *(mail(email_id=key, to=to, attachments=[FILE]) for key, to in zip(IDS, wanted, strict=False)),
        mail(email_id=IDS[4], to=["taken@example.com", "refused@example.com", "later@example.com"]),
        mail(email_id=IDS[5], to=["later@example.com"], send_at=WHEN, stream="bulk"),
    )


async def limited(office: PostOffice) -> None:
    """Store mails, and let the relay limit what it takes for a while."""
    await stored(office)
    office.server.scripts.clear()
    for name in ("taken", "refused", "later", "lost"):
        office.server.script(f"{name}@example.com", *[Step("mail", "451 4.4.5 daily limit exceeded")] * 3)


async def delivered(office: PostOffice) -> None:
    """Store mails that were tried once."""
    await stored(office)
    await deliver(office)


async def old(office: PostOffice) -> None:
    """Store mails that were tried once, and that ended long ago or a moment ago."""
    await delivered(office)
    async with office.postgres.connection() as connection:
        await connection.execute(
            "UPDATE emails"
            " SET ended_at = ended_at - interval '1 day' * (CASE WHEN id < $1 THEN 30 ELSE 7 END)",
            IDS[1],
        )


async def late(office: PostOffice) -> None:
    """Store mails that have expired."""
    await stored(office)
    async with office.postgres.connection() as connection:
        await connection.execute("UPDATE recipients SET expires_at = now() - interval '1 s'")
        await connection.execute("UPDATE emails SET expires_at = now() - interval '1 s'")


# What is done, and after what.
WORK: dict[str, tuple[Part, Part]] = {
    "delivery": (stored, deliver),
    "pause": (limited, pause),
    "retry": (delivered, retry),
    "cancellation": (delivered, cancel),
    "rescheduling": (stored, reschedule),
    "sending again": (delivered, resend),
    "bounce": (delivered, bounce),
    "removal": (old, remove),
    "expiry": (late, expire),
}
# How many boundaries each has at least: before and after one commit, or more; outcomes may share one.
LEAST = {"delivery": 4, "pause": 4, "removal": 3}


@pytest.mark.parametrize("name", WORK)
async def test_a_process_that_is_killed_at_any_commit_leaves_no_mail_in_limbo(
    post_office: PostOffice, name: str
) -> None:
    before, work = WORK[name]
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["support.killed_office", __name__])
    at, is_over = 0, False
    while not is_over:
        async with post_office.postgres.connection() as connection:
            await databases.empty(connection)
        await before(post_office)
        process = processes.Process(
            target=killed_office.run,
            args=(post_office.dsn, post_office.server.port, work, at),
            # A run that is broken off takes it along: without its database it would wait for ever.
            daemon=True,
        )
        process.start()
        try:
            await asyncio.to_thread(process.join, 60)
            assert process.exitcode in (0, -signal.SIGKILL), f"boundary {at}"
        finally:
            process.kill()
        is_over = process.exitcode == 0
        assert await limbo.strays(post_office) == [], f"boundary {at}"
        await _end_all(post_office)
        assert await limbo.strays(post_office) == [], f"boundary {at}, at the end"
        at += 1
    assert at - 1 >= LEAST.get(name, 2)


async def _end_all(office: PostOffice) -> None:
    """Let all deadlines pass, and a process without faults do its work."""
    office.server.scripts.clear()

    async def is_settled() -> bool:
        async with office.postgres.connection() as connection:
            await limbo.pass_time(connection)
            rows = await connection.fetch("SELECT id FROM emails")
        return all([limbo.is_settled(await office.read(mail(email_id=row["id"]))) for row in rows])

    async with office.delivering():
        await until(is_settled)


async def test_a_mail_in_limbo_is_found(post_office: PostOffice) -> None:
    flaws = (
        "due_at = NULL, ready = false",
        "status = 'sending', ready = false",
        "ready = true, owner_id = ''",
        "ready = true, stream = 'other'",
        "ready = true, due_at = now() + interval '1 hour'",
        "status = 'delivered'",
    )
    for flaw in flaws:
        async with post_office.postgres.connection() as connection:
            await connection.execute("TRUNCATE emails CASCADE")
        await post_office.accept(mail())
        assert await limbo.strays(post_office) == []
        async with post_office.postgres.connection() as connection:
            await connection.execute(f"UPDATE recipients SET {flaw}")
        assert await limbo.strays(post_office), flaw
    async with post_office.postgres.connection() as connection:
        await connection.execute("TRUNCATE emails CASCADE")
    await post_office.accept(mail(send_at=datetime.now(UTC) + timedelta(hours=1)))
    async with post_office.postgres.connection() as connection:
        await connection.execute("UPDATE emails SET letter = '{}', ended_at = now()")
    assert len(await limbo.strays(post_office)) == 2
