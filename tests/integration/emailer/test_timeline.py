"""The events of a mail are listed in order, and the message that was handed over can be read again."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest

from chassis.errors import NotFound
from contracts.emails import (
    CancelEmails,
    Email,
    EmailFilter,
    GetRawEmail,
    RescheduleEmail,
    RetryEmails,
    SendEmail,
)
from emailer.mails import choosing, timeline
from emailer.mails.repository import MOST_ATTEMPTS
from emailer.retention import removal
from emailer.retention.removal import Retention
from emailer.sending.raw import RawMails
from support.doubles.post_office import OWNER, DispatcherTerms, PostOffice, mail, senders
from support.doubles.smtp import Step


def reported(email: Email) -> list[tuple[str, str | None]]:
    return [(event.kind, event.recipient) for event in email.timeline]


async def raw(post_office: PostOffice, command: SendEmail, owner_id: str = OWNER) -> bytes:
    mails, content = RawMails(post_office.postgres, senders(), post_office.preparation), b""
    while True:
        request = GetRawEmail(email_id=command.email_id, owner_id=owner_id, offset=len(content))
        part = await mails.part(request)
        content += base64.b64decode(part.content)
        if len(content) == part.size:
            return content


async def test_attempts_and_decisions_are_shown_in_their_order(post_office: PostOffice) -> None:
    reader = "reader@example.com"
    post_office.server.script(reader, Step("rcpt", "550 5.7.1 not from you"))
    later = datetime.now(UTC) + timedelta(hours=1)
    command = mail(send_at=later)
    await post_office.accept(command)
    assert reported(await post_office.read(command)) == [("accepted", None)]
    async with post_office.postgres.transaction() as connection:
        moved = RescheduleEmail(
            email_id=command.email_id, owner_id=OWNER, send_at=datetime.now(UTC), expires_at=later
        )
        await choosing.reschedule(connection, moved)
    wanted = EmailFilter(ids=[command.email_id])
    async with post_office.delivering():
        email = await post_office.reaches(command, "failed")
        assert reported(email) == [("accepted", None), ("rescheduled", None), ("attempt", reader)]
        assert email.timeline[-1].detail == "failed: 550 5.7.1 not from you"
        async with post_office.postgres.connection() as connection:
            again = RetryEmails(owner_id=OWNER, wanted=wanted)
            await choosing.decide(connection, again, choosing.RETRY, life_s=60)
        email = await post_office.reaches(command, "delivered")
    assert reported(email)[3:] == [("retried", reader), ("attempt", reader)]
    assert [event.at for event in email.timeline] == sorted(event.at for event in email.timeline)


async def test_expiry_and_cancellation_are_shown(post_office: PostOffice) -> None:
    late = mail(expires_at=datetime.now(UTC) + timedelta(seconds=0.2))
    given_up = mail(send_at=datetime.now(UTC) + timedelta(hours=1))
    await post_office.server.stop()
    await post_office.accept(late, given_up)
    async with post_office.postgres.connection() as connection:
        cancelling = CancelEmails(owner_id=OWNER, wanted=EmailFilter(ids=[given_up.email_id]))
        await choosing.decide(connection, cancelling, choosing.CANCEL, life_s=60)
    async with post_office.delivering(DispatcherTerms(pause_s=60)):
        email = await post_office.reaches(late, "expired")
    await post_office.server.start()
    assert reported(email)[-1] == ("expired", "reader@example.com")
    assert reported(await post_office.read(given_up))[-1] == ("cancelled", "reader@example.com")


async def test_a_timeline_has_a_bounded_number_of_events(post_office: PostOffice) -> None:
    command = mail()
    await post_office.accept(command)
    async with post_office.postgres.connection() as connection:
        await connection.execute(
            """
            INSERT INTO attempts (email_id, position, at, host, outcome, smtp_reply, tls)
            SELECT $1, 0, now() + number * interval '1 second', 'relay', 'deferred', number::text, false
            FROM generate_series(1, 600) AS number
            """,
            command.email_id,
        )
    events = (await post_office.read(command)).timeline
    assert len(events) == timeline.MOST_EVENTS
    assert (events[0].kind, events[-1].detail) == ("accepted", "deferred: 600")


async def test_a_mail_with_long_replies_fits_into_a_message(post_office: PostOffice) -> None:
    command = mail(to=["a@example.com", "b@example.com"])
    await post_office.accept(command)
    async with post_office.postgres.connection() as connection:
        await connection.execute(
            """
            INSERT INTO attempts (email_id, position, at, host, outcome, smtp_reply, tls)
            SELECT $1, number % 2, now(), 'relay', 'deferred', repeat(chr(1) || '郵', 2000), false
            FROM generate_series(1, 600) AS number
            """,
            command.email_id,
        )
    email = await post_office.read(command)
    assert len(email.model_dump_json().encode()) < 1 << 20
    assert [len(each.attempts) for each in email.recipients] == [MOST_ATTEMPTS // 2] * 2


async def test_the_newest_attempts_of_each_recipient_are_shown(post_office: PostOffice) -> None:
    command = mail(to=["a@example.com", "b@example.com"])
    await post_office.accept(command)
    async with post_office.postgres.connection() as connection:
        await connection.execute(
            """
            INSERT INTO attempts (email_id, position, at, host, outcome, smtp_reply, tls)
            SELECT $1, number % 2, now(), 'relay', 'deferred', number::text, false
            FROM generate_series(1, 2000) AS number
            """,
            command.email_id,
        )
        await connection.execute(
            "INSERT INTO email_events (email_id, kind, at)"
            " SELECT $1, 'retried', now() - number * interval '1 s' FROM generate_series(1, 2000) AS number",
            command.email_id,
        )
    email = await post_office.read(command)
    shown = [[attempt.smtp_reply for attempt in each.attempts] for each in email.recipients]
    assert [len(each) for each in shown] == [MOST_ATTEMPTS // 2] * 2
    assert [each[-1] for each in shown] == ["2000", "1999"]
    assert len(email.timeline) == timeline.MOST_EVENTS


async def test_the_message_handed_over_can_be_read_byte_by_byte(post_office: PostOffice) -> None:
    file = {"filename": "a.bin", "content": base64.b64encode(bytes(600_000)).decode()}
    command = mail(html="<p>Hi</p>", attachments=[file], message_id="<mine@example.com>")
    await post_office.accept(command)
    before = await raw(post_office, command)
    assert len(before) > 800_000
    async with post_office.delivering():
        await post_office.reaches(command, "delivered")
    (received,) = post_office.server.received
    assert received.content == before
    assert received.message["message-id"] == "<mine@example.com>"
    with pytest.raises(NotFound, match="There is no e-mail"):
        await raw(post_office, command, owner_id="somebody else")
    await removal.remove(post_office.postgres, Retention())
    with pytest.raises(NotFound, match="has no content"):
        await raw(post_office, command)
