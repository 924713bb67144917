"""The chassis while a server is silent: each call ends in time, the fault is reported, and work goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import aiormq
import pytest
from yarl import URL

from chassis.broker.envelope import Delivery, command, live
from chassis.broker.handlers import InTransaction
from chassis.broker.publisher import Publisher
from chassis.broker.rabbitmq import Link, rejections_as_errors
from chassis.errors import BrokerUnavailable, DatabaseUnavailable
from chassis.postgres import Connection, Postgres
from chassis.runtime import ServiceRuntime
from chassis.settings import Settings
from chassis.supervision import Tasks
from contracts.batches import INTAKE, CancelBatch
from contracts.topology import BATCH_PROCESSOR
from faults import proxy as proxies
from faults.proxy import FaultProxy
from native.postgres import PostgresServer
from native.rabbitmq import RabbitMQ
from support.background import in_background
from support.databases import FreshDatabase
from support.waiting import until

# The chassis promises about 6 s; a busy machine gets as much again.
_CAP_S = 12


def through(proxy: FaultProxy, url: str) -> str:
    return str(URL(url).with_port(proxy.port))


def cancel(owner: str = "ann") -> CancelBatch:
    return CancelBatch(batch_id=uuid4(), owner_id=owner)


async def test_a_rejected_wait_is_an_error_and_a_real_cancellation_is_one() -> None:
    with pytest.raises(ConnectionError), rejections_as_errors():
        raise asyncio.CancelledError
    # aiormq really does that.
    with pytest.raises(ConnectionError), rejections_as_errors():
        raise Exception
    with pytest.raises(ValueError, match="mine"), rejections_as_errors():
        raise ValueError("mine")
    with pytest.raises(TimeoutError), rejections_as_errors():
        async with asyncio.timeout(0.01):
            await asyncio.sleep(10)

    async def wait() -> None:
        with rejections_as_errors():
            await asyncio.sleep(10)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_that_ends_as_if_cancelled_is_reported() -> None:
    async def end() -> None:
        raise asyncio.CancelledError

    tasks = Tasks()
    tasks.start("relay", end())
    await until(lambda: tasks.check() is not None)
    assert "relay died" in str(tasks.check())


async def test_tasks_that_are_closed_have_not_died() -> None:
    tasks = Tasks()
    tasks.start("relay", asyncio.sleep(10))
    await tasks.close()
    assert tasks.check() is None


@asynccontextmanager
async def publishing(url: str) -> AsyncIterator[Publisher]:
    publisher = Publisher(url, timeout_s=1)
    link = asyncio.create_task(publisher.link.run())
    assert await publisher.wait_connected(10)
    try:
        yield publisher
    finally:
        link.cancel()
        await asyncio.gather(link, return_exceptions=True)
        await publisher.link.close()


@pytest.fixture
async def broker(rabbitmq_server: RabbitMQ) -> AsyncIterator[FaultProxy]:
    async with proxies.running(rabbitmq_server.ports.rabbitmq) as proxy:
        yield proxy


async def _declare(url: str) -> None:
    connection = await aiormq.connect(url)
    channel = await connection.channel()
    await channel.queue_declare(INTAKE, durable=True, arguments={"x-queue-type": "quorum"})
    await channel.queue_bind(INTAKE, "commands", routing_key=INTAKE)
    await connection.close()


async def test_publishing_into_a_black_hole_ends_in_time_and_works_again(
    broker: FaultProxy, broker_url: str
) -> None:
    await _declare(broker_url)
    async with publishing(through(broker, broker_url)) as publisher:
        await publisher.publish(command(cancel()))
        broker.black_hole()
        started = time.monotonic()
        outcomes = await asyncio.gather(
            *(publisher.publish(command(cancel())) for _ in range(50)), return_exceptions=True
        )
        assert time.monotonic() - started < _CAP_S
        assert all(isinstance(outcome, BrokerUnavailable) for outcome in outcomes)
        await broker.recover()

        async def works() -> bool:
            try:
                await publisher.publish(command(cancel()))
            except BrokerUnavailable:
                return False
            return True

        await until(works, timeout_s=30)


async def test_a_transient_message_does_not_wait_for_a_dead_broker(
    broker: FaultProxy, broker_url: str
) -> None:
    async with publishing(through(broker, broker_url)) as publisher:
        broker.set(stalls=True)
        big = live(cancel("x" * 500_000), "quotes.AAPL")

        async def fill() -> None:
            for _ in range(200):
                await publisher.send(big)

        started = time.monotonic()
        senders = [asyncio.create_task(fill()) for _ in range(3)]
        outcomes = await asyncio.gather(*senders, return_exceptions=True)
        assert time.monotonic() - started < 3 * _CAP_S
        assert all(outcome is None or isinstance(outcome, BrokerUnavailable) for outcome in outcomes)


async def test_confirms_that_a_closing_link_rejects_are_unavailable(broker_url: str) -> None:
    await _declare(broker_url)
    async with publishing(broker_url) as publisher:
        for _ in range(5):
            assert await publisher.wait_connected(10)
            sends = [asyncio.create_task(publisher.publish(command(cancel()))) for _ in range(200)]
            await asyncio.sleep(0.005)
            publisher.link.interrupt()
            outcomes = await asyncio.gather(*sends, return_exceptions=True)
            assert all(outcome is None or isinstance(outcome, BrokerUnavailable) for outcome in outcomes)
            await until(lambda: publisher.link.is_connected)


async def test_a_link_survives_resets_while_it_is_set_up(broker: FaultProxy, broker_url: str) -> None:
    set_up = 0

    async def declare(link: Link) -> None:
        nonlocal set_up
        channel = await link.channel(confirms=False)
        if set_up < 3:
            set_up += 1
            broker.reset_all()
        await channel.queue_declare("", exclusive=True)

    link = Link(through(broker, broker_url), name="test", on_open=declare)
    running = asyncio.create_task(link.run())
    assert await link.wait_connected(30)
    assert set_up == 3
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await link.close()


@asynccontextmanager
async def watched(dsn: str) -> AsyncIterator[Postgres]:
    postgres = Postgres(dsn, size=4)
    await postgres.open()
    try:
        async with in_background(postgres.watch()):
            yield postgres
    finally:
        await postgres.close()


async def _answers(postgres: Postgres) -> bool:
    try:
        async with postgres.connection() as connection:
            return bool(await connection.fetchval("SELECT true", timeout=2))
    except DatabaseUnavailable:
        return False


@pytest.mark.parametrize("is_new_dead", [True, False], ids=["black hole", "half-open"])
async def test_a_statement_on_a_dead_connection_ends_long_before_its_time_out(
    postgres_server: PostgresServer, fresh_database: FreshDatabase, is_new_dead: bool
) -> None:
    dsn = await fresh_database()
    async with proxies.running(postgres_server.ports.postgres) as proxy, watched(through(proxy, dsn)) as db:
        assert await _answers(db)
        started = time.monotonic()

        async def ask() -> None:
            async with db.transaction() as connection:
                proxy.black_hole() if is_new_dead else proxy.half_open()
                await connection.fetchval("SELECT 1")

        with pytest.raises(DatabaseUnavailable):
            await ask()
        assert time.monotonic() - started < _CAP_S
        if is_new_dead:
            await until(lambda: db.check() is not None)
            started = time.monotonic()
            assert not await _answers(db)
            assert time.monotonic() - started < 1
            await proxy.recover()
        await until(lambda: _answers(db), timeout_s=20)
        await until(lambda: db.check() is None)


async def test_the_watch_outlives_connections_that_it_has_cut(
    postgres_server: PostgresServer, fresh_database: FreshDatabase
) -> None:
    dsn = await fresh_database()
    async with proxies.running(postgres_server.ports.postgres) as proxy, watched(through(proxy, dsn)) as db:

        async def hold() -> None:
            async with db.connection() as connection:
                # Cut, and still in hand at the next cut and at the end of the outage.
                proxy.black_hole()
                for _ in range(2):
                    assert not await db.ping()
                await proxy.recover()
                await until(db.ping)
                await connection.execute("SELECT 1")

        with pytest.raises(DatabaseUnavailable):
            await hold()
        assert await _answers(db)


async def test_a_message_that_never_finds_the_database_does_not_block_its_neighbours(
    broker_url: str, fresh_database: FreshDatabase
) -> None:
    handled: list[str] = []

    async def handle(connection: Connection, deliveries: Sequence[Delivery[CancelBatch]]) -> None:
        names = [delivery.message.owner_id for delivery in deliveries]
        if "poison" in names:
            raise DatabaseUnavailable("its statement takes longer than any statement may")
        handled.extend(names)

    values = {"rabbitmq_url": broker_url, "postgres_dsn": await fresh_database(), "shutdown_grace_s": 2}
    runtime = ServiceRuntime(
        Settings.model_validate(values), service=BATCH_PROCESSOR, package="support.sample_service"
    )
    runtime.consume(INTAKE, {CancelBatch: InTransaction(handle, group=10)})
    async with runtime:
        await until(lambda: runtime.health.reasons() == {}, timeout_s=30)
        publisher = runtime.messaging.publisher
        for owner in ("first", "poison", "second", "third"):
            await publisher.publish(command(cancel(owner)))
        await until(lambda: sorted(set(handled)) == ["first", "second", "third"], timeout_s=30)
