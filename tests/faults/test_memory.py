"""Memory stays flat under many commands and behind slow readers, and tables are cleaned without a pause."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import httpx
import psutil
import pytest

from chassis import inbox
from chassis.broker.envelope import command
from chassis.broker.publisher import Publisher
from chassis.postgres import Postgres
from contracts.batches import CancelBatch
from faults.rig import Rig
from faults.selection import IS_LONG
from support.databases import FreshDatabase
from support.waiting import until

_MIB = 1 << 20
_COMMANDS = 200_000 if IS_LONG else 10_000
_WARM_UP = 5_000


def resident(pid: int) -> float:
    """Return the memory of a process in MiB."""
    return float(psutil.Process(pid).memory_info().rss) / _MIB


@asynccontextmanager
async def consumer_process(broker_url: str, dsn: str) -> AsyncIterator[int]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "RABBITMQ_URL": broker_url,
        "POSTGRES_DSN": dsn,
        "LOG_LEVEL": "WARNING",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "faults.counting", env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield process.pid
    finally:
        process.terminate()
        await process.wait()


async def send(publisher: Publisher, count: int) -> None:
    # Each has a few seconds for its confirmation, however busy the machine is.
    room = asyncio.Semaphore(64)

    async def one() -> None:
        async with room:
            await publisher.publish(command(CancelBatch(batch_id=uuid4(), owner_id="x" * 40)))

    for start in range(0, count, 1000):
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(1000, count - start)):
                tasks.create_task(one())


@pytest.mark.timeout(900)
async def test_many_commands_leak_no_memory(broker_url: str, fresh_database: FreshDatabase) -> None:
    dsn = await fresh_database()
    publisher = Publisher(broker_url)
    link = asyncio.create_task(publisher.link.run())
    async with consumer_process(broker_url, dsn) as pid:
        handled = _Handled(dsn)
        assert await publisher.wait_connected(20)
        await until(handled.is_ready, timeout_s=30)
        await _declared(publisher)
        await send(publisher, _WARM_UP)
        await until(lambda: handled.reached(_WARM_UP), timeout_s=120)
        before = resident(pid)
        await send(publisher, _COMMANDS)
        await until(lambda: handled.reached(_WARM_UP + _COMMANDS), timeout_s=600)
        after = resident(pid)
    link.cancel()
    await asyncio.gather(link, return_exceptions=True)
    await publisher.link.close()
    print(f"{_COMMANDS} commands: {before:.1f} MiB before, {after:.1f} MiB after")
    assert after - before < 16


async def _declared(publisher: Publisher) -> None:
    # The consumer declares its queue after its table exists: the first publish may find none.
    async def taken() -> bool:
        try:
            await publisher.publish(command(CancelBatch(batch_id=uuid4(), owner_id="first")))
        except Exception:
            return False
        return True

    await until(taken, timeout_s=20)


class _Handled:
    """The number of commands that the consumer remembers."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def is_ready(self) -> bool:
        connection = await asyncpg.connect(self._dsn)
        try:
            return bool(await connection.fetchval("SELECT to_regclass('inbox') IS NOT NULL"))
        finally:
            await connection.close()

    async def reached(self, count: int) -> bool:
        await asyncio.sleep(0.3)
        connection = await asyncpg.connect(self._dsn)
        try:
            return bool(await connection.fetchval("SELECT count(*) FROM inbox") >= count)
        finally:
            await connection.close()


@pytest.mark.timeout(180)
async def test_slow_readers_cost_the_gateway_no_memory(rig: Rig) -> None:
    pid = rig.stack.pids["gateway"]
    lines = b"".join(b'{"payload": "%d-%s"}\n' % (n, b"x" * 200) for n in range(20_000))
    async with rig.client() as client:
        headers = {"Content-Type": "application/x-ndjson"}

        async def upload() -> httpx.Response | None:
            answer = await client.post("/v1/batches?operation=echo", content=lines, headers=headers)
            # Right after the faults of an earlier test the operations or the broker may still be away.
            return answer if answer.status_code == 202 else None

        accepted = await until(upload, timeout_s=30)
        location = accepted.headers["location"]
        before = resident(pid)
        readers = [_slow_reader(rig, f"{location}/events") for _ in range(5)]

        async def completed() -> bool:
            return bool((await client.get(location)).json()["status"] == "completed")

        await until(completed, timeout_s=60)
        readers += [_slow_reader(rig, f"{location}/results?format=ndjson") for _ in range(10)]
        await _read_slowly(readers, seconds=10)
        after = resident(pid)
        started = time.monotonic()
        assert (await client.get("/v1/me")).status_code == 200
        assert time.monotonic() - started < 3
        for reader in readers:
            reader.close()
    print(f"15 readers of 1 byte/s: {before:.1f} MiB before, {after:.1f} MiB after")
    # Ten times the whole result would be over 50 MiB.
    assert after - before < 32


def _slow_reader(rig: Rig, path: str) -> socket.socket:
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", rig.stack.ports.gateway))
    request = f"GET {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {rig.stack.api_key}\r\n\r\n"
    reader.sendall(request.encode())
    reader.setblocking(False)
    return reader


async def _read_slowly(readers: list[socket.socket], *, seconds: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(seconds):
        for reader in readers:
            await asyncio.wait_for(loop.sock_recv(reader, 1), 10)
        await asyncio.sleep(1)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_million_old_rows_are_removed_while_others_are_handled(fresh_database: FreshDatabase) -> None:
    postgres = Postgres(await fresh_database("support.sample_service"))
    await postgres.open()
    try:
        async with postgres.connection() as connection:
            await connection.execute(
                "INSERT INTO inbox SELECT gen_random_uuid(), 'q', now() - interval '8 days'"
                " FROM generate_series(1, 1000000)",
                timeout=300,
            )
        cleaning = asyncio.create_task(inbox.clean(postgres))
        slowest = 0.0
        while not cleaning.done():
            started = time.monotonic()
            async with postgres.transaction() as connection:
                assert len(await inbox.claim(connection, "q", [uuid4() for _ in range(100)])) == 100
            slowest = max(slowest, time.monotonic() - started)
            await asyncio.sleep(0.05)
        assert await cleaning == 1_000_000
        print(f"slowest claim of 100 meanwhile: {slowest:.3f} s")
        assert slowest < 5
    finally:
        await postgres.close()
