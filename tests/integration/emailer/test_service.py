"""The whole service on RabbitMQ, PostgreSQL and an SMTP server: commands in, mails out."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chassis.broker.envelope import command, new_id
from chassis.deadlines import Deadline
from chassis.errors import RemoteFailure, Unavailable
from chassis.ops import ops_app
from chassis.settings import load
from contracts.emails import Email, GetEmail, SendPackedEmail
from contracts.uploads import OpenedUpload, OpenParcel
from emailer.resources import Resources
from emailer.settings import EmailSettings
from support import ways
from support.doubles.post_office import OWNER, mail
from support.doubles.smtp import SmtpServer, Step
from support.mail_stack import MailStack
from support.waiting import until

GUIDE = Path("docs/guides/email.md").read_text()
NEEDED = {"RABBITMQ_URL": "amqp://localhost/", "POSTGRES_DSN": "postgresql://localhost/emailer"}


async def test_a_command_becomes_a_mail_and_the_answer_quotes_the_reply_of_the_relay(
    stack: MailStack, server: SmtpServer
) -> None:
    written = '{"order" : 9007199254740992, "ratio":0.50}'
    message = mail(tags=["welcome"], metadata={"order": 2**53, "ratio": 0.5}, metadata_text=written)
    async with stack.running():
        await stack.send(message)
        email = await stack.reaches(message, "delivered")
        assert await stack.counts() == {"delivered": 1}
    assert email.recipients[0].attempts[0].smtp_reply == "2.0.0 taken as 1"
    assert (email.tags, email.sender) == (["welcome"], "Tickwire <no-reply@tickwire.example>")
    assert (email.metadata, email.metadata_text) == ({"order": 2**53, "ratio": 0.5}, written)
    assert server.received[0].message["message-id"] == f"<{message.email_id}@tickwire.example>"


async def test_a_mail_enters_the_files_that_the_readme_names(stack: MailStack, server: SmtpServer) -> None:
    way = ways.passing("a mail", "emailer/", "chassis/broker/consumer.py")
    async with stack.running():
        with ways.followed(way) as entered:
            await stack.send(mail())
            [event] = await stack.events(1)
    assert event["status"] == "delivered"
    assert way - entered == set()
    # The dispatcher also measures, every few seconds, whatever waits.
    assert ways.unnamed(entered - {"emailer/sending/measuring.py"}, "a mail") == []


async def test_a_mail_whose_attachments_went_ahead_in_a_parcel_is_delivered_with_them(
    stack: MailStack, server: SmtpServer
) -> None:
    content, parcel_id = bytes(range(256)) * 1_000, new_id()

    async def bytes_of_parcel() -> AsyncIterator[bytes]:
        yield content

    question = OpenParcel(parcel_id=parcel_id, owner_id=OWNER, size_bytes=len(content), mail_count=1)
    part = {"parcel_id": parcel_id, "start": 256, "size": len(content) - 256}
    file = {"filename": "a.bin", "content_type": "application/octet-stream", "part": part}
    message = SendPackedEmail.model_validate(mail(attachments=[file]).model_dump())
    async with stack.running():
        opened = await stack.gateway.rpc.call(question, OpenedUpload, Deadline.after(5))
        await stack.resources.uploads.store(parcel_id, opened.token, bytes_of_parcel())
        await stack.send(message)
        # Again, under another message id: its parcel is gone with the first.
        await stack.send(message)
        await stack.reaches(message, "delivered")
        assert await stack.counts() == {"delivered": 1}
        async with stack.resources.runtime.postgres.connection() as connection:
            found = await connection.fetchval("SELECT count(*) FROM uploads WHERE id = $1", parcel_id)
    assert found == 0
    [received] = server.received
    [attached] = received.message.iter_attachments()
    assert (attached.get_filename(), attached.get_payload(decode=True)) == ("a.bin", content[256:])


async def test_the_rule_for_replies_that_the_guide_shows_takes_effect_from_the_settings(
    stack: MailStack, server: SmtpServer
) -> None:
    [rules] = re.findall("^EMAIL_REPLY_RULES=(.+)$", GUIDE, re.MULTILINE)
    settings = load(EmailSettings, NEEDED | {"EMAIL_REPLY_RULES": rules})
    stack.resources = Resources(stack.settings.model_copy(update={"reply_rules": settings.reply_rules}))
    server.script("reader@example.com", Step("rcpt", "550 5.1.1 Greylisted by us"))
    server.script("other@example.com", Step("rcpt", "550 5.1.1 no such user"))
    message, other = mail(), mail(to=["other@example.com"])
    async with stack.running():
        await asyncio.gather(stack.send(message), stack.send(other))
        email = await stack.reaches(message, "delivered")
        await stack.reaches(other, "failed")
    assert [attempt.outcome for attempt in email.recipients[0].attempts] == ["deferred", "delivered"]


async def test_a_hundred_mails_are_delivered_once_each_and_announced(
    stack: MailStack, server: SmtpServer
) -> None:
    messages = [mail(to=[f"reader-{number}@example.com"]) for number in range(100)]
    async with stack.running():
        await asyncio.gather(*(stack.send(message) for message in messages))
        events = await stack.events(100)
    assert {event["email_id"] for event in events} == {str(message.email_id) for message in messages}
    assert {event["status"] for event in events} == {"delivered"}
    assert len(server.received) == 100


async def test_the_same_command_again_has_no_effect(stack: MailStack, server: SmtpServer) -> None:
    message, last = mail(), mail(to=["last@example.com"])
    message_id = message.email_id
    async with stack.running():
        await stack.send(message, message_id=message_id)
        await stack.reaches(message, "delivered")
        await stack.send(message, message_id=message_id)
        # With another message id the inbox does not know it, but the mail is the same.
        await stack.send(message)
        await stack.send(last)
        await stack.reaches(last, "delivered")
        assert await stack.counts() == {"delivered": 2}
    assert [received.recipient for received in server.received] == ["reader@example.com", "last@example.com"]


async def test_a_mail_that_cannot_be_sent_is_failed_with_the_reason_and_not_lost(
    stack: MailStack, server: SmtpServer
) -> None:
    message = mail(subject="Hello\r\nBcc: all@example.com", text="a", metadata={"a": "\0"})
    async with stack.running():
        await stack.send(message)
        email = await stack.reaches(message, "failed")
        events = await stack.events(1)
    attempt = email.recipients[0].attempts[0]
    assert (attempt.host, attempt.outcome, attempt.smtp_code) == ("", "failed", None)
    assert attempt.smtp_reply == "not sent: subject: must be one line without control characters"
    assert events[0]["status"] == "failed"
    assert server.received == []
    assert email.metadata == {}


async def test_a_mail_to_nobody_is_failed(stack: MailStack) -> None:
    message = mail(to=[])
    async with stack.running():
        await stack.send(message)
        email = await stack.reaches(message, "failed")
    assert email.recipients == []


async def test_a_wrong_address_fails_alone(stack: MailStack, server: SmtpServer) -> None:
    message = mail(to=["reader@example.com", "nobody at all"])
    async with stack.running():
        await stack.send(message)
        email = await stack.reaches(message, "partially_delivered")
    assert [recipient.status for recipient in email.recipients] == ["delivered", "failed"]
    assert "must be an e-mail address" in email.recipients[1].attempts[0].smtp_reply
    assert server.received[0].message["to"] == "reader@example.com"


async def test_a_mail_that_is_resent_keeps_its_content(stack: MailStack) -> None:
    message = mail()
    async with stack.running():
        await stack.send(message)
        await stack.reaches(message, "delivered")
        assert await stack.kept_until() == [None]
        request = GetEmail(email_id=message.email_id, owner_id=OWNER, for_copy=True)
        assert (await stack.gateway.rpc.call(request, Email, Deadline.after(5))).content_available
        assert await stack.kept_until() != [None]


async def test_somebody_elses_mail_is_not_found(stack: MailStack) -> None:
    message = mail()
    async with stack.running():
        await stack.send(message)
        await stack.reaches(message, "delivered")
        with pytest.raises(RemoteFailure) as caught:
            await stack.get(message, owner_id="somebody else")
    assert (caught.value.code, caught.value.status) == ("not-found", 404)


async def test_mails_accepted_while_the_relay_is_away_arrive_later(
    stack: MailStack, server: SmtpServer
) -> None:
    await server.stop()
    message = mail()
    async with stack.running():
        await stack.send(message)
        await until(lambda: stack.resources.route.is_paused)
        # Not the service's fault: it is ready, and takes what comes.
        transport = httpx.ASGITransport(app=ops_app(stack.resources.runtime.health))
        async with httpx.AsyncClient(transport=transport, base_url="http://email") as client:
            assert (await client.get("/readyz")).status_code == 200
        await server.start()
        email = await stack.reaches(message, "delivered")
    assert len(email.recipients[0].attempts) == 1


async def test_a_restart_in_the_middle_loses_and_repeats_nothing(
    stack: MailStack, server: SmtpServer
) -> None:
    server.delay_s = 0.01
    messages = [mail(to=[f"reader-{number}@example.com"]) for number in range(60)]
    async with stack.running():
        await asyncio.gather(*(stack.send(message) for message in messages))
        await until(lambda: len(server.received) >= 5)
    with pytest.raises(Unavailable):
        await stack.get(messages[0])
    again = MailStack(stack.settings, stack.gateway, stack.channel, stack.queue)
    async with again.running():
        for message in messages:
            await again.reaches(message, "delivered")
    assert sorted(received.recipient for received in server.received) == sorted(m.to[0] for m in messages)


async def test_a_killed_service_loses_nothing_and_repeats_only_the_mails_that_it_was_sending(
    stack: MailStack, server: SmtpServer
) -> None:
    server.delay_s = 0.005
    messages = [mail(to=[f"reader-{number}@example.com"]) for number in range(200)]
    process = await stack.start_process()
    await asyncio.gather(*(stack.send(message) for message in messages))
    await until(lambda: len(server.received) >= 20)
    process.kill()
    await process.wait()
    async with stack.running():
        emails = [await stack.reaches(message, "delivered") for message in messages]
    arrived = Counter(received.message["message-id"] for received in server.received)
    assert set(arrived) == {f"<{message.email_id}@tickwire.example>" for message in messages}
    message_context = [email for email in emails if email.recipients[0].attempts[0].outcome == "ambiguous"]
    assert len(message_context) <= stack.settings.window
    repeated = {identity for identity, count in arrived.items() if count > 1}
    assert repeated <= {f"<{email.id}@tickwire.example>" for email in message_context}


async def test_an_event_continues_the_trace_of_the_request(stack: MailStack, server: SmtpServer) -> None:
    server.script("reader@example.com", Step("rcpt", "550 5.7.1 not from you"))
    message = mail()
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    outgoing = command(message)
    headers = {**outgoing.headers, "traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    async with stack.running():
        await stack.gateway.publisher.publish(_with_headers(outgoing, headers))
        events = await stack.events(1)
    assert events[0]["status"] == "failed"
    assert events[0]["traceparent"].split("-")[1] == trace_id


def _with_headers(outgoing: Any, headers: dict[str, Any]) -> Any:
    return type(outgoing)(
        outgoing.exchange,
        outgoing.routing_key,
        outgoing.body,
        outgoing.message_type,
        outgoing.message_id,
        headers,
    )
