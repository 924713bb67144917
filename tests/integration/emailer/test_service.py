"""The whole service on RabbitMQ, PostgreSQL and an SMTP server: commands in, mails out."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import aiormq
import asyncpg
import httpx
import orjson
import pytest
from aiormq.abc import AbstractChannel as Channel

from chassis.broker.envelope import command, new_id
from chassis.broker.messaging import Messaging
from chassis.deadlines import Deadline
from chassis.errors import RemoteFailure, Unavailable
from chassis.health import Health
from chassis.ops import ops_app
from chassis.settings import load
from chassis.supervision import Tasks
from contracts.emails import CountEmails, Email, EmailCounts, GetEmail, SendEmail, SendPackedEmail
from contracts.topology import EVENTS, GATEWAY, TOPOLOGIES
from contracts.uploads import OpenedUpload, OpenParcel
from emailer.resources import Resources
from emailer.settings import EmailSettings
from native.ports import free_ports
from support.bundled import messages_in
from support.doubles.post_office import OWNER, mail
from support.doubles.smtp import SmtpServer, Step
from support.waiting import until

GUIDE = Path("docs/guides/email.md").read_text()
NEEDED = {"RABBITMQ_URL": "amqp://localhost/", "POSTGRES_DSN": "postgresql://localhost/emailer"}


class Stack:
    """The service, and a gateway's tie to the broker."""

    def __init__(self, settings: EmailSettings, gateway: Messaging, channel: Channel, queue: str) -> None:
        self.settings = settings
        self.resources = Resources(settings)
        self.gateway = gateway
        self.channel = channel
        self.queue = queue

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.resources.open():
            health = self.resources.runtime.health
            await until(lambda: health.reasons() == {}, what=lambda: str(health.reasons()))
            yield

    async def start_process(self) -> asyncio.subprocess.Process:
        """Return the service as a process of its own, with the same settings."""
        settings = self.settings
        environment = {
            "RABBITMQ_URL": settings.rabbitmq_url.get_secret_value(),
            "POSTGRES_DSN": settings.postgres_dsn.get_secret_value(),
            "EMAIL_PORT": str(free_ports(1)[0]),
            "EMAIL_SMTP_PORT": str(settings.smtp_port),
            "EMAIL_SMTP_TLS": "off",
            "EMAIL_LEASE_S": str(settings.lease_s),
            "EMAIL_WINDOW": str(settings.window),
        }
        return await asyncio.create_subprocess_exec(sys.executable, "-m", "emailer", env=environment)

    async def send(self, message: SendEmail, *, message_id: UUID | None = None) -> None:
        await self.gateway.publisher.publish(command(message, message_id=message_id, tenant=message.owner_id))

    async def get(self, message: SendEmail, *, owner_id: str = OWNER) -> Email:
        request = GetEmail(email_id=message.email_id, owner_id=owner_id)
        return await self.gateway.rpc.call(request, Email, Deadline.after(5))

    async def counts(self) -> dict[str, int]:
        return (
            await self.gateway.rpc.call(CountEmails(owner_id=OWNER), EmailCounts, Deadline.after(5))
        ).counts

    async def reaches(self, message: SendEmail, status: str) -> Email:
        async def reached() -> Email | None:
            try:
                found = await self.get(message)
            except RemoteFailure as error:
                if error.code != "not-found":
                    raise
                return None
            return found if found.status == status else None

        found: Email = await until(reached, what=lambda: status)
        return found

    async def kept_until(self) -> list[datetime | None]:
        """Return the time until when the content of each mail stays past its retention."""
        connection = await asyncpg.connect(self.settings.postgres_dsn.get_secret_value())
        found = [row["kept_until"] for row in await connection.fetch("SELECT kept_until FROM emails")]
        await connection.close()
        return found

    async def events(self, count: int) -> list[dict[str, Any]]:
        """Return the next `count` events, from a queue that nobody else takes from."""
        found: list[dict[str, Any]] = []

        async def come() -> bool:
            for message in messages_in(await self.channel.basic_get(self.queue, no_ack=True)):
                traceparent = str(message.headers.get("traceparent", ""))
                found.append(orjson.loads(message.body) | {"traceparent": traceparent})
            return len(found) == count

        await until(come, what=lambda: f"{count} events: {found}")
        return found


