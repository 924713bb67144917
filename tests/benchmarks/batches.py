"""Measure how many items a second a batch processes from its first message to completion, beside peers.

All run on the same broker, one after the other. Here every item ends with a durable result in PostgreSQL
(with fsync); the peers keep none.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg

from benchmarks.load import LoadResult
from benchmarks.programs import answering, cpu_s, python
from benchmarks.servers import broker, database, publishing
from chassis.broker import envelope
from chassis.broker.messaging import Messaging
from contracts.batches import AppendItems, CreateBatch, Item, SealBatch
from contracts.topology import BATCH_PROCESSOR
from native.ports import HOST, free_port
from support.waiting import until

_PART = 500
_PUBLISHERS = 32
_DEADLINE_S = 120


@dataclass(frozen=True)
class BatchRate:
    """`items` in `seconds`; of them `intake_s` until all were stored; CPU of the service meanwhile."""

    items: int
    seconds: float
    intake_s: float
    cpu_s: float

    @property
    def load(self) -> LoadResult:
        """Items a second, from the first publish to completed, and the CPU of the service for each."""
        return LoadResult(self.items / self.seconds, 1e6 * self.cpu_s / self.items)

    def __str__(self) -> str:
        return (
            f"{self.load.per_second:,.0f} items/s ({self.items:,} items in {self.seconds:.2f} s, stored "
            f"after {self.intake_s:.2f} s, {self.load.cpu_us:.1f} µs CPU an item)"
        )


async def echo_items_per_second(
    broker_url: str, *, count: int = 200_000, warm_up: int = 20_000, rounds: int = 3
) -> BatchRate:
    """Start PostgreSQL and one batch-processor; return the median of `rounds` batches of `count` items."""
    async with (
        database("batch_processor") as dsn,
        publishing(broker_url, to=BATCH_PROCESSOR) as messaging,
        _service(broker_url, dsn) as pid,
    ):
        await _batch(messaging, dsn, pid, warm_up)
        results = [await _batch(messaging, dsn, pid, count) for _ in range(rounds)]
    return sorted(results, key=lambda result: result.seconds)[rounds // 2]


async def _batch(messaging: Messaging, dsn: str, pid: int, count: int) -> BatchRate:
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

    cpu_before, started = cpu_s([pid]), time.perf_counter()
    creation = CreateBatch(batch_id=batch_id, owner_id="bench", operation="echo", accepted_at=now)
    await messaging.publisher.publish(envelope.command(creation))
    await asyncio.gather(*(publish() for _ in range(_PUBLISHERS)))
    seal = SealBatch(batch_id=batch_id, owner_id="bench", operation="echo", accepted_at=now, total=count)
    await messaging.publisher.publish(envelope.command(seal))
    connection = await asyncpg.connect(dsn)
    try:
        await until(lambda: _has_left(connection, batch_id, "open"), timeout_s=_DEADLINE_S)
        stored = time.perf_counter()
        unfinished = ("open", "validating", "queued", "running")
        await until(lambda: _has_left(connection, batch_id, *unfinished), timeout_s=_DEADLINE_S)
        ended = time.perf_counter()
        await _verify(connection, batch_id, count)
    finally:
        await connection.close()
    return BatchRate(count, ended - started, stored - started, cpu_s([pid]) - cpu_before)


async def _has_left(connection: asyncpg.Connection[asyncpg.Record], batch_id: object, *statuses: str) -> bool:
    status = await connection.fetchval("SELECT status FROM batches WHERE id = $1", batch_id)
    return status is not None and status not in statuses


async def _verify(connection: asyncpg.Connection[asyncpg.Record], batch_id: object, count: int) -> None:
    statement = "SELECT count(*) FROM results WHERE batch_id = $1 AND status = 'succeeded'"
    assert await connection.fetchval(statement, batch_id) == count, "a result is missing"


@asynccontextmanager
async def _service(broker_url: str, dsn: str) -> AsyncIterator[int]:
    port = free_port()
    variables = {
        "RABBITMQ_URL": broker_url,
        "POSTGRES_DSN": dsn,
        "BATCH_PROCESSOR_PORT": str(port),
        "LOG_LEVEL": "WARNING",
    }
    async with python("-m", "batch_processor", **variables) as pid:
        await answering(f"http://{HOST}:{port}/readyz")
        yield pid


async def _main() -> None:
    async with broker() as url:
        sys.stdout.write(f"echo      {await echo_items_per_second(url)}\n")


if __name__ == "__main__":
    asyncio.run(_main())
