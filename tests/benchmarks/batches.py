"""How many items a second a batch goes from the upload's first message to completed, beside Dramatiq.

Both run on the same kind of broker and machine, in one process each. Here every item ends with a durable
result in PostgreSQL (with fsync); Dramatiq keeps none.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiormq
import asyncpg
import httpx
import psutil

from chassis.broker import envelope
from chassis.broker.messaging import Messaging
from chassis.broker.topology import declare
from chassis.health import Health
from chassis.supervision import Tasks
from contracts.batches import AppendItems, CreateBatch, Item, SealBatch
from contracts.topology import BATCH_PROCESSOR, GATEWAY, TOPOLOGIES
from native import postgres, rabbitmq
from native.ports import free_ports

_PART = 500
_PUBLISHERS = 32
_DEADLINE_S = 120
_PEERS = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Result:
    """`items` in `seconds`; of them `intake_s` until all were stored; CPU of the service meanwhile."""

    items: int
    seconds: float
    intake_s: float
    cpu_s: float

    @property
    def per_second(self) -> float:
        """Items a second, from the first publish to completed."""
        return self.items / self.seconds

    def __str__(self) -> str:
        return (
            f"{self.per_second:,.0f} items/s ({self.items:,} items in {self.seconds:.2f} s, stored after "
            f"{self.intake_s:.2f} s, {1e6 * self.cpu_s / self.items:.1f} µs CPU an item)"
        )


async def echo_items_per_second(*, count: int = 200_000, warm_up: int = 20_000, rounds: int = 3) -> Result:
    """Start RabbitMQ, PostgreSQL and one batch-processor; the median of `rounds` batches of `count` items."""
    with tempfile.TemporaryDirectory(prefix="tickwire-bench-") as folder:
        root = Path(folder)
        async with (
            rabbitmq.start(root / "rabbitmq") as broker,
            _database(root / "postgres") as dsn,
            _publishing(broker.url) as messaging,
            _service(broker.url, dsn) as process,
        ):
            await _batch(messaging, dsn, process, warm_up)
            results = [await _batch(messaging, dsn, process, count) for _ in range(rounds)]
    return sorted(results, key=lambda result: result.seconds)[rounds // 2]


async def dramatiq_items_per_second(*, count: int = 20_000, threads: int = 8) -> float:
    """Items a second of a no-op actor in one worker process, from the first enqueue to the last item."""
    with tempfile.TemporaryDirectory(prefix="tickwire-bench-") as folder:
        done = Path(folder) / "done"
        async with AsyncExitStack() as opened:
            broker = await opened.enter_async_context(rabbitmq.start(Path(folder) / "rabbitmq"))
            environment = {
                **os.environ,
                "RABBITMQ_URL": broker.url,
                "NOOP_COUNT": str(count),
                "NOOP_DONE": str(done),
                "PYTHONPATH": str(_PEERS),
            }
            worker = ("-m", "dramatiq", "dramatiq_noop", "--processes", "1", "--threads", str(threads))
            await opened.enter_async_context(_python(*worker, environment=environment))
            # Its workers declare the queue as the last step of their start.
            await _until(lambda: _queue_exists(broker.url, "noop"))
            started = time.perf_counter()
            producer = str(_PEERS / "dramatiq_noop.py")
            async with _python(producer, str(count), environment=environment):
                await _until(done.exists)
            return count / (time.perf_counter() - started)


async def _batch(messaging: Messaging, dsn: str, process: psutil.Process, count: int) -> Result:
    batch_id, now = envelope.new_id(), datetime.now(UTC)
    parts = iter(range(0, count, _PART))

    async def publish() -> None:
        for offset in parts:
            items = [Item(payload={"n": n}) for n in range(offset, min(offset + _PART, count))]
            await messaging.publisher.publish(
                envelope.command(
                    AppendItems(batch_id=batch_id, owner_id="bench", offset=offset, items=items)
                ),
                timeout_s=30,
            )

    cpu_before, started = _cpu_s(process), time.perf_counter()
    creation = CreateBatch(batch_id=batch_id, owner_id="bench", operation="echo", accepted_at=now)
    await messaging.publisher.publish(envelope.command(creation))
    await asyncio.gather(*(publish() for _ in range(_PUBLISHERS)))
    seal = SealBatch(batch_id=batch_id, owner_id="bench", operation="echo", accepted_at=now, total=count)
    await messaging.publisher.publish(envelope.command(seal))
    connection = await asyncpg.connect(dsn)
    try:
        await _until(lambda: _has_left(connection, batch_id, "open"))
        stored = time.perf_counter()
        await _until(lambda: _has_left(connection, batch_id, "open", "validating", "queued", "running"))
        ended = time.perf_counter()
        await _verify(connection, batch_id, count)
    finally:
        await connection.close()
    return Result(count, ended - started, stored - started, _cpu_s(process) - cpu_before)


async def _has_left(connection: asyncpg.Connection[asyncpg.Record], batch_id: object, *statuses: str) -> bool:
    status = await connection.fetchval("SELECT status FROM batches WHERE id = $1", batch_id)
    return status is not None and status not in statuses


async def _verify(connection: asyncpg.Connection[asyncpg.Record], batch_id: object, count: int) -> None:
    statement = "SELECT count(*) FROM results WHERE batch_id = $1 AND status = 'succeeded'"
    assert await connection.fetchval(statement, batch_id) == count, "a result is missing"


async def _until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    end = time.perf_counter() + _DEADLINE_S
    while time.perf_counter() < end:
        value = condition()
        if value if isinstance(value, bool) else await value:
            return
        await asyncio.sleep(0.01)
    raise TimeoutError(f"not done within {_DEADLINE_S} s")


def _cpu_s(process: psutil.Process) -> float:
    """CPU of a process, and of those that work for it."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))