@pytest.fixture
async def stack(broker_url: str, migrated_database: str, server: SmtpServer) -> AsyncIterator[Stack]:
    async with AsyncExitStack() as exits:
        gateway, tasks = Messaging(broker_url, TOPOLOGIES[GATEWAY]), Tasks()
        gateway.start(tasks, Health())
        exits.push_async_callback(gateway.close)
        exits.push_async_callback(tasks.close)
        assert await gateway.publisher.wait_connected(10)
        assert await gateway.link.wait_connected(10)
        await _empty(migrated_database)
        settings = EmailSettings.model_validate(
            {
                "rabbitmq_url": broker_url,
                "postgres_dsn": migrated_database,
                "smtp_port": server.port,
                "smtp_tls": "off",
                "retry_scale": 0.0005,
                "route_pause_s": 0.05,
                "lease_s": 2,
                "window": 40,
                "shutdown_grace_s": 5,
            }
        )
        connection = await aiormq.connect(broker_url)
        exits.push_async_callback(connection.close)
        channel = await connection.channel()
        queue = (await channel.queue_declare("", exclusive=True)).queue or ""
        await channel.queue_bind(queue, EVENTS, routing_key="email.*")
        yield Stack(settings, gateway, channel, queue)


async def _empty(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("TRUNCATE emails, email_counts, email_count_changes, outbox, inbox CASCADE")
    await connection.close()


async def test_a_command_becomes_a_mail_and_the_answer_quotes_the_reply_of_the_relay(
    stack: Stack, server: SmtpServer
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


async def test_a_mail_whose_attachments_went_ahead_in_a_parcel_is_delivered_with_them(
    stack: Stack, server: SmtpServer
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
    stack: Stack, server: SmtpServer
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
    stack: Stack, server: SmtpServer
) -> None:
    messages = [mail(to=[f"reader-{number}@example.com"]) for number in range(100)]
    async with stack.running():
        await asyncio.gather(*(stack.send(message) for message in messages))
        events = await stack.events(100)
    assert {event["email_id"] for event in events} == {str(message.email_id) for message in messages}
    assert {event["status"] for event in events} == {"delivered"}
    assert len(server.received) == 100


async def test_the_same_command_again_has_no_effect(stack: Stack, server: SmtpServer) -> None:
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
    stack: Stack, server: SmtpServer
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


async def test_a_mail_to_nobody_is_failed(stack: Stack) -> None:
    message = mail(to=[])
    async with stack.running():
        await stack.send(message)
        email = await stack.reaches(message, "failed")
    assert email.recipients == []


async def test_a_wrong_address_fails_alone(stack: Stack, server: SmtpServer) -> None:
    message = mail(to=["reader@example.com", "nobody at all"])
    async with stack.running():
        await stack.send(message)
        email = await stack.reaches(message, "partially_delivered")
    assert [recipient.status for recipient in email.recipients] == ["delivered", "failed"]
    assert "must be an e-mail address" in email.recipients[1].attempts[0].smtp_reply
    assert server.received[0].message["to"] == "reader@example.com"


async def test_a_mail_that_is_asked_for_to_be_sent_again_keeps_its_content(stack: Stack) -> None:
    message = mail()
    async with stack.running():
        await stack.send(message)
        await stack.reaches(message, "delivered")
        assert await stack.kept_until() == [None]
        request = GetEmail(email_id=message.email_id, owner_id=OWNER, for_copy=True)
        assert (await stack.gateway.rpc.call(request, Email, Deadline.after(5))).content_available
        assert await stack.kept_until() != [None]


async def test_somebody_elses_mail_is_not_found(stack: Stack) -> None:
    message = mail()
    async with stack.running():
        await stack.send(message)
        await stack.reaches(message, "delivered")
        with pytest.raises(RemoteFailure) as caught:
            await stack.get(message, owner_id="somebody else")
    assert (caught.value.code, caught.value.status) == ("not-found", 404)


async def test_mails_accepted_while_the_relay_is_away_arrive_later(stack: Stack, server: SmtpServer) -> None:
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


async def test_a_restart_in_the_middle_loses_and_repeats_nothing(stack: Stack, server: SmtpServer) -> None:
    server.delay_s = 0.01
    messages = [mail(to=[f"reader-{number}@example.com"]) for number in range(60)]
    async with stack.running():
        await asyncio.gather(*(stack.send(message) for message in messages))
        await until(lambda: len(server.received) >= 5)
    with pytest.raises(Unavailable):
        await stack.get(messages[0])
    again = Stack(stack.settings, stack.gateway, stack.channel, stack.queue)
    async with again.running():
        for message in messages:
            await again.reaches(message, "delivered")
    assert sorted(received.recipient for received in server.received) == sorted(m.to[0] for m in messages)


async def test_a_killed_service_loses_nothing_and_repeats_only_the_mails_that_it_was_sending(
    stack: Stack, server: SmtpServer
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


async def test_an_event_continues_the_trace_of_the_request(stack: Stack, server: SmtpServer) -> None:
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
