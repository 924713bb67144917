"""Every fault that is inflicted on the running product, each from its beginning to its end."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiormq
import asyncpg
from pamqp.commands import Basic

from contracts.topology import SERVICES, TOPOLOGIES
from faults.rig import Rig
from native.rabbitmq import VHOST
from support.waiting import until

# Of each queue a type that is known there: what is unknown waits before it is parked.
_TYPES = {"email.send": "email.send.v1", "batch-processor.intake": "batch.cancel.v1"}
_RUNGS = [rung.queue for topology in TOPOLOGIES.values() for rung in topology.rungs]

Harm = Callable[[Rig, random.Random], Awaitable[None]]


def stopped_broker(seconds: float) -> Harm:
    """Return a fault: the broker's application stops and starts again; its data stays."""

    async def strike(rig: Rig, _: random.Random) -> None:
        await rig.stack.rabbitmq.control("stop_app")
        await asyncio.sleep(seconds)
        await rig.stack.rabbitmq.control("start_app")

    return strike


async def close_all_connections(rig: Rig, _: random.Random) -> None:
    """Close every connection to the broker, as an operator does."""
    await rig.stack.rabbitmq.control("close_all_connections", "--", "closed by a test")


def alarmed_broker(seconds: float) -> Harm:
    """Return a fault: the broker's memory alarm blocks everybody who publishes."""

    async def strike(rig: Rig, _: random.Random) -> None:
        control = rig.stack.rabbitmq.control
        await control("set_vm_memory_high_watermark", "absolute", "1MB")
        await asyncio.sleep(seconds)
        await control("set_vm_memory_high_watermark", "absolute", "1GB")

    return strike


async def restart_postgres(rig: Rig, _: random.Random) -> None:
    """Restart the database server."""
    await rig.stack.restart("postgres")


def black_hole(server: str, seconds: float) -> Harm:
    """Return a fault: all bytes to `server` are swallowed, and no connection is closed."""

    async def strike(rig: Rig, _: random.Random) -> None:
        rig.proxies[server].black_hole()
        await asyncio.sleep(seconds)
        await rig.proxies[server].recover()

    return strike


def half_open(server: str) -> Harm:
    """Return a fault: every open connection to `server` is dead without a close; new ones work."""

    async def strike(rig: Rig, _: random.Random) -> None:
        rig.proxies[server].half_open()

    return strike


def refused(server: str, seconds: float) -> Harm:
    """Return a fault: connections to `server` are cut and refused."""

    async def strike(rig: Rig, _: random.Random) -> None:
        await rig.proxies[server].refuse()
        await asyncio.sleep(seconds)
        await rig.proxies[server].recover()

    return strike


def slow(server: str, seconds: float, *, latency_s: float) -> Harm:
    """Return a fault: each direction to and from `server` has more latency."""

    async def strike(rig: Rig, _: random.Random) -> None:
        rig.proxies[server].set(latency_s=latency_s)
        await asyncio.sleep(seconds)
        await rig.proxies[server].recover()

    return strike


def flapping(server: str, seconds: float) -> Harm:
    """Return a fault: `server` is reachable and unreachable for a second each, in turn."""

    async def strike(rig: Rig, _: random.Random) -> None:
        async with rig.proxies[server].flapping(up_s=1, down_s=1):
            await asyncio.sleep(seconds)

    return strike


def stopped(name: str, seconds: float) -> Harm:
    """Return a fault: a server or service is stopped in good order and started again."""

    async def strike(rig: Rig, _: random.Random) -> None:
        await rig.stack.stop(name)
        try:
            await asyncio.sleep(seconds)
        finally:
            await rig.stack.start(name)

    return strike


def frozen(name: str, seconds: float) -> Harm:
    """Return a fault: a process hangs (SIGSTOP)."""

    async def strike(rig: Rig, _: random.Random) -> None:
        async with freezing(rig, name):
            await asyncio.sleep(seconds)

    return strike


@asynccontextmanager
async def freezing(rig: Rig, name: str) -> AsyncIterator[None]:
    """Stop a process (SIGSTOP) for the length of the block."""
    rig.stack.kill(name, signal.SIGSTOP)
    try:
        yield
    finally:
        rig.stack.kill(name, signal.SIGCONT)


@asynccontextmanager
async def throttling(rig: Rig, name: str, *, run_s: float = 0.1, stop_s: float = 0.3) -> AsyncIterator[None]:
    """Stop a process for parts of each second, for the length of the block."""

    async def throttle() -> None:
        while True:
            async with freezing(rig, name):
                await asyncio.sleep(stop_s)
            await asyncio.sleep(run_s)

    task = asyncio.create_task(throttle())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def killed_at_random(times: int) -> Harm:
    """Return a fault: kill -9 of a random service, `times` times, of each service at least once."""

    async def strike(rig: Rig, rng: random.Random) -> None:
        victims = [*SERVICES, *(rng.choice(SERVICES) for _ in range(times - len(SERVICES)))]
        rng.shuffle(victims)
        for victim in victims:
            # Killed while it starts up again, it would only wait longer for its next start.
            await rig.stack.ready(victim)
            rig.stack.kill(victim)
            await asyncio.sleep(rng.uniform(0.5, 2))

    return strike


