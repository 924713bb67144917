"""The process itself: how it starts, refuses to start, and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

from native.rabbitmq import RabbitMQ
from support.databases import FreshDatabase
from support.processes import running_module
from support.waiting import until


@asynccontextmanager
async def process(environment: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    own = {"PATH": os.environ["PATH"], **environment}
    async with running_module("stock_data", own, stderr=asyncio.subprocess.PIPE) as started:
        yield started


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def test_wrong_settings_are_named_and_end_the_process() -> None:
    async with process({"STOCK_DATA_REPLAY_SPEED": "fast"}) as started:
        _, errors = await asyncio.wait_for(started.communicate(), 30)
    assert started.returncode == 2
    assert b"RABBITMQ_URL: is not set" in errors
    assert b"STOCK_DATA_REPLAY_SPEED" in errors


async def test_the_service_gets_ready_with_its_own_rights_and_ends_when_asked_to(
    rabbitmq_server: RabbitMQ, fresh_database: FreshDatabase
) -> None:
    port = free_port()
    environment = {
        "RABBITMQ_URL": rabbitmq_server.url_of("stock-data"),
        "POSTGRES_DSN": await fresh_database(),
        "STOCK_DATA_PORT": str(port),
    }

    async with process(environment) as started, httpx.AsyncClient() as http:

        async def is_ready() -> bool:
            try:
                return (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        await until(is_ready, timeout_s=30)
        started.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(started.communicate(), 30)
    assert started.returncode == 0
    assert b"Traceback" not in errors
