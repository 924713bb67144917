"""Measure how many lines a second an upload brings from HTTP to durable results, and the memory it takes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import asyncpg
import httpx
import psutil

from benchmarks.load import LoadResult
from benchmarks.programs import cpu_s
from native.stack import Stack
from support.waiting import until

_SERVICES = ("gateway", "batch-processor")
_DONE = "SELECT count(*) = 1 FROM batches WHERE id = $1 AND status = 'completed' AND succeeded = $2"
_DEADLINE_S = 300
_PART_LINES = 20_000
_LOOK_S = 0.05
_MIB = 1024 * 1024


@dataclass(frozen=True)
class UploadRate:
    """The rate of an upload, and the most memory (MiB) that each service had meanwhile."""

    load: LoadResult
    most_mib: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join(f"{name} {mib} MiB" for name, mib in self.most_mib.items())


async def compare(stack: Stack, *, lines: int) -> tuple[UploadRate, UploadRate]:
    """Return an upload of `lines` lines and one of a fifth of them, after one to warm up."""
    connection = await asyncpg.connect(stack.postgres.dsn("batch_processor"))
    headers = {"Authorization": f"Bearer {stack.api_key}", "Content-Type": "application/x-ndjson"}
    try:
        async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=_DEADLINE_S) as client:
            await _upload(stack, client, connection, max(1, lines // 50))
            small = await _upload(stack, client, connection, max(1, lines // 5))
            return await _upload(stack, client, connection, lines), small
    finally:
        await connection.close()


async def _upload(
    stack: Stack, client: httpx.AsyncClient, connection: asyncpg.Connection[asyncpg.Record], count: int
) -> UploadRate:
    parts = [
        b"".join(b'{"payload":{"n":%d}}\n' % n for n in range(start, min(start + _PART_LINES, count)))
        for start in range(0, count, _PART_LINES)
    ]

    async def body() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    most: Counter[str] = Counter()
    watching = asyncio.create_task(_watch(stack, most))
    pids = [stack.pids[name] for name in _SERVICES]
    try:
        cpu_before, started = cpu_s(pids), time.perf_counter()
        answer = await client.post("/v1/batches", params={"operation": "echo"}, content=body())
        batch_id = answer.raise_for_status().json()["id"]
        await until(lambda: connection.fetchval(_DONE, batch_id, count), timeout_s=_DEADLINE_S)
        seconds = time.perf_counter() - started
    finally:
        watching.cancel()
    load = LoadResult(count / seconds, 1e6 * (cpu_s(pids) - cpu_before) / count)
    return UploadRate(load, {name: most[name] // _MIB for name in _SERVICES})


async def _watch(stack: Stack, most: Counter[str]) -> None:
    """Note the most memory that each service has, until this is cancelled."""
    services = {name: psutil.Process(stack.pids[name]) for name in _SERVICES}
    while True:
        for name, process in services.items():
            most[name] = max(most[name], process.memory_info().rss)
        await asyncio.sleep(_LOOK_S)
