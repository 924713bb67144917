"""Gateway and email are killed while attachments that waited are sent: no mail is lost, none comes twice."""

from __future__ import annotations

import asyncio
import base64
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx
import pytest

from gateway.identity import keys
from native.ports import Ports
from support.doubles.smtp import SmtpServer
from support.gateway_stack import House
from support.processes import running_module
from support.waiting import until

RECIPIENTS = [f"r{number}@example.com" for number in range(6)]
# A few parts each, so that the sending takes a while.
CONTENT = bytes(range(256)) * 2_500
WITHIN_S = 60


@pytest.fixture
async def relay() -> AsyncIterator[SmtpServer]:
    server = SmtpServer()
    await server.start()
    yield server
    await server.stop()


class GatewayAndEmail:
    """A gateway and an email service as processes of their own, each on its database."""

    def __init__(self, environment: dict[str, str], dsns: dict[str, str], ports: Ports, key: str) -> None:
        own = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        self._environment = {**own, **environment}
        self._dsns = dsns
        self._ports = ports
        self._headers = {"authorization": f"Bearer {key}"}

    @asynccontextmanager
    async def running(self, module: str) -> AsyncIterator[None]:
        """Run a service until the block ends; then it is killed."""
        port = self._ports.gateway_ops if module == "gateway" else self._ports.email
        environment = {**self._environment, "POSTGRES_DSN": self._dsns[module]}
        async with running_module(module, environment):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

                async def is_ready() -> bool:
                    try:
                        return (await client.get("/readyz")).status_code == 200
                    except httpx.TransportError:
                        return False

                await until(is_ready, timeout_s=WITHIN_S)
            yield

    async def accept(self) -> None:
        """Let the gateway accept a mail with an attachment to each recipient."""
        file = {"filename": "a.bin", "content": base64.b64encode(CONTENT).decode()}
        mail = {"text": "hi", "attachments": [file]}
        url = f"http://127.0.0.1:{self._ports.gateway}"
        async with httpx.AsyncClient(base_url=url, headers=self._headers, timeout=30) as api:
            answers = await asyncio.gather(
                *(api.post("/v1/emails", json={**mail, "to": [to]}) for to in RECIPIENTS)
            )
        assert [answer.status_code for answer in answers] == [202] * len(RECIPIENTS)

    async def count(self, module: str, query: str) -> int:
        connection = await asyncpg.connect(self._dsns[module])
        try:
            return int(await connection.fetchval(query))
        finally:
            await connection.close()

    async def waiting(self) -> int:
        return await self.count("gateway", "SELECT count(*) FROM waiting_parcels")

    async def is_sending(self) -> bool:
        parts = await self.count("emailer", "SELECT count(*) FROM upload_parts")
        return parts > 0 and await self.waiting() > 0

    async def let_go(self) -> None:
        """Make all parcels due, as if the leases of those that were killed had ended."""
        await self.count("gateway", "WITH due AS (UPDATE waiting_parcels SET due_at = now()) SELECT 0")


@pytest.fixture
async def pair(house: House, relay: SmtpServer) -> GatewayAndEmail:
    await house.purge("email.send", "gateway.events")
    ports, key = Ports.free(), str(keys.new_key())
    dsns = {package: await house.database(package) for package in ("gateway", "emailer")}
    environment = {
        "RABBITMQ_URL": house.rabbitmq_url,
        "MEMCACHED_ADDRESS": house.memcached_address,
        "GATEWAY_PORT": str(ports.gateway),
        "GATEWAY_OPS_PORT": str(ports.gateway_ops),
        "GATEWAY_KEY_PEPPER": "a-pepper-of-this-test",
        "GATEWAY_BOOTSTRAP_KEY": key,
        "GATEWAY_EMAIL_URL": f"http://127.0.0.1:{ports.email}",
        "EMAIL_PORT": str(ports.email),
        "EMAIL_SMTP_PORT": str(relay.port),
        "EMAIL_SMTP_TLS": "off",
        "LOG_LEVEL": "WARNING",
    }
    return GatewayAndEmail(environment, dsns, ports, key)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_mails_whose_attachments_wait_are_sent_once_when_gateway_and_email_are_killed(
    pair: GatewayAndEmail, relay: SmtpServer
) -> None:
    async with pair.running("gateway"):
        await pair.accept()
        assert await pair.waiting() == len(RECIPIENTS)
        async with pair.running("emailer"):
            await until(pair.is_sending, timeout_s=WITHIN_S)
    before = await pair.waiting()
    assert before > 0

    async def goes_on() -> bool:
        return await pair.waiting() < before

    async def all_are_there() -> bool:
        return len(relay.received) >= len(RECIPIENTS) and await pair.waiting() == 0

    async with pair.running("emailer"):
        await pair.let_go()
        async with pair.running("gateway"):
            await until(goes_on, timeout_s=WITHIN_S)
        await pair.let_go()
        async with pair.running("gateway"):
            await until(all_are_there, timeout_s=WITHIN_S)
    arrived = Counter(received.recipient for received in relay.received)
    assert arrived == dict.fromkeys(RECIPIENTS, 1)
    for received in relay.received:
        [part] = received.message.iter_attachments()
        assert part.get_content() == CONTENT