def killed_times(name: str, times: int) -> Harm:
    """Return a fault: kill -9 of one service, again when it is back."""

    async def strike(rig: Rig, rng: random.Random) -> None:
        for _ in range(times):
            await rig.stack.ready(name)
            rig.stack.kill(name)
            await asyncio.sleep(rng.uniform(0.5, 1.5))

    return strike


async def rolling_restart(rig: Rig, _: random.Random) -> None:
    """Restart every service, one after the other; the gateway has a second replica."""
    name, ports = await rig.stack.add_replica("gateway")
    rig.urls.append(f"http://127.0.0.1:{ports.gateway}")
    try:
        for service in ("stock-data", "email", "batch-processor", "gateway", name):
            await rig.stack.restart(service)
    finally:
        rig.urls.pop()
        await rig.stack.stop(name)


def poison(count: int) -> Harm:
    """Return a fault: messages that no consumer can read are put among the good ones."""

    async def strike(rig: Rig, rng: random.Random) -> None:
        for _ in range(count):
            queue = rng.choice(sorted(_TYPES))
            await publish(rig, queue, b'{"no": "contract"}', message_type=_TYPES[queue])
            await asyncio.sleep(0.02)

    return strike


async def publish(rig: Rig, queue: str, body: bytes, *, message_type: str) -> None:
    """Put a message of our own straight into `queue`."""
    connection = await aiormq.connect(rig.stack.rabbitmq.url)
    try:
        channel = await connection.channel(publisher_confirms=True)
        properties = Basic.Properties(message_type=message_type, message_id=f"poison-{id(body)}")
        await channel.basic_publish(
            body, exchange="", routing_key=queue, properties=properties, mandatory=True
        )
    finally:
        await connection.close()


def limited(queue: str, *, most: int) -> Callable[[Rig], AbstractAsyncContextManager[None]]:
    """Return what lets `queue` take `most` messages, and refuses the rest."""
    return lambda rig: policy(rig, f"^{queue}$", {"max-length": most, "overflow": "reject-publish"})


def full_queue(owner: str, seconds: float) -> Harm:
    """Return a fault: `owner` is stopped until its limited queue has been full for `seconds`."""

    async def strike(rig: Rig, _: random.Random) -> None:
        await rig.stack.stop(owner)
        try:
            before = await _refused(rig)

            async def is_full() -> bool:
                return await _refused(rig) > before

            await until(is_full, timeout_s=20, what=lambda: "a full queue")
            await asyncio.sleep(seconds)
        finally:
            await rig.stack.start(owner)

    return strike


async def _refused(rig: Rig) -> float:
    labels = 'exchange="commands",outcome="refused"'
    return await rig.metric("gateway", f"tickwire_messages_published_total{{{labels}}}")


@asynccontextmanager
async def policy(rig: Rig, pattern: str, definition: dict[str, object]) -> AsyncIterator[None]:
    """Set a policy that overrides those of the product for the length of the block."""
    control = rig.stack.rabbitmq.control
    words = ["--vhost", VHOST, "--priority", "99", "--apply-to", "queues", "test", pattern]
    await control("set_policy", *words, json.dumps(definition))
    try:
        yield
    finally:
        await control("clear_policy", "--vhost", VHOST, "test")


@asynccontextmanager
async def short_ladder(rig: Rig, *, delay_ms: int) -> AsyncIterator[None]:
    """Set every retry delay to `delay_ms` for the length of the block, and until no message waits."""
    definition: dict[str, object] = {
        "message-ttl": delay_ms,
        "dead-letter-exchange": "",
        "dead-letter-strategy": "at-least-once",
        "overflow": "reject-publish",
        "max-length": 100_000,
    }
    async with policy(rig, r"^retry\.", definition):
        yield
        # What still waits on a rung would wait as long as the rung really takes.
        while await _somebody_waits(rig):
            await asyncio.sleep(0.2)


@asynccontextmanager
async def broken_table(rig: Rig, database: str, table: str) -> AsyncIterator[None]:
    """Rename a table that a handler needs, for the length of the block: every attempt fails meanwhile."""
    connection = await asyncpg.connect(rig.stack.postgres.dsn(database))
    try:
        await connection.execute(f"ALTER TABLE {table} RENAME TO {table}_away")
        try:
            yield
        finally:
            await connection.execute(f"ALTER TABLE {table}_away RENAME TO {table}")
    finally:
        await connection.close()


async def _somebody_waits(rig: Rig) -> bool:
    return any((await rig.depths(*_RUNGS)).values())


async def climb_the_ladder(rig: Rig, _: random.Random) -> None:
    """Let every mail fail for two seconds."""
    async with broken_table(rig, "emailer", "recipients"):
        await until(lambda: _somebody_waits(rig), timeout_s=10, what=lambda: "a mail on the ladder")
        await asyncio.sleep(2)
