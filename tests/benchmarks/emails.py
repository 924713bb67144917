"""How many mails a second go from an accepted command in RabbitMQ to a durable outcome in PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import httpx
import psutil

from chassis.broker import envelope
from chassis.broker.messaging import Messaging
from chassis.broker.topology import declare
from chassis.health import Health
from chassis.supervision import Tasks
from contracts.domains import CreateDomain
from contracts.emails import SendEmail
from contracts.topology import EMAIL, GATEWAY, TOPOLOGIES
from emailer.domains import keys, repository
from emailer.domains.keys import KeySafe
from native import postgres, rabbitmq
from native.ports import free_ports
from support.waiting import until

_BODY = "Hello,\n\nyour order has been executed at the price you asked for.\n\nRegards\nTickwire\n" * 2
_DOMAIN = "orders.example"
_SECRET = "a secret of the benchmark"
_PUBLISHERS = 200
_DEADLINE_S = 300


@dataclass(frozen=True)
class Result:
    """`mails` in `seconds`, all delivered and recorded; CPU seconds of the email processes meanwhile."""

    mails: int
    seconds: float
    processes: int
    cpu_s: float

    @property
    def per_second(self) -> float:
        """Mails a second, from the first publish to the last recorded outcome."""
        return self.mails / self.seconds

    def __str__(self) -> str:
        return (
            f"{self.per_second:,.0f} mails/s ({self.mails:,} mails in {self.seconds:.1f} s, "
            f"{self.processes} process(es), {1e3 * self.cpu_s / self.mails:.2f} ms CPU a mail)"
        )


async def mails_per_second(
    *,
    count: int = 10_000,
    processes: int = 1,
    warm_up: int = 500,
    environment: dict[str, str] | None = None,
    is_signed: bool = False,
) -> Result:
    """Run RabbitMQ, PostgreSQL (with fsync), `smtp-sink` and the service; send `count` mails through them.

    Those that are signed get two DKIM signatures, RSA-2048 and Ed25519.
    """
    with tempfile.TemporaryDirectory(prefix="tickwire-bench-") as folder:
        root = Path(folder)
        async with (
            rabbitmq.start(root / "rabbitmq") as broker,
            _database(root / "postgres") as dsn,
            sink() as smtp_port,
            _publishing(broker.url) as messaging,
            _services(
                _variables(broker.url, dsn, smtp_port) | (environment or {}), processes, root
            ) as running,
        ):
            if is_signed:
                await _add_domain(dsn)
            await _send(messaging, dsn, warm_up)
            cpu_before = _cpu_s(running)
            seconds = await _send(messaging, dsn, count)
            return Result(count, seconds, processes, _cpu_s(running) - cpu_before)


async def _send(messaging: Messaging, dsn: str, count: int) -> float:
    """Send `count` mails; gives the seconds from the first publish to the last outcome."""
    messages = [_command(number) for number in range(count)]
    connection = await asyncpg.connect(dsn)
    try:
        before = await _delivered(connection)
        started = time.perf_counter()
        await _publish(messaging, messages)
        while await _delivered(connection) < before + count:
            if time.perf_counter() - started > _DEADLINE_S:
                raise TimeoutError(f"not delivered within {_DEADLINE_S} s")
            await asyncio.sleep(0.05)
        return time.perf_counter() - started
    finally:
        await connection.close()


async def _publish(messaging: Messaging, messages: Sequence[envelope.Outgoing]) -> None:
    waiting = iter(messages)

    async def publish() -> None:
        for message in waiting:
            await messaging.publisher.publish(message, timeout_s=60)

    await asyncio.gather(*(publish() for _ in range(_PUBLISHERS)))


def _command(number: int) -> envelope.Outgoing:
    command = SendEmail(
        email_id=envelope.new_id(),
        owner_id="bench",
        to=[f"Reader {number} <reader-{number}@example.com>"],
        sender=f"Orders <orders@{_DOMAIN}>",
        subject=f"Your order {number}",
        text=_BODY,
        tags=["orders"],
        accepted_at=datetime.now(UTC),
    )
    return envelope.command(command, tenant="bench")


async def _add_domain(dsn: str) -> None:
    """Have the mails' domain verified, with keys that sign."""
    now, domain_id = datetime.now(UTC), envelope.new_id()
    wanted = CreateDomain(domain_id=domain_id, owner_id="bench", name=_DOMAIN)
    made = [keys.make(KeySafe(_SECRET), algorithm, at=now) for algorithm in ("rsa", "ed25519")]
    connection = await asyncpg.connect(dsn)
    try:
        await repository.insert(
            connection,
            wanted,
            token="t",
            return_path_host=f"bounces.{_DOMAIN}",
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


@asynccontextmanager
async def _database(folder: Path) -> AsyncIterator[str]:
    async with postgres.start(folder, fast=False) as server:
        try:
            yield server.dsn("emailer")
        finally:
            server.cluster.remove()


@asynccontextmanager
async def sink() -> AsyncIterator[int]:
    """Run `smtp-sink` for the length of the block; yield its port."""
    port = free_ports(1)[0]
    binary = shutil.which("smtp-sink", path="/usr/sbin:/usr/bin:/usr/libexec/postfix")
    assert binary, "smtp-sink is missing: it comes with postfix"
    user = ("-u", "nobody") if os.geteuid() == 0 else ()
    process = await asyncio.create_subprocess_exec(binary, *user, f"127.0.0.1:{port}", "1000")
    try:
        yield port
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def _publishing(url: str) -> AsyncIterator[Messaging]:
    messaging = Messaging(url, TOPOLOGIES[GATEWAY])
    tasks = Tasks()

    async def declare_queues(link: object) -> None:
        await declare(await messaging.link.channel(confirms=False), TOPOLOGIES[EMAIL])

    messaging.listen(declare_queues)
    messaging.start(tasks, Health())
    try:
        await messaging.publisher.wait_connected(20)
        await messaging.link.wait_connected(20)
        yield messaging
    finally:
        await tasks.close()
        await messaging.close()


@asynccontextmanager
async def _services(
    variables: dict[str, str], count: int, folder: Path
) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    ports = free_ports(count)
    running = []
    with (folder / "email.log").open("w") as log:
        for port in ports:
            running.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "emailer", env=variables | {"EMAIL_PORT": str(port)}, stderr=log
                )
            )
        try:
            await asyncio.gather(*(_ready(port) for port in ports))
            yield running
        finally:
            for process in running:
                process.terminate()
            await asyncio.gather(*(process.wait() for process in running))


async def _ready(port: int) -> None:
    async with httpx.AsyncClient() as client:

        async def is_ready() -> bool:
            try:
                return (await client.get(f"http://127.0.0.1:{port}/readyz")).is_success
            except httpx.TransportError:
                return False

        await until(is_ready, timeout_s=30, what=lambda: "the service is ready")


def _variables(rabbitmq_url: str, dsn: str, smtp_port: int) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "RABBITMQ_URL": rabbitmq_url,
        "POSTGRES_DSN": dsn,
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "WARNING",
        "EMAIL_SECRETS_KEY": _SECRET,
        "EMAIL_SMTP_HOST": "127.0.0.1",
        "EMAIL_SMTP_PORT": str(smtp_port),
    }


def _cpu_s(processes: Sequence[asyncio.subprocess.Process]) -> float:
    return sum(sum(psutil.Process(process.pid).cpu_times()[:2]) for process in processes)


if __name__ == "__main__":
    signed = "signed" in sys.argv[3:]
    found = mails_per_second(count=int(sys.argv[1]), processes=int(sys.argv[2]), is_signed=signed)
    print(asyncio.run(found))
