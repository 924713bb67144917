"""The whole service as a process: ready, killed under load, stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest

from native.ports import free_ports
from support.batch_stack import Caller
from support.waiting import until

Spawn = Callable[[], Awaitable[tuple[asyncio.subprocess.Process, int]]]


@pytest.fixture
async def spawn(broker_url: str, dsn: str) -> AsyncIterator[Spawn]:
    """Starts `python -m batch_processor`; whatever still runs at the end is killed."""
    children: list[asyncio.subprocess.Process] = []

    async def start() -> tuple[asyncio.subprocess.Process, int]:
        port = free_ports(1)[0]
        environment = {
            **os.environ,
            "RABBITMQ_URL": broker_url,
            "POSTGRES_DSN": dsn,
            "BATCH_PROCESSOR_PORT": str(port),
            "LOG_LEVEL": "WARNING",
        }
        child = await asyncio.create_subprocess_exec(sys.executable, "-m", "batch_processor", env=environment)
        children.append(child)
        await until(lambda: _ready(port), what=lambda: "readiness")
        return child, port

    yield start
    for child in children:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def _ready(port: int) -> bool:
    with suppress(httpx.TransportError):
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
    return False


async def _stored(caller: Caller, batch_id: Any) -> int:
    row = "SELECT succeeded FROM batches WHERE id = $1"
    return int(await caller.database.fetchval(row, batch_id) or 0)


async def test_a_killed_service_loses_and_doubles_nothing(spawn: Spawn, caller: Caller) -> None:
    total, part = 20_000, 500
    child, _ = await spawn()
    creation = caller.creation("echo", None)
    id_ = creation.batch_id
    await caller.send(creation)
    for offset in range(0, total, part):
        await caller.send(caller.append(id_, offset, list(range(offset, offset + part))))
        if offset == 5_000:
            # In the middle of the intake ...
            child.kill()
            await child.wait()
    await caller.send(caller.seal(id_, total))
    child, _ = await spawn()
    # ... and in the middle of the work.
    await until(lambda: _stored(caller, id_))
    child.kill()
    await child.wait()
    await spawn()
    batch = await caller.reach(id_, timeout_s=40)
    assert (batch.status, batch.counts.succeeded, batch.counts.total) == ("completed", total, total)
    rows = await caller.database.fetch("SELECT position, result FROM results ORDER BY position")
    assert [(row["position"], row["result"]) for row in rows] == [(n, str(n)) for n in range(total)]
    assert len(await caller.finished_events()) == 1


async def test_a_stop_is_prompt_and_clean(spawn: Spawn, caller: Caller) -> None:
    child, port = await spawn()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/livez")).json() == {"status": "alive"}
        assert "tickwire_batch_items" in (await client.get("/metrics")).text
    batch_id = await caller.submit("echo", [1])
    await caller.reach(batch_id)
    child.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(child.wait(), 15) == 0
