"""Every change of a mail locks its recipients before the mail itself, so that no two deadlock."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from chassis import queries
from chassis.broker.envelope import new_id
from chassis.deadlines import Deadline
from contracts.emails import (
    CancelEmails,
    EmailFilter,
    RecordBounce,
    RescheduleEmail,
    ResendEmail,
    RetryEmails,
    SendEmail,
)
from emailer.bounces.answers import BounceAnswers
from emailer.bounces.return_path import ReturnPath
from emailer.mails import choosing, repository
from emailer.retention import removal
from emailer.retention.removal import Retention
from emailer.suppression.rules import SuppressionTerms
from support.doubles.post_office import OWNER, PostOffice, mail
from support.waiting import until

_SQL = queries.of("emailer")

LATER = datetime.now(UTC) + timedelta(hours=1)
PATHS = ReturnPath("bounces.example.com", (b"k" * 32,))
Change = Callable[[PostOffice, SendEmail], Coroutine[Any, Any, object]]


async def retry(post_office: PostOffice, command: SendEmail) -> int:
    request = RetryEmails(owner_id=OWNER, wanted=EmailFilter(ids=[command.email_id]))
    async with post_office.postgres.connection() as connection:
        return (await choosing.decide(connection, request, choosing.RETRY, life_s=3600)).changed


async def cancel(post_office: PostOffice, command: SendEmail) -> None:
    request = CancelEmails(owner_id=OWNER, wanted=EmailFilter(ids=[command.email_id]))
    async with post_office.postgres.connection() as connection:
        await choosing.decide(connection, request, choosing.CANCEL, life_s=3600)


async def reschedule(post_office: PostOffice, command: SendEmail) -> None:
    request = RescheduleEmail(
        email_id=command.email_id, owner_id=OWNER, send_at=LATER + timedelta(hours=1), expires_at=None
    )
    async with post_office.postgres.transaction() as connection:
        await choosing.reschedule(connection, request)


async def bounce(post_office: PostOffice, command: SendEmail) -> None:
    parts = (post_office.postgres, PATHS, post_office.bounce_reader)
    answers = BounceAnswers(*parts, terms=SuppressionTerms(), changed=lambda: None)
    said = (
        'Content-Type: multipart/report; boundary="B"\n\n--B\nContent-Type: message/delivery-status\n\n'
        "Reporting-MTA: dns; r\n\nFinal-Recipient: rfc822; r@example.com\nAction: failed\nStatus: 5.1.1\n"
        "\n--B--\n"
    )
    request = RecordBounce(
        recipient=PATHS.address(command.email_id, 0, sender=""),
        content=base64.b64encode(said.encode()).decode(),
    )
    await answers.record(request, Deadline.after(30))


async def remove(post_office: PostOffice, _: SendEmail) -> int:
    return (await removal.remove(post_office.postgres, Retention()))["record"]


async def resend(post_office: PostOffice, command: SendEmail) -> bool:
    again = ResendEmail(
        email_id=new_id(), source_id=command.email_id, owner_id=OWNER, accepted_at=datetime.now(UTC)
    )
    async with post_office.postgres.transaction() as connection:
        return await choosing.copy(connection, again, life_s=3600, trace=(None, None))


# Each with the status that a mail is in then.
CHANGES: dict[str, tuple[Change, str]] = {
    "retry": (retry, "deferred"),
    "cancel": (cancel, "queued"),
    "reschedule": (reschedule, "queued"),
    "bounce": (bounce, "delivered"),
    "removal": (remove, "delivered"),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_that_waits_for_a_recipient_has_not_locked_its_mail(
    post_office: PostOffice, name: str
) -> None:
    change, status = CHANGES[name]
    command = mail(send_at=LATER)
    await post_office.accept(command)
    async with post_office.postgres.transaction() as connection:
        await connection.execute("UPDATE recipients SET status = $1", status)
        await connection.execute("UPDATE emails SET status = $1", status)
        if status == "delivered":
            await connection.execute("UPDATE emails SET stripped = 2, ended_at = now() - interval '99 days'")
    async with post_office.postgres.transaction() as connection:
        await connection.execute("UPDATE recipients SET tries = tries")
        changing = asyncio.create_task(change(post_office, command))
        await until(post_office.has_waiting_lock)
        # As the recording of an outcome does it.
        await repository.sum_up(connection, [command.email_id])
        await connection.execute("SET LOCAL lock_timeout = '3s'")
        await connection.execute("UPDATE emails SET expires_at = expires_at")
    await changing


async def test_a_mail_that_comes_back_to_life_while_it_is_removed_stays(post_office: PostOffice) -> None:
    command = mail(send_at=LATER)
    await post_office.accept(command)
    async with post_office.postgres.connection() as connection:
        await connection.execute(
            "UPDATE emails SET status = 'failed', stripped = 2, ended_at = now() - interval '99 days'"
        )
    async with post_office.postgres.transaction() as connection:
        await connection.execute("UPDATE recipients SET tries = tries")
        removing = asyncio.create_task(remove(post_office, command))
        await until(post_office.has_waiting_lock)
        await connection.execute("UPDATE emails SET status = 'deferred', ended_at = NULL")
    assert await removing == 0
    assert (await post_office.read(command)).id == command.email_id


async def removal_under_way(
    post_office: PostOffice, command: SendEmail, statement: str
) -> asyncpg.Connection[Any]:
    """Return a failed mail whose content or files are being removed at this moment."""
    async with post_office.postgres.transaction() as connection:
        await connection.execute("UPDATE recipients SET status = 'failed', due_at = NULL, ready = false")
        await connection.execute("UPDATE emails SET status = 'failed', ended_at = now() - interval '8 days'")
    removal: asyncpg.Connection[Any] = await asyncpg.connect(post_office.dsn)
    await removal.execute("BEGIN")
    await removal.execute(_SQL[statement], 1000, *Retention().content)
    return removal


async def test_a_retry_that_meets_the_removal_of_the_content_tries_nothing(post_office: PostOffice) -> None:
    command = mail()
    await post_office.accept(command)
    removal = await removal_under_way(post_office, command, "remove_content")
    retrying = asyncio.create_task(retry(post_office, command))
    await until(post_office.has_waiting_lock)
    await removal.execute("COMMIT")
    await removal.close()
    assert await retrying == 0
    email = await post_office.read(command)
    assert (email.status, email.next, email.content_available) == ("failed", None, False)


async def test_a_retry_that_came_first_keeps_the_content(post_office: PostOffice) -> None:
    command = mail()
    await post_office.accept(command)
    await (await removal_under_way(post_office, command, "remove_content")).close()
    assert await retry(post_office, command) == 1
    assert (await removal.remove(post_office.postgres, Retention()))["content"] == 0
    async with post_office.delivering():
        await post_office.reaches(command, "delivered")


async def test_a_mail_that_is_sent_again_while_its_content_is_removed_is_not_sent_without_files(
    post_office: PostOffice,
) -> None:
    command = mail(attachments=[{"filename": "a.txt", "content": "aGVsbG8="}])
    await post_office.accept(command)
    removal = await removal_under_way(post_office, command, "remove_content")
    sending = asyncio.create_task(resend(post_office, command))
    await until(post_office.has_waiting_lock)
    await removal.execute("COMMIT")
    await removal.close()
    assert await sending is False


async def test_a_mail_of_an_older_release_that_is_retried_is_queued(post_office: PostOffice) -> None:
    command = mail()
    await post_office.accept(command)
    async with post_office.postgres.transaction() as connection:
        await connection.execute(
            "UPDATE recipients"
            " SET status = 'failed', due_at = NULL, ready = false, owner_id = '', domain = ''"
        )
        await connection.execute("UPDATE emails SET status = 'failed'")
    assert await retry(post_office, command) == 1
    async with post_office.delivering():
        await post_office.reaches(command, "delivered")
