"""batch-processor as separate processes, as in production."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import httpx

from native.ports import free_ports

_LOOK_EVERY_S = 0.1

Spawn = Callable[..., Awaitable[tuple[asyncio.subprocess.Process, int]]]


@asynccontextmanager
async def spawning(broker_url: str, dsn: str) -> AsyncIterator[Spawn]:
    """Yield a function that starts `python -m batch_processor` with further `variables` and returns its port.

    Whatever still runs at the end is killed.
    """
    children: list[asyncio.subprocess.Process] = []

    async def start(**variables: str) -> tuple[asyncio.subprocess.Process, int]:
        port = free_ports(1)[0]
        environment = {
            **os.environ,
            "RABBITMQ_URL": broker_url,
            "POSTGRES_DSN": dsn,
            "BATCH_PROCESSOR_PORT": str(port),
            "LOG_LEVEL": "WARNING",
            **variables,
        }
        child = await asyncio.create_subprocess_exec(sys.executable, "-m", "batch_processor", env=environment)
        children.append(child)
        await _ready(child, port)
        return child, port

    try:
        yield start
    finally:
        for child in children:
            if child.returncode is None:
                child.kill()
            await child.wait()


async def _ready(child: asyncio.subprocess.Process, port: int) -> None:
    """Wait until the process is ready; fail once it has ended.

    How long a start takes depends on what else the machine does: the time limit of the test bounds it.
    """
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        while not await _is_ready(client):
            assert child.returncode is None, f"the process ended with {child.returncode}"
            await asyncio.sleep(_LOOK_EVERY_S)


async def _is_ready(client: httpx.AsyncClient) -> bool:
    with suppress(httpx.TransportError):
        return (await client.get("/readyz")).status_code == 200
    return False
