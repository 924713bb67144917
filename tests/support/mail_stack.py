"""The whole mail service beside a gateway's tie to the broker."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import aiormq
import asyncpg
import orjson
from aiormq.abc import AbstractChannel as Channel

from chassis.broker.envelope import command
from chassis.broker.messaging import Messaging
from chassis.deadlines import Deadline
from chassis.errors import RemoteFailure
from chassis.health import Health
from chassis.supervision import Tasks
from contracts.emails import CountEmails, Email, EmailCounts, GetEmail, SendEmail
from contracts.topology import EVENTS, GATEWAY, TOPOLOGIES
from emailer.resources import Resources
from emailer.settings import EmailSettings
from native.ports import free_ports
from support import databases
from support.bundled import messages_in
from support.doubles.post_office import OWNER
from support.waiting import until


class MailStack:
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

    async def stored_before(self, message_id: UUID) -> int:
        """Return how many commands were handled before this one."""
        return await self._ask(
            "SELECT count(*) FROM inbox"
            " WHERE handled_at < (SELECT handled_at FROM inbox WHERE message_id = $1)",
            message_id,
        )

    async def has_stored(self, count: int) -> bool:
        """Return whether there are so many mails."""
        return await self._ask("SELECT count(*) FROM emails") == count

    async def _ask(self, query: str, *values: object) -> int:
        connection = await asyncpg.connect(self.settings.postgres_dsn.get_secret_value())
        try:
            found: int = await connection.fetchval(query, *values)
        finally:
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


@asynccontextmanager
async def mail_stack(broker_url: str, dsn: str, smtp_port: int) -> AsyncIterator[MailStack]:
    """Yield the service, not yet started, on an empty database."""
    async with AsyncExitStack() as exits:
        gateway, tasks = Messaging(broker_url, TOPOLOGIES[GATEWAY]), Tasks()
        gateway.start(tasks, Health())
        exits.push_async_callback(gateway.close)
        exits.push_async_callback(tasks.close)
        assert await gateway.publisher.wait_connected(10)
        assert await gateway.link.wait_connected(10)
        await _empty(dsn)
        settings = EmailSettings.model_validate(
            {
                "rabbitmq_url": broker_url,
                "postgres_dsn": dsn,
                "smtp_port": smtp_port,
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
        yield MailStack(settings, gateway, channel, queue)


async def _empty(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await databases.empty(connection)
    await connection.close()
