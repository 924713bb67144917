"""batch-processor as separate processes, as in production."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import httpx

from native.ports import free_ports
from support.waiting import until

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
        await until(lambda: _ready(port), what=lambda: "readiness")
        return child, port

    try:
        yield start
    finally:
        for child in children:
            if child.returncode is None:
                child.kill()
            await child.wait()


async def _ready(port: int) -> bool:
    with suppress(httpx.TransportError):
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
    return False