@asynccontextmanager
async def _database(folder: Path) -> AsyncIterator[str]:
    async with postgres.start(folder, fast=False) as server:
        try:
            yield server.dsn("batch_processor")
        finally:
            server.cluster.remove()


@asynccontextmanager
async def _publishing(url: str) -> AsyncIterator[Messaging]:
    messaging, tasks, health = Messaging(url, TOPOLOGIES[GATEWAY]), Tasks(), Health()

    async def declare_queues(_: object) -> None:
        await declare(await messaging.link.channel(confirms=False), TOPOLOGIES[BATCH_PROCESSOR])

    messaging.listen(declare_queues)
    messaging.start(tasks, health)
    try:
        await _until(lambda: not health.reasons())
        yield messaging
    finally:
        await tasks.close()
        await messaging.close()


@asynccontextmanager
async def _service(broker_url: str, dsn: str) -> AsyncIterator[psutil.Process]:
    port = free_ports(1)[0]
    environment = {
        **os.environ,
        "RABBITMQ_URL": broker_url,
        "POSTGRES_DSN": dsn,
        "BATCH_PROCESSOR_PORT": str(port),
        "LOG_LEVEL": "WARNING",
    }
    async with _python("-m", "batch_processor", environment=environment) as process:
        await _until(lambda: _is_ready(port))
        yield process


@asynccontextmanager
async def _python(*arguments: str, environment: dict[str, str]) -> AsyncIterator[psutil.Process]:
    log = asyncio.subprocess.DEVNULL if "dramatiq" in arguments else None
    child = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environment, stderr=log)
    try:
        yield psutil.Process(child.pid)
    finally:
        with suppress(ProcessLookupError):
            child.terminate()
        await asyncio.wait_for(child.wait(), 30)


async def _is_ready(port: int) -> bool:
    with suppress(httpx.TransportError):
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
    return False


async def _queue_exists(url: str, queue: str) -> bool:
    connection = await aiormq.connect(url)
    try:
        channel = await connection.channel()
        declared = await channel.queue_declare(queue, passive=True)
        return bool(declared.consumer_count)
    except aiormq.exceptions.ChannelNotFoundEntity:
        return False
    finally:
        await connection.close()


async def _main() -> None:
    echo = await echo_items_per_second()
    sys.stdout.write(f"echo      {echo}\n")
    peer = await dramatiq_items_per_second()
    sys.stdout.write(f"dramatiq  {peer:,.0f} items/s\nratio     {echo.per_second / peer:.1f}\n")


if __name__ == "__main__":
    asyncio.run(_main())
