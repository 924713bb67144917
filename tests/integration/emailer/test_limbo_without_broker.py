"""A broker that goes away at the boundary of any write leaves no mail in limbo and sends none twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiormq
import orjson
import pytest

from chassis.broker.envelope import command
from chassis.broker.messaging import Messaging
from chassis.health import Health
from chassis.supervision import Tasks
from contracts.emails import SendEmail
from contracts.topology import EVENTS, GATEWAY, TOPOLOGIES
from emailer.resources import Resources
from emailer.settings import EmailSettings
from support import killed_office, limbo
from support.bundled import messages_in
from support.doubles.post_office import PostOffice, mail
from support.gateway_stack import Gate
from support.waiting import until

# Before and after the commits of the mail, of the claim, of the outcome with its event, and of the end of the
# event in the outbox; two may fall together.
LEAST_BOUNDARIES = 7


class Cut:
    """Shuts the way to the broker at boundary `at`, counted from the last `begin`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._left: int | None = None
        self.happened = asyncio.Event()

    def begin(self, at: int) -> None:
        self._left = at
        self.happened.clear()

    async def boundary(self) -> None:
        if self._left is None:
            return
        self._left -= 1
        if self._left < 0:
            self._left = None
            self.happened.set()
            await self._gate.shut()

    def end(self) -> bool:
        """Cut nothing any more; return whether it was."""
        self._left = None
        return self.happened.is_set()


class Events:
    """The mails of which an event has arrived, in a queue of the test's own."""

    def __init__(self, channel: aiormq.abc.AbstractChannel, queue: str) -> None:
        self._channel = channel
        self._queue = queue
        self._seen: set[str] = set()

    async def have(self, message: SendEmail) -> bool:
        for found in messages_in(await self._channel.basic_get(self._queue, no_ack=True)):
            self._seen.add(orjson.loads(found.body)["email_id"])
        return str(message.email_id) in self._seen


@dataclass(frozen=True)
class Parts:
    """The service, whose only way to the broker is `gate`, and a gateway and events that are not cut off."""

    resources: Resources
    gate: Gate
    gateway: Messaging
    events: Events


@asynccontextmanager
async def service_behind_a_gate(post_office: PostOffice, broker_url: str) -> AsyncIterator[Parts]:
    broker = urlsplit(broker_url)
    gate = Gate(broker.hostname or "", broker.port or 0)
    await gate.open()
    settings = EmailSettings.model_validate(
        {
            "rabbitmq_url": broker_url.replace(f":{broker.port}", f":{gate.port}"),
            "postgres_dsn": post_office.dsn,
            "smtp_port": post_office.server.port,
            "smtp_tls": "off",
            "shutdown_grace_s": 5,
        }
    )
    resources, gateway, tasks = Resources(settings), Messaging(broker_url, TOPOLOGIES[GATEWAY]), Tasks()
    gateway.start(tasks, Health())
    assert await gateway.publisher.wait_connected(10)
    connection = await aiormq.connect(broker_url)
    channel = await connection.channel()
    queue = (await channel.queue_declare("", exclusive=True)).queue or ""
    await channel.queue_bind(queue, EVENTS, routing_key="email.*")
    try:
        async with resources.open():
            yield Parts(resources, gate, gateway, Events(channel, queue))
    finally:
        await connection.close()
        await gateway.close()
        await tasks.close()
        await gate.shut()


async def test_a_broker_that_goes_away_at_any_commit_leaves_no_mail_in_limbo(
    post_office: PostOffice, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service_behind_a_gate(post_office, broker_url) as parts:
        cut, events, health = Cut(parts.gate), parts.events, parts.resources.runtime.health

        async def is_hit_or_told(message: SendEmail) -> bool:
            if cut.happened.is_set():
                return True
            async with post_office.postgres.connection() as connection:
                is_kept = await connection.fetchval("SELECT EXISTS (SELECT FROM outbox)")
            return await events.have(message) and not is_kept

        at, is_over = 0, False
        await until(lambda: not health.reasons(), what=lambda: str(health.reasons()))
        killed_office.watch(cut.boundary, patch=monkeypatch.setattr)
        while not is_over:
            message = mail(to=[f"r{at}@example.com"])
            cut.begin(at)
            await parts.gateway.publisher.publish(command(message, tenant=message.owner_id))
            await until(lambda message=message: is_hit_or_told(message))
            is_over = not cut.end()
            if not is_over:
                await until(health.reasons, what=lambda: "the service to notice")
                await parts.gate.open()
            await until(lambda message=message: events.have(message))
            await post_office.reaches(message, "delivered")
            await until(lambda: not health.reasons(), what=lambda: str(health.reasons()))
            at += 1
        assert await limbo.strays(post_office) == []
        monkeypatch.undo()
    received = [taken.recipient for taken in post_office.server.received]
    assert sorted(received) == sorted(f"r{number}@example.com" for number in range(at))
    assert at - 1 >= LEAST_BOUNDARIES
