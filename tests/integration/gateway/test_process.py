"""The gateway as a process of its own: its log, its stop, and its report of wrong settings."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import httpx
import orjson
import pytest
import websockets
from websockets.exceptions import ConnectionClosed

from gateway.identity import keys
from native.ports import Ports
from support.gateway_stack import House
from support.processes import running_module
from support.waiting import until

PEPPER = "a-pepper-that-nobody-may-see"
MAIL = {"to": ["ann@example.com"], "subject": "Hello", "text": "How are you?"}


@dataclass
class GatewayProcess:
    """A gateway process."""

    process: Process
    url: str
    ops_url: str
    key: str
    log: bytes = b""

    async def read_log(self) -> None:
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(65_536):
            self.log += data

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            return await self.process.wait()


@asynccontextmanager
async def started(environment: dict[str, str]) -> AsyncIterator[Process]:
    own = {**{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}, **environment}
    async with running_module("gateway", own, stdout=PIPE, stderr=PIPE) as process:
        yield process


@pytest.fixture
async def running(house: House) -> AsyncIterator[GatewayProcess]:
    ports, key = Ports.free(), str(keys.new_key())
    environment = {
        "RABBITMQ_URL": house.rabbitmq_url,
        "POSTGRES_DSN": await house.database(),
        "MEMCACHED_ADDRESS": house.memcached_address,
        "GATEWAY_PORT": str(ports.gateway),
        "GATEWAY_OPS_PORT": str(ports.gateway_ops),
        "GATEWAY_KEY_PEPPER": PEPPER,
        "GATEWAY_BOOTSTRAP_KEY": key,
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "DEBUG",
        "SHUTDOWN_GRACE_S": "3",
    }
    async with started(environment) as process:
        found = GatewayProcess(
            process, f"http://127.0.0.1:{ports.gateway}", f"http://127.0.0.1:{ports.gateway_ops}", key
        )
        reading = asyncio.create_task(found.read_log())
        await until(lambda: _is_ready(found), what=lambda: found.log.decode()[-2000:])
        yield found
        if process.returncode is None:
            process.kill()
        await reading


async def _is_ready(running: GatewayProcess) -> bool:
    try:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{running.ops_url}/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def test_no_secret_is_in_any_line_of_the_log_and_the_stop_is_clean(
    running: GatewayProcess, house: House
) -> None:
    headers = {"authorization": f"Bearer {running.key}"}
    async with httpx.AsyncClient(base_url=running.url, headers=headers) as client:
        member = (await client.post("/v1/api-keys", json={"name": "x", "scopes": ["quotes:read"]})).json()[
            "key"
        ]
        assert (await client.post("/v1/emails", json=MAIL)).status_code == 202
        for odd in (running.key, member):
            await client.get(f"/v1/stocks/{odd}")
            await client.get(f"/v1/users?cursor={odd}")
            await client.get(f"/v1/stocks?symbols={odd}")
            await client.post("/v1/rooms", json={"name": odd})
            await client.post("/v1/emails", json={**MAIL, "headers": {odd: odd}})
            await client.get("/v1/me", headers={"authorization": f"Bearer {odd}x", "x-request-id": "bad id"})
            await client.get("/v1/me", headers={"idempotency-key": odd, "traceparent": odd})
    socket_url = running.url.replace("http", "ws", 1) + "/v1/realtime"
    async with websockets.connect(socket_url, proxy=None) as socket:
        await socket.send(orjson.dumps({"id": 1, "connect": {"token": running.key}}).decode())
        await socket.recv()
        await socket.send(orjson.dumps({"id": 2, "subscribe": {"channel": "chat:lobby"}}).decode())
        await socket.recv()
        stopping = asyncio.create_task(running.stop())
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert await stopping == 0
    lines = [orjson.loads(line) for line in running.log.splitlines()]
    assert {line["service"] for line in lines} == {"gateway"}
    for secret in (running.key[-43:], member[-43:], PEPPER, house.rabbitmq_url, "How are you?"):
        assert secret.encode() not in running.log, [line for line in lines if secret in str(line)]
    unexpected = [line for line in lines if line["level"] == "error" or "exception" in line]
    assert not [line for line in unexpected if line.get("status") != 503], unexpected


async def test_wrong_settings_end_the_start_and_are_named_without_their_values() -> None:
    wrong = {
        "GATEWAY_BOOTSTRAP_KEY": "not-the-right-form",
        "GATEWAY_KEY_PEPPER": "tooshort",
        "GATEWAY_PORT": "eighty-eighty",
    }
    bare = {"RABBITMQ_URL": "amqp://127.0.0.1:1", "POSTGRES_DSN": "postgresql://127.0.0.1:1/x"}
    async with started({**bare, **wrong}) as process, asyncio.timeout(60):
        _, error = await process.communicate()
    assert process.returncode == 2
    assert b"Traceback" not in error
    for name, value in wrong.items():
        assert name.encode() in error
        assert value.encode() not in error


async def test_a_gateway_whose_start_has_died_ends_instead_of_staying_unready(house: House) -> None:
    dsn, ports = await house.database(""), Ports.free()
    connection = await asyncpg.connect(dsn)
    # A table of somebody else, where the first migration wants to make its own.
    await connection.execute("CREATE TABLE users (id int)")
    await connection.close()
    environment = {
        "RABBITMQ_URL": house.rabbitmq_url,
        "POSTGRES_DSN": dsn,
        "MEMCACHED_ADDRESS": house.memcached_address,
        "GATEWAY_PORT": str(ports.gateway),
        "GATEWAY_OPS_PORT": str(ports.gateway_ops),
        "GATEWAY_KEY_PEPPER": PEPPER,
        "LOG_FORMAT": "json",
    }
    async with started(environment) as process, asyncio.timeout(60):
        _, error = await process.communicate()
    assert process.returncode == 1
    last = error.splitlines()[-1]
    assert last.startswith(b"exiting to be restarted: startup died: DuplicateTableError: ")
