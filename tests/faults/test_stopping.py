"""All steps of a stop share one grace, however many of them have something to wait for."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from uuid import uuid4

import aiormq
import httpx
from yarl import URL

from chassis.broker.envelope import command
from contracts.batches import INTAKE, CancelBatch
from faults import proxy as proxies
from native.postgres import PostgresServer
from support.databases import FreshDatabase
from support.processes import running_module
from support.waiting import until

_GRACE_S = 8
# What the last steps may take beyond it, on a machine that has other things to do.
_CLOSING_S = 5


async def test_an_open_stream_and_an_absent_database_are_waited_for_at_the_same_time(
    broker_url: str, postgres_server: PostgresServer, fresh_database: FreshDatabase, unused_tcp_port: int
) -> None:
    dsn = URL(await fresh_database())
    listener = f"http://127.0.0.1:{unused_tcp_port}"
    async with proxies.running(postgres_server.ports.postgres) as proxy, httpx.AsyncClient() as client:
        environment = {
            **os.environ,
            "RABBITMQ_URL": broker_url,
            "POSTGRES_DSN": str(dsn.with_port(proxy.port)),
            "SHUTDOWN_GRACE_S": str(_GRACE_S),
            "PORT": str(unused_tcp_port),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        async with running_module("support.sample_service", environment) as service:
            await until(lambda: _is_ready(client, listener))
            proxy.black_hole()
            await _publish(broker_url)
            await until(lambda: _is_paused(client, listener))
            async with client.stream("GET", f"{listener}/stream") as answer:
                assert answer.status_code == 200
                started = time.monotonic()
                service.terminate()
                await asyncio.wait_for(service.wait(), 60)
        assert service.returncode == 0
        assert time.monotonic() - started < _GRACE_S + _CLOSING_S
    assert await _count(broker_url) == 1, "the message is in its queue again"


async def _is_ready(client: httpx.AsyncClient, listener: str) -> bool:
    try:
        return (await client.get(f"{listener}/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def _is_paused(client: httpx.AsyncClient, listener: str) -> bool:
    text = (await client.get(f"{listener}/metrics")).text
    return f'tickwire_consumer_paused{{queue="{INTAKE}"}} 1.0' in text


async def _publish(broker_url: str) -> None:
    connection = await aiormq.connect(broker_url)
    channel = await connection.channel()
    message = command(CancelBatch(batch_id=uuid4(), owner_id="ann"))
    await channel.basic_publish(
        message.body,
        exchange=message.exchange,
        routing_key=message.routing_key,
        properties=message.properties(),
    )
    await connection.close()


async def _count(broker_url: str) -> int | None:
    connection = await aiormq.connect(broker_url)
    try:
        return (await (await connection.channel()).queue_declare(INTAKE, passive=True)).message_count
    finally:
        await connection.close()
