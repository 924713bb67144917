"""Measure how many mails a second go from an accepted command to a durable outcome in PostgreSQL."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from benchmarks.letters import PLAIN, SIGNED, BenchLetter
from benchmarks.load import LoadResult
from benchmarks.programs import answering, cpu_s, python, sink
from benchmarks.servers import broker, database, publishing
from chassis import queries
from chassis.broker import envelope
from chassis.broker.messaging import Messaging
from contracts.domains import CreateDomain
from contracts.emails import SendEmail
from contracts.topology import EMAIL
from emailer.domains import keys, repository
from emailer.domains.keys import KeySafe
from native.ports import HOST, free_ports

_SECRET = "a secret of the benchmark"
_STEP = 500
_DEADLINE_S = 300


@dataclass(frozen=True)
class EmailProcesses:
    """Email processes that run, and the way to give them commands and to see what becomes of them."""

    messaging: Messaging
    dsn: str
    pids: Sequence[int]

    async def send(self, count: int, *, domain: str = PLAIN) -> LoadResult:
        """Publish `count` commands and return how fast their mails are delivered and recorded.

        That is from the first publish to the last outcome. CPU is that of the email processes.
        """
        messages = [_command(number, domain) for number in range(count)]
        connection = await asyncpg.connect(self.dsn)
        try:
            expected = await _delivered(connection) + count
            cpu_before, started = cpu_s(self.pids), time.perf_counter()
            # As the outbox of the gateway brings accepted mails to the broker.
            for start in range(0, count, _STEP):
                answers = await self.messaging.publisher.publish_together(messages[start : start + _STEP])
                if errors := [error for error in answers if error is not None]:
                    raise errors[0]
            while await _delivered(connection) < expected:
                if time.perf_counter() - started > _DEADLINE_S:
                    raise TimeoutError(f"not delivered within {_DEADLINE_S} s")
                await asyncio.sleep(0.05)
            seconds = time.perf_counter() - started
        finally:
            await connection.close()
        return LoadResult(count / seconds, 1e6 * (cpu_s(self.pids) - cpu_before) / count)


@asynccontextmanager
async def service(
    broker_url: str,
    dsn: str,
    *,
    smtp_port: int,
    processes: int = 1,
    settings: Mapping[str, str] = {},
) -> AsyncIterator[EmailProcesses]:
    """Run processes of the email service for the length of the block."""
    variables = {
        "RABBITMQ_URL": broker_url,
        "POSTGRES_DSN": dsn,
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "WARNING",
        "EMAIL_SECRETS_KEY": _SECRET,
        "EMAIL_SMTP_HOST": HOST,
        "EMAIL_SMTP_PORT": str(smtp_port),
        **settings,
    }
    async with AsyncExitStack() as running, publishing(broker_url, to=EMAIL) as messaging:
        ports = free_ports(processes)
        pids = [
            await running.enter_async_context(python("-m", "emailer", **variables, EMAIL_PORT=str(port)))
            for port in ports
        ]
        await asyncio.gather(*(answering(f"http://{HOST}:{port}/readyz") for port in ports))
        yield EmailProcesses(messaging, dsn, pids)


def _command(number: int, domain: str) -> envelope.Outgoing:
    letter = BenchLetter.of(number, domain=domain)
    command = SendEmail(
        email_id=envelope.new_id(),
        owner_id="bench",
        to=[letter.to],
        sender=letter.sender,
        subject=letter.subject,
        text=letter.text,
        tags=["orders"],
        accepted_at=datetime.now(UTC),
    )
    return envelope.command(command, tenant="bench")


async def add_domain(dsn: str) -> None:
    """Make the domain `SIGNED` verified, with keys for two DKIM signatures: RSA-2048 and Ed25519."""
    now, domain_id = datetime.now(UTC), envelope.new_id()
    wanted = CreateDomain(domain_id=domain_id, owner_id="bench", name=SIGNED)
    made = [keys.make(KeySafe(_SECRET), algorithm, at=now) for algorithm in ("rsa", "ed25519")]
    connection = await asyncpg.connect(dsn)
    try:
        await repository.insert(
            connection,
            wanted,
            token="t",
            return_path_host=f"bounces.{SIGNED}",
            at=now,
            check_at=now + timedelta(days=1),
            keys=made,
        )
        await connection.execute("UPDATE domains SET status = 'verified'")
        await connection.execute("UPDATE domain_keys SET state = 'active'")
    finally:
        await connection.close()


async def _delivered(connection: asyncpg.Connection[asyncpg.Record]) -> int:
    count: int = await connection.fetchval("SELECT count(*) FROM attempts WHERE outcome = 'delivered'")
    return count


async def _main(count: int, processes: int, domain: str) -> LoadResult:
    async with (
        broker() as broker_url,
        database("emailer") as dsn,
        sink() as smtp_port,
        service(broker_url, dsn, smtp_port=smtp_port, processes=processes) as running,
    ):
        await add_domain(dsn)
        await running.send(500, domain=domain)
        return await running.send(count, domain=domain)


if __name__ == "__main__":
    queries.load("emailer")
    name = SIGNED if "signed" in sys.argv[3:] else PLAIN
    found = asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2]), name))
    print(f"{found.per_second:,.0f} mails/s, {found.cpu_us:,.0f} µs of CPU each")
