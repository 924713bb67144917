"""Measure how many result rows a second the gateway streams, for a large batch and a fifth of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import httpx

from benchmarks.load import LoadResult
from benchmarks.programs import cpu_s
from chassis.broker.envelope import new_id
from native.stack import Stack
from support.waiting import until

# As a batch that has run leaves them.
_ROWS = """
INSERT INTO items (batch_id, position, custom_id, payload)
SELECT $1, n, 'item-' || n, '{"n":' || n || '}' FROM generate_series(0, $2::int - 1) AS n;
INSERT INTO results (batch_id, position, status, attempts, result)
SELECT $1, n, 'succeeded', 1, '{"n":' || n || '}' FROM generate_series(0, $2::int - 1) AS n;
INSERT INTO batches
    (id, owner_id, kind, operation, status, accepted_at, total, received, succeeded, chunk_count, revision,
    started_at, finished_at)
SELECT $1, owner_id, kind, operation, status, accepted_at, $2, $2, $2, 1, revision, started_at, finished_at
FROM batches WHERE id = $3;
"""


@dataclass(frozen=True)
class ResultRates:
    """Rows a second as NDJSON over HTTP: of the large batch, of the small one, and by COPY from a socket.

    The CPU time is that of the gateway and of the batch processor; COPY uses only the database.
    """

    large: LoadResult
    small: LoadResult
    copied: LoadResult


async def compare(stack: Stack, *, rows: int) -> ResultRates:
    """Store two batches that have run, without letting PostgreSQL count them, and read both."""
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    pids = [stack.pids[name] for name in ("gateway", "batch-processor")]
    connection = await asyncpg.connect(stack.postgres.dsn("batch_processor"), command_timeout=300)
    try:
        async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=300) as client:
            answer = await client.post("/v1/batches", json={"operation": "echo", "items": [1]})
            model = UUID(answer.raise_for_status().json()["id"])

            async def is_done() -> bool:
                return bool((await client.get(f"/v1/batches/{model}")).json()["status"] == "completed")

            await until(is_done, timeout_s=30)
            large = await _stream(client, await _store(connection, model, rows), rows, pids)
            small = await _stream(client, await _store(connection, model, rows // 5), rows // 5, pids)
            copied = await _copy(connection, rows)
    finally:
        await connection.close()
    return ResultRates(large, small, copied)


async def _store(connection: asyncpg.Connection[asyncpg.Record], model: UUID, count: int) -> UUID:
    """Store a batch of `count` results, otherwise like `model`; return its id."""
    batch_id = new_id()
    for statement in filter(str.strip, _ROWS.split(";")):
        arguments = (batch_id, count, model)[: 3 if "$3" in statement else 2]
        await connection.execute(statement, *arguments)
    return batch_id


async def _stream(client: httpx.AsyncClient, batch_id: UUID, count: int, pids: list[int]) -> LoadResult:
    lines, cpu_before, started = 0, cpu_s(pids), time.perf_counter()
    url = f"/v1/batches/{batch_id}/results"
    async with client.stream("GET", url, headers={"Accept": "application/x-ndjson"}) as answer:
        answer.raise_for_status()
        async for data in answer.aiter_raw():
            lines += data.count(b"\n")
    if lines != count:
        raise RuntimeError(f"{lines} of {count} rows came")
    seconds = time.perf_counter() - started
    return LoadResult(count / seconds, 1e6 * (cpu_s(pids) - cpu_before) / count)


async def _copy(connection: asyncpg.Connection[asyncpg.Record], count: int) -> LoadResult:
    async def swallow(_: bytes) -> None:
        pass

    started = time.perf_counter()
    query = f"SELECT position, status, result FROM results ORDER BY batch_id, position LIMIT {int(count)}"
    await connection.copy_from_query(query, output=swallow)
    return LoadResult(count / (time.perf_counter() - started))
